"""Recognise millions of pictures: python -m service.bulk INPUT... --out DIR"""

import argparse
import logging
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from service import pin

PART_SIZE = 2000
# Of Ray: each costs the driver some kilobytes and milliseconds. Where a job has more parts, a task
# has several of them.
MOST_TASKS = 10_000
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
        sys.exit(f"bulk: {options.out}: {error}")
    except KeyboardInterrupt:
        sys.exit("bulk: interrupted; the same command goes on with the parts that are missing")


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
    names = [places.absolute(name) for name in options.inputs]
    out = places.absolute(options.out)
    job = Job(out, names, options.part_size, options.column, pinned.version)
    resumed = job.start()
    done = job.done()
    parts = [part for part in job.places() if job.output(part[0]) not in done]
    if resumed:
        print(f"{len(done):,} of {len(done) + len(parts):,} parts are done already", flush=True)
    rows, errors, seconds = _recognize(job, artifact, parts, len(done)) if parts else (0, 0, 0.0)
    job.clear()
    print(
        f"{rows:,} pictures, {errors:,} of them with an error, in {time.monotonic() - start:.1f} s "
        f"({rows / seconds if seconds else 0:,.0f} a second from the first part on), "
        f"by {pinned.version}"
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
    """Make the outputs of parts; return how many rows and errors they have, and in what time."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import pyarrow as pa
    import ray
    import ray.data
    from tqdm import tqdm

    import service
    from service.bulk.job import JobError
    from service.bulk.worker import Worker

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, runtime_env={"py_modules": [service]})
    else:
        ray.init("local", log_to_driver=False, include_dashboard=False, object_store_memory=STORE)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        cores = int(ray.cluster_resources().get("CPU", 1))
        table = pa.table(dict(zip(("number", "start", "end"), zip(*parts), strict=True)))
        size = -(-len(table) // MOST_TASKS)
        tasks = [table.slice(start, size) for start in range(0, len(table), size)]
        made = ray.data.from_arrow(tasks).map_batches(
            Worker,
            batch_size=None,
            fn_constructor_args=(job, artifact),
            compute=ray.data.ActorPoolStrategy(size=cores),
            num_cpus=1,
        )
        rows = errors = 0
        first = None
        with tqdm(total=done + len(parts), initial=done, unit="part", disable=None) as bar:
            for row in made.iter_rows():
                rows += row["rows"]
                errors += row["errors"]
                first = first or time.monotonic()
                bar.set_postfix(pictures=rows, errors=errors)
                bar.update()
        return rows, errors, time.monotonic() - first
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
