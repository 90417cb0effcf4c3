"""What every stage shares: its error, its exit status, and outputs that are whole or absent."""

import errno
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

SCRATCH = Path(".dvc/tmp/stages")  # within DVC's own place for what need not be kept


class StageError(Exception):
    """A stage cannot go on; the text is the one sentence that its user reads."""


def run(name: str, main: Callable[[], None]) -> None:
    """Call `main`. Print an error as one sentence that begins with `name`, and exit with status 1.

    If DVC started this process, it ends when DVC does.
    """
    if "DVC_STAGE" in os.environ:
        Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        main()
    except StageError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        # Not its own text, which h5py makes three lines of.
        reason = os.strerror(error.errno) if error.errno else error
        sys.exit(f"{name}: {error.filename}: {reason}" if error.filename else f"{name}: {reason}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; nothing was written")


def _end_with(parent: int) -> None:
    """End this process when its parent ends: if DVC is killed, its next run may start at once."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write in, which takes the place of `folder` once all is written.

    After an error `folder` is as it was. What a killed run left behind, the next one removes.
    """
    with _scratch(folder) as scratch:
        partial = scratch / folder.name
        partial.mkdir()
        yield partial
        if folder.exists():
            folder.rename(scratch / "old")
        partial.rename(folder)


def write_atomically(file: Path, text: str) -> None:
    """Write a file elsewhere, then let it take its place."""
    with _scratch(file) as scratch:
        partial = scratch / file.name
        partial.write_text(text)
        partial.rename(file)


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """Give a folder in which to write what is to become `output`.

    It is not in data/, where it would stay if a run is killed and the next finds the output in
    DVC's cache; only if data/ is on another disk, it is there. Whether something in it can be
    renamed to `output` is found out at once, not after an hour of training.
    """
    scratch, beside = SCRATCH / output.name, output.with_name(f".{output.name}.partial")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    output.parent.mkdir(exist_ok=True)
    with (SCRATCH / f"{output.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run of the stage waits for the first
        for left_behind in (scratch, beside):
            shutil.rmtree(left_behind, ignore_errors=True)
        scratch.mkdir()
        try:
            scratch.rename(beside)
            beside.rename(scratch)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            beside.mkdir()
            scratch = beside
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
