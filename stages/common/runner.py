"""How a stage and a command run: errors become one sentence."""

import os
import sys
import time
from collections.abc import Callable
from threading import Thread


class StageError(Exception):
    """A stage cannot continue. The text is the sentence that the user reads."""


def run(name: str, main: Callable[[], None]) -> None:
    """Call `main`; on an error, print one sentence that begins with `name` and exit with status 1.

    If DVC started this process, the process ends when DVC does.
    """
    if "DVC_STAGE" in os.environ:
        Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        main()
    except StageError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        # Prefer the system's message: as of h5py 3.14, its own text has three lines.
        reason = os.strerror(error.errno) if error.errno else error
        sys.exit(f"{name}: {error.filename}: {reason}" if error.filename else f"{name}: {reason}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the stage wrote nothing")


def _end_with(parent: int) -> None:
    """End this process when its parent ends.

    If DVC is killed, the user may start the next run at once. This works on macOS too, unlike the
    signal by which Linux announces the parent's end.
    """
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)
