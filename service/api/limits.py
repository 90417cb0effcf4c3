"""How much one request may ask for. Each limit is an option of `python -m service`."""

from dataclasses import dataclass

from flask import current_app, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, ServiceUnavailable

from service import access_log
from service.recognition.images import MAX_PIXELS

CONFIG = "LIMITS"  # where an application has its limits
# In the environ of a request that the server, before any application, found to be over one: what
# makes the HTTPException to answer with. Not the exception itself, whose traceback would lead back
# to the environ, and keep the connection until the garbage is collected.
REFUSAL = "service.refusal"
# A thousand pictures may be a few kilobytes each, and take a second each to decode: those of one
# request have as many pixels as this many of the largest.
TOGETHER = 4
# A request is short if its body, its pictures and their pixels together are no more than these:
# some ten milliseconds of work.
SHORT_BODY = 1 << 16  # bytes
SHORT_PICTURES = 4
SHORT_PIXELS = 1_000_000
ON_LOOP = "service.on_loop"  # in the environ of a request that is being answered on the event loop
LEFT = "service.left"  # in the environ of a request whose client has closed the connection


class LongRequestError(BaseException):
    """A request that is answered on the event loop turns out to be long.

    Not an Exception, which Flask would answer with 500.
    """


class ClientClosedRequest(HTTPException):
    """The client has left. Only the log and the metrics show this status, which is nginx's."""

    code = 499
    description = "The client closed the connection before it had an answer."


@dataclass(frozen=True)
class Limits:
    body: int = 16 << 20  # bytes of a request
    images: int = 1000  # of a request
    pixels: int = MAX_PIXELS  # of a picture; checked before they are decoded
    queue: int = 512  # requests that wait for their turn in one worker: about half a second
    seconds: int = 30  # to receive a request, and as many again to answer it


def current() -> Limits:
    """Those of the application that answers."""
    return current_app.config[CONFIG]


def check_images(count: int) -> None:
    """Raises 413 for more images than one request may have."""
    most = current().images
    if count > most:
        raise RequestEntityTooLarge(f"The request has {count:,} images; the most is {most:,}.")


def check_pixels(count: int) -> None:
    """Raises 413 for more pixels in all than the pictures of one request may have."""
    most = TOGETHER * current().pixels
    if count > most:
        raise RequestEntityTooLarge(f"The pictures have more than {most:,} pixels together.")


def leave_loop_if(long: bool) -> None:
    """Raises LongRequestError if a request that is answered on the event loop is long."""
    if long and ON_LOOP in request.environ:
        raise LongRequestError


def check_time() -> None:
    """Raises 503 where a request has taken all its time already, 499 if its client has left."""
    if LEFT in request.environ:
        raise ClientClosedRequest
    seconds = current().seconds
    if access_log.seconds(request.environ) > seconds:
        raise out_of_time(seconds)


def out_of_time(seconds: int) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The request took longer than {seconds} seconds; send fewer or smaller pictures."
    )
