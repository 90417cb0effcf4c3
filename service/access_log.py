"""Write an access log: one line per request on standard output.

Each line has a request id, which the response carries as `X-Request-Id`. The id is the client's own
`X-Request-Id` if that is usable, and a random one otherwise. A line also repeats the `traceparent`
of the request (https://www.w3.org/TR/trace-context), by which tracing tools find the request.
"""

import os
import re
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

MAX_ID = 128  # characters of a client's id; the service replaces a longer one
# Neither id is zero. A later version of the standard may add fields.
TRACEPARENT = re.compile(
    r"((?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?"
)


def begin(environ: WSGIEnvironment) -> None:
    """Record the time of arrival and the id of a request in its environ."""
    environ.setdefault(ARRIVED, time.perf_counter())
    client_id = environ.get("HTTP_X_REQUEST_ID", "")
    usable = 0 < len(client_id) <= MAX_ID and client_id.isascii() and client_id.isprintable()
    environ[IDENTITY] = client_id if usable else f"{getrandbits(128):032x}"


def seconds(environ: WSGIEnvironment) -> float:
    """Return the seconds since a request arrived, including its time in the queue."""
    return time.perf_counter() - environ[ARRIVED]


def write(form: str, environ: WSGIEnvironment, version: str, status: int, duration: float) -> None:
    """Write the log line of a request.

    Args:
        form: `text` or `json`.
        environ: The WSGI environ of the request, after `begin`.
        version: The version of the model that answered.
        status: The HTTP status of the response.
        duration: The seconds from the arrival of the request to its response.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    method, milliseconds = environ["REQUEST_METHOD"], round(duration * 1000, 3)
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    images, identity = environ.get(IMAGES, 0), environ[IDENTITY]
    trace = _traceparent(environ["HTTP_TRACEPARENT"]) if "HTTP_TRACEPARENT" in environ else None
    if form == "json":
        entry = {
            "time": now,
            "method": method,
            "path": path,
            "status": status,
            "milliseconds": milliseconds,
            "images": images,
            "version": version,
            "request_id": identity,
        }
        if trace:
            entry["traceparent"] = trace
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
    else:
        # With a line break in its path, a client could forge a log line.
        path = path if path.isprintable() else ascii(path)
        traced = f" traceparent={trace}" if trace else ""
        line = (
            f"{now} {method} {path} {status} {milliseconds} ms images={images} version={version}"
            f"{traced} id={identity}\n"
        ).encode()
    with suppress(OSError):  # keep serving even if the reader of the log is gone
        os.write(sys.stdout.fileno(), line)


def _traceparent(header: str) -> str | None:
    """Return the fields of the header that this service knows, or None if the header is invalid."""
    match = TRACEPARENT.fullmatch(header)
    if match is None or (match[2] == "00" and match[3]):
        return None
    return match[1]
