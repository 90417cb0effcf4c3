"""503 where too many requests wait already: at once, and before anything is made of it."""

from flask import Request
from werkzeug.exceptions import ServiceUnavailable

REFUSED = "service.refused"  # in the environ of a request that found the queue full
RETRY_AFTER = 1  # seconds; a full queue is worked off in less


def check(request: Request) -> None:
    """Raises 503 for a request that was refused a place."""
    if REFUSED in request.environ:
        raise ServiceUnavailable(
            "Too many requests are waiting; try again in a second.", retry_after=RETRY_AFTER
        )
