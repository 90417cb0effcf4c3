"""Recognize millions of pictures: `python -m service.bulk INPUT... --out DIR`.

A job consists of parts. Worker processes make the parts in any order, on this machine or on the
nodes of a Ray cluster. If a process or a node dies, another process makes its part again. A part is
one Parquet file of the output. It appears atomically, and a repeated run produces the same file, so
no row is lost or duplicated.
"""

import signal

STOPPING = (signal.SIGTERM, signal.SIGINT)  # these signals end a job
RESUME_HINT = "run the same command again to continue"


class BulkError(Exception):
    """The job cannot start or continue. The message is the sentence that the user reads."""
