"""Write outputs whole or not at all."""

import errno
import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = Path(".dvc/tmp/stages")  # DVC keeps its own temporary files in .dvc/tmp

_checks: list[Callable[[], None]] = []  # see `check_before_writing`


def check_before_writing(check: Callable[[], None]) -> None:
    """Call `check` before each output replaces the previous one. An exception prevents that."""
    _checks.append(check)


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block ends.

    If the block raises an error, `folder` stays as it was. The next run removes the files that a
    killed run left behind.
    """
    with _scratch(folder) as scratch:
        partial = scratch / folder.name
        partial.mkdir()
        yield partial
        for check in _checks:
            check()
        if folder.exists():
            folder.rename(scratch / "old")
        partial.rename(folder)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a temporary file, then rename it to `file`."""
    with _scratch(file) as scratch:
        partial = scratch / file.name
        partial.write_bytes(content)
        for check in _checks:
            check()
        partial.rename(file)


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """Yield a folder on the disk of `output` in which to prepare it.

    The folder is outside data/: if a run is killed and the next run takes the output from DVC's
    cache, no stage would remove a leftover in data/. The folder is in data/ only if data/ is on
    another disk. This function tries a rename at the start, so that a missing permission stops
    the stage before an hour of training.
    """
    scratch, fallback = SCRATCH / output.name, output.with_name(f".{output.name}.partial")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    output.parent.mkdir(exist_ok=True)
    with (SCRATCH / f"{output.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run of the stage waits for the first
        for leftover in (scratch, fallback):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch.mkdir()
        try:
            scratch.rename(fallback)
            fallback.rename(scratch)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            fallback.mkdir()
            scratch = fallback
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
