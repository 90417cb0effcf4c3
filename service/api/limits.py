"""The limits of one request. Each field of `Limits` is an option of `python -m service`."""

from dataclasses import dataclass

from flask import current_app, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, ServiceUnavailable

from service import access_log
from service.recognition.images import MAX_PIXELS

CONFIG = "LIMITS"  # the key of the limits in the application's configuration
# The environ key of a refusal: the server sets it if a request exceeds a limit before any
# application sees it. The value is a callable that creates the HTTPException of the response. A
# stored exception would keep the connection alive until the next garbage collection, because its
# traceback refers back to the environ.
REFUSAL = "service.refusal"
# The pictures of one request may have as many pixels in total as this many pictures of the largest
# size. Without this limit, a request of a thousand files of a few kilobytes each could take a
# second per file to decode.
MAX_LARGEST_PICTURES = 4
# A request is short if its body, its pictures and their total pixels stay within these limits. It
# then takes about ten milliseconds.
SHORT_BODY = 1 << 16  # bytes
SHORT_PICTURES = 4
SHORT_PIXELS = 1_000_000
ON_LOOP = "service.on_loop"  # environ key: the event loop is answering this request
DISCONNECTED = "service.disconnected"  # environ key: the client has closed the connection


class LongRequestError(BaseException):
    """A request that the event loop is answering turns out to be long.

    The base class is not Exception, because Flask would answer an Exception with 500.
    """


class ClientClosedRequest(HTTPException):
    """The client has closed the connection.

    Only the log and the metrics show this status. The number is nginx's.
    """

    code = 499
    description = "The client closed the connection before the service answered."


@dataclass(frozen=True)
class Limits:
    """The limits of one request."""

    body: int = 16 << 20  # bytes
    images: int = 1000
    pixels: int = MAX_PIXELS  # per picture; checked before decoding
    queue: int = 512  # requests that wait in one worker; about half a second of work
    seconds: int = 30  # to receive the request, and again to answer it


def current() -> Limits:
    """Return the limits of the application that answers the current request."""
    return current_app.config[CONFIG]


def check_images(count: int) -> None:
    """Check the number of images in the current request.

    Args:
        count: The number of images.

    Raises:
        RequestEntityTooLarge: The count exceeds the limit (413).
    """
    limit = current().images
    if count > limit:
        raise RequestEntityTooLarge(f"The request has {count:,} images; the limit is {limit:,}.")


def check_pixels(count: int) -> None:
    """Check the total pixels of all pictures in the current request.

    Args:
        count: The total number of pixels.

    Raises:
        RequestEntityTooLarge: The count exceeds the limit (413).
    """
    limit = MAX_LARGEST_PICTURES * current().pixels
    if count > limit:
        raise RequestEntityTooLarge(f"The pictures have more than {limit:,} pixels in total.")


def leave_loop_if(long: bool) -> None:
    """Move the current request off the event loop if it is long.

    Args:
        long: Whether the request is long.

    Raises:
        LongRequestError: The request is long and the event loop is answering it.
    """
    if long and ON_LOOP in request.environ:
        raise LongRequestError


def check_time() -> None:
    """Check whether the current request should continue.

    Raises:
        ClientClosedRequest: The client has closed the connection (499).
        ServiceUnavailable: The request has exceeded its time limit (503).
    """
    if DISCONNECTED in request.environ:
        raise ClientClosedRequest
    seconds = current().seconds
    if access_log.seconds(request.environ) > seconds:
        raise out_of_time(seconds)


def out_of_time(seconds: int) -> ServiceUnavailable:
    """Return the error of a request that exceeded its time limit of so many seconds (503)."""
    return ServiceUnavailable(
        f"The request took longer than {seconds} seconds; send fewer or smaller pictures."
    )
