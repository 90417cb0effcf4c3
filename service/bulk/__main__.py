"""Recognize millions of pictures: python -m service.bulk INPUT... --out DIR."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from service.bulk import RESUME_HINT, STOPPING, BulkError, interrupt, pool
from service.recognition import pin

if TYPE_CHECKING:
    from service.bulk.job import Result

PART_SIZE = 2000


def main() -> None:
    start = time.monotonic()
    options = _options()
    address = os.environ.get("RAY_ADDRESS")
    _check_extras({"pyarrow": "bulk", "tqdm": "bulk"} | ({"ray": "cluster"} if address else {}))
    for number in STOPPING:  # SIGINT too, because shells start background commands that ignore it
        signal.signal(number, interrupt)
    try:
        with _workers(address) as results:
            _run(options, results, start)
    except (pin.PinError, BulkError, OSError) as error:
        sys.exit(f"bulk: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.bulk",
        description="Recognize the digit of every picture with exactly the artifact that dvc.lock "
        "pins. Write Parquet files with the columns path, label, probabilities, error and version. "
        "An unreadable picture becomes a row with its error set. Run the same command again to "
        "make the missing parts. The job uses all cores of this machine, or those of the Ray "
        "cluster at RAY_ADDRESS.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders, globs (quoted; ** matches any depth), tar archives and Parquet "
        "files, on this machine or in a bucket (s3://bucket/folder)",
    )
    parser.add_argument(
        "--out", required=True, help="folder for the output, on this machine or in a bucket"
    )
    parser.add_argument(
        "--part-size",
        type=int,
        default=PART_SIZE,
        help="maximum number of pictures in a part; a part is one Parquet file, and the job makes "
        "it again if its process or node dies",
    )
    parser.add_argument(
        "--column",
        help="column of Parquet inputs that contains the pictures; by default the first that "
        "exists of image, png, jpg, picture, bytes and content",
    )
    parser.add_argument(
        "--lock",
        type=Path,
        default=Path("dvc.lock"),
        help="lock file; the artifact is data/model in the same folder",
    )
    parser.add_argument(
        "--allow-md5-only",
        action="store_true",
        help="accept a lock file that pins the artifact by MD5 only, without data/model.sha256; an "
        "attacker can make two artifacts with one MD5",
    )
    options = parser.parse_args()
    if options.part_size < 1:
        parser.error("--part-size must be at least 1")
    return options


def _check_extras(extras: dict[str, str]) -> None:
    missing = [name for name in extras if find_spec(name) is None]
    if missing:
        names = ",".join(sorted({extras[name] for name in missing}))
        sys.exit(f"bulk: {', '.join(missing)} not installed; run `pip install '.[{names}]'`")


def _workers(address: str | None) -> AbstractContextManager[pool.Results]:
    if address:
        from service.bulk import cluster

        return cluster.connect(address)
    return pool.start(os.cpu_count() or 1)


def _run(options: argparse.Namespace, results: pool.Results, start: float) -> None:
    from service.bulk import storage
    from service.bulk.job import Job

    pinned = pin.read(options.lock, options.allow_md5_only)
    artifact = _artifact(pinned)
    job = Job(
        out=storage.absolute(options.out),
        inputs=[storage.absolute(name) for name in options.inputs],
        part_size=options.part_size,
        column=options.column,
        version=pinned.version,
        sha256=pinned.sha256,
    )
    resumed = job.start()
    done = job.done()
    tasks = [task for task in job.tasks() if job.output(task.number) not in done]
    if resumed:
        print(
            f"{len(done):,} of {len(done) + len(tasks):,} parts are done; files added to the "
            "inputs since the first run are not included",
            flush=True,
        )
    new_results = results(job, artifact, tasks) if tasks else iter(())
    rows, errors, rate = _report_progress(new_results, len(done), len(tasks))
    job.clear()
    print(
        f"{rows:,} pictures, {errors:,} of them with an error, in {time.monotonic() - start:.1f} s "
        f"({rate:,.0f} per second without the start-up), by "
        f"{pin.describe(pinned.version, pinned.sha256)}"
    )


def _artifact(pinned: pin.Pin) -> dict[str, bytes]:
    """Verify the pinned artifact, and return the content of its files by relative path."""
    with TemporaryDirectory(prefix="mnist-bulk-") as private:
        folder = Path(private) / pinned.version
        pin.copy(pinned, folder)
        files = (file for file in folder.rglob("*") if file.is_file())
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _report_progress(results: "Iterator[Result]", done: int, left: int) -> tuple[int, int, float]:
    """Consume the results, and show a progress bar.

    Args:
        results: The results of the parts, as they arrive.
        done: The number of parts that an earlier run made.
        left: The number of parts to make.

    Returns:
        The number of rows, the number of rows with an error, and the rows per second since the
        first worker began.

    Raises:
        BulkError: A part could not be made.
    """
    from tqdm import tqdm

    rows = errors = 0
    rate = began = 0.0
    with tqdm(total=done + left, initial=done, unit="part", disable=None) as bar:
        for result in results:
            if result.failure:
                raise BulkError(f"{result.failure}; {RESUME_HINT}")
            now = time.monotonic()
            began = began or now - result.seconds
            rows += result.rows
            errors += result.errors
            rate = rows / (now - began)
            bar.set_postfix_str(f"{rows:,} pictures, {rate:,.0f} per second, {errors:,} errors")
            bar.update()
    return rows, errors, rate


if __name__ == "__main__":
    main()
