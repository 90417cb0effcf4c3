"""How much one request may ask for. Each limit is an option of `python -m service`."""

from dataclasses import dataclass

from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge, ServiceUnavailable

from service import log
from service.images import MAX_PIXELS

CONFIG = "LIMITS"  # where an application has its limits
# In the environ of a request that the server, before any application, found to be over one: what
# makes the HTTPException to answer with. Not the exception itself, whose traceback would lead back
# to the environ, and keep the connection until the garbage is collected.
REFUSAL = "service.refusal"
# A thousand pictures may be a few kilobytes each, and take a second each to decode: those of one
# request have as many pixels as this many of the largest.
TOGETHER = 4


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


def check_time() -> None:
    """Raises 503 where a request has taken all its time already."""
    seconds = current().seconds
    if log.seconds(request.environ) > seconds:
        raise ServiceUnavailable(
            f"The request took longer than {seconds} seconds; send fewer or smaller pictures."
        )
