"""Write an access log: one line per request on standard output.

Each line ends with a request id, which the response carries as `X-Request-Id`. The id is the
client's own `X-Request-Id` if that is usable, and a random one otherwise.
"""

import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from random import getrandbits
from wsgiref.types import WSGIEnvironment

import orjson

# Keys of a request's WSGI environ:
ARRIVED = "service.arrived"  # time.perf_counter() when the body was complete
IDENTITY = "service.request_id"
IMAGES = "service.images"  # number of images recognized

FORMATS = ("text", "json")
MAX_ID = 128  # characters of a client's id; the service replaces a longer one


def begin(environ: WSGIEnvironment) -> None:
    """Record the time of arrival and the id of a request in its environ."""
    environ.setdefault(ARRIVED, time.perf_counter())
    client_id = environ.get("HTTP_X_REQUEST_ID", "")
    usable = 0 < len(client_id) <= MAX_ID and client_id.isascii() and client_id.isprintable()
    environ[IDENTITY] = client_id if usable else f"{getrandbits(128):032x}"


def seconds(environ: WSGIEnvironment) -> float:
    """Return the seconds since a request arrived, including its time in the queue."""
    return time.perf_counter() - environ[ARRIVED]


def write(form: str, environ: WSGIEnvironment, status: int, duration: float) -> None:
    """Write the log line of a request.

    Args:
        form: `text` or `json`.
        environ: The WSGI environ of the request, after `begin`.
        status: The HTTP status of the response.
        duration: The seconds from the arrival of the request to its response.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    method, milliseconds = environ["REQUEST_METHOD"], round(duration * 1000, 3)
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
        # With a line break in its path, a client could forge a log line.
        path = path if path.isprintable() else ascii(path)
        line = (
            f"{now} {method} {path} {status} {milliseconds} ms images={images} id={identity}\n"
        ).encode()
    with suppress(OSError):  # keep serving even if the reader of the log is gone
        os.write(sys.stdout.fileno(), line)
