"""One line for each request on standard output, and the id by which to find it again.

The id is the client's `X-Request-Id`, or a new one; the answer carries it too.
"""

import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from random import getrandbits
from wsgiref.types import WSGIEnvironment

import orjson

# In the environment of a request:
ARRIVED = "service.arrived"  # time.perf_counter() when the body was whole
IDENTITY = "service.request_id"
IMAGES = "service.images"  # how many were recognised

FORMATS = ("text", "json")
MAX_ID = 128  # characters of a client's id; a longer one is replaced


def begin(environ: WSGIEnvironment) -> None:
    """Start the clock of a request and give it its id."""
    environ.setdefault(ARRIVED, time.perf_counter())
    given = environ.get("HTTP_X_REQUEST_ID", "")
    known = 0 < len(given) <= MAX_ID and given.isascii() and given.isprintable()
    environ[IDENTITY] = given if known else f"{getrandbits(128):032x}"


def seconds(environ: WSGIEnvironment) -> float:
    """How long a request has taken so far, with its time in the queue."""
    return time.perf_counter() - environ[ARRIVED]


def write(form: str, environ: WSGIEnvironment, status: int, took: float) -> None:
    """Write the line of a request that took so many seconds."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    method, milliseconds = environ["REQUEST_METHOD"], round(took * 1000, 3)
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    images, identity = environ.get(IMAGES, 0), environ[IDENTITY]
    if form == "json":
        entry = {
            "time": now,
            "method": method,
            "path": path,
            "status": status,
            "milliseconds": milliseconds,
            "images": images,
            "request_id": identity,
        }
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
    else:
        # A line break in the path would begin a line of a request that never was.
        path = path if path.isprintable() else ascii(path)
        line = (
            f"{now} {method} {path} {status} {milliseconds} ms images={images} id={identity}\n"
        ).encode()
    with suppress(OSError):  # nobody reads the log any more: no reason to refuse anybody
        os.write(sys.stdout.fileno(), line)
