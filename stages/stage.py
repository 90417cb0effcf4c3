"""What every stage shares: its error, its exit status, and outputs that are whole or absent."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class StageError(Exception):
    """A stage cannot go on; the text is the one sentence that its user reads."""


def run(main: Callable[[], None]) -> None:
    """Call the `main` of the module that was started; an error becomes a sentence and status 1."""
    spec = sys.modules["__main__"].__spec__
    name = spec.name if spec else sys.argv[0]
    try:
        main()
    except (StageError, OSError) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; nothing was written")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write in, which takes the place of `folder` once all is written.

    After an error `folder` is as it was. What a killed run left behind, the next one removes.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(file: Path, text: str) -> None:
    """Write a file under another name, then let it take its place."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text)
    partial.rename(file)
