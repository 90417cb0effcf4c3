"""Recognition of millions of pictures: `python -m service.bulk INPUT... --out DIR`.

A job is cut into parts. Worker processes make them in any order, on this machine or on the nodes of
a Ray cluster, and again if a process or a node dies. A part is one Parquet file of the output: it
is there whole or not at all, and it is the same however often it is made. So no row is lost, and
none is doubled.
"""

import signal

STOPPING = (signal.SIGTERM, signal.SIGINT)  # end a job
AGAIN = "the same command goes on with what is missing"


class BulkError(Exception):
    """The job cannot start or go on; the text is the sentence that the user reads."""
