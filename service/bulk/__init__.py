"""Recognize millions of pictures: `python -m service.bulk INPUT... --out DIR`.

A job consists of parts. Worker processes make the parts in any order, on this machine or on the
nodes of a Ray cluster. If a process or a node dies, another process makes its part again. A part is
one Parquet file of the output. It appears atomically, and a repeated run produces the same file, so
no row is lost or duplicated.
"""

import signal
import sys
from typing import NoReturn

STOPPING = (signal.SIGTERM, signal.SIGINT)  # these signals end a job
RESUME_HINT = "run the same command again to continue"


def interrupt(*_: object) -> NoReturn:
    """End the job: the handler of the signals that stop it.

    It does not raise KeyboardInterrupt: if that happens while Python executes a string, as
    `dataclass` does on import, Python 3.11 ends by SIGINT although the job catches the exception.
    """
    sys.exit(f"bulk: interrupted; {RESUME_HINT}")


class BulkError(Exception):
    """The job cannot start or continue. The message is the sentence that the user reads."""
