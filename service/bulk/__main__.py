"""Recognise millions of pictures: python -m service.bulk INPUT... --out DIR"""

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING

from service import pin
from service.silence import silence

if TYPE_CHECKING:
    from service.bulk.job import Job

PART_SIZE = 2000
# Of Ray: each costs the driver some kilobytes and milliseconds. Where a job has more parts, a task
# has several of them.
MOST_TASKS = 10_000
AGAIN = "the same command goes on with what is missing"
IN_FLIGHT = 8  # tasks that wait at each worker, which else stands still between two of them
CONNECT_TIMEOUT = 10  # seconds
STORE = 100 << 20  # bytes of Ray's object store, which has next to nothing to hold


def main() -> None:
    options = _options()
    missing = [name for name in ("pyarrow", "ray", "tqdm") if find_spec(name) is None]
    if missing:
        sys.exit(f"bulk: {', '.join(missing)} not installed; `pip install '.[bulk]'`")
    from service.bulk.inputs import InputError
    from service.bulk.job import JobError

    try:
        _run(options)
    except (pin.PinError, InputError, JobError) as error:
        sys.exit(f"bulk: {error}")
    except OSError as error:
        sys.exit(f"bulk: {error}")
    except KeyboardInterrupt:
        sys.exit(f"bulk: interrupted; {AGAIN}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.bulk",
        description="Recognise the digit of every picture, with exactly the artifact that dvc.lock "
        "pins, and write Parquet: path, label, probabilities, error, version. A picture that is "
        "broken is a row with its error. The same command again goes on with what is missing. It "
        "runs on all cores of this machine, or on the Ray cluster at RAY_ADDRESS.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders, globs (quoted; ** is any depth), tar archives and Parquet files, "
        "here or in a bucket (s3://bucket/folder)",
    )
    parser.add_argument("--out", required=True, help="folder for the output, here or in a bucket")
    parser.add_argument(
        "--part-size",
        type=int,
        default=PART_SIZE,
        help="pictures of a part, which is one Parquet file, and is done again if a node dies",
    )
    parser.add_argument(
        "--column", help="of Parquet that has the pictures; by default image, png, jpg and so on"
    )
    parser.add_argument(
        "--lock",
        type=Path,
        default=Path("dvc.lock"),
        help="the lock file; the artifact is data/model beside it",
    )
    options = parser.parse_args()
    if options.part_size < 1:
        parser.error("--part-size is a number from 1 on")
    return options


def _run(options: argparse.Namespace) -> None:
    from service.bulk import places
    from service.bulk.job import Job

    start = time.monotonic()
    pinned = pin.read(options.lock)
    artifact = _artifact(pinned)
    job = Job(
        out=places.absolute(options.out),
        inputs=[places.absolute(name) for name in options.inputs],
        part_size=options.part_size,
        column=options.column,
        version=pinned.version,
    )
    resumed = job.start()
    done = job.done()
    parts = [part for part in job.parts() if job.output(part[0]) not in done]
    if resumed:
        print(
            f"{len(done):,} of {len(done) + len(parts):,} parts are done; what was added to the "
            "inputs since the first run is not among them",
            flush=True,
        )
    rows, errors, rate = _recognize(job, artifact, parts, len(done)) if parts else (0, 0, 0)
    job.clear()
    print(
        f"{rows:,} pictures, {errors:,} of them with an error, in {time.monotonic() - start:.1f} s "
        f"({rate:,.0f} a second after the start), by {pinned.version}"
    )


def _artifact(pinned: pin.Pin) -> dict[str, bytes]:
    """The files of the pinned artifact, verified."""
    with TemporaryDirectory(prefix="mnist-bulk-") as private:
        folder = Path(private) / pinned.version
        pin.copy(pinned, folder)
        files = (file for file in folder.rglob("*") if file.is_file())
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _recognize(
    job: "Job", artifact: dict[str, bytes], parts: list[tuple[int, int, int]], done: int
) -> tuple[int, int, float]:
    """Make the outputs of parts.

    Raises:
        JobError: one cannot be made.

    Returns:
        Their rows, how many of them are errors, and the rows a second since the first worker
        began.
    """
    with _ray() as stopped:
        import ray
        from tqdm import tqdm

        from service.bulk.job import JobError
        from service.bulk.worker import Worker

        # Not from_arrow, for which Ray starts more processes than for all the rest.
        items = [dict(zip(("number", "start", "end"), part, strict=True)) for part in parts]
        tasks = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_TASKS))
        cores = int(ray.cluster_resources().get("CPU", 1))
        made = tasks.map_batches(
            Worker,
            batch_size=None,
            fn_constructor_args=(job, artifact),
            compute=ray.data.ActorPoolStrategy(
                size=min(cores, len(items)), max_tasks_in_flight_per_actor=IN_FLIGHT
            ),
            num_cpus=1,
        )
        rows = errors = 0
        with tqdm(total=done + len(parts), initial=done, unit="part", disable=None) as bar:
            for number, row in enumerate(made.iter_rows()):
                now = time.monotonic()
                if stopped.is_set():
                    raise KeyboardInterrupt
                if row["failure"]:
                    raise JobError(f"{row['failure']}; {AGAIN}")
                if not number:
                    began = now - row["seconds"]
                rows += row["rows"]
                errors += row["errors"]
                rate = rows / (now - began)
                bar.set_postfix_str(f"{rows:,} pictures, {rate:,.0f} a second, {errors:,} errors")
                bar.update()
    return rows, errors, rate


@contextmanager
def _ray() -> Iterator[Event]:
    """Start Ray on this machine, or join the cluster at RAY_ADDRESS.

    Yields:
        What is set once this process was told to end: where that finds Python in a callback of
        Ray's, the KeyboardInterrupt gets lost.

    Raises:
        JobError: that was not possible, or what runs there failed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    import service
    from service.bulk.job import JobError

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"logging_level": "error", "log_to_driver": False}
    try:
        with silence():
            if address:
                _reach(address)
                ray.init(address, runtime_env={"py_modules": [service]}, **quiet)
            else:
                ray.init("local", include_dashboard=False, object_store_memory=STORE, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise JobError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from error
    stopped = Event()

    def stop(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # in place of Ray's own
        signal.signal(number, stop)
    try:
        yield stopped
    except ray.exceptions.RayError as error:
        raise JobError(f"Ray failed: {' '.join(str(error).split())}; {AGAIN}") from error
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens, for which Ray would wait for minutes without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():  # and not "auto", for one
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()


if __name__ == "__main__":
    main()
