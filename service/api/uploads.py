"""The pictures of a request, within its limits, to images."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from service.api import limits
from service.recognition import images
from service.recognition.images import ImageError

Decoded = TypeVar("Decoded")


def read_form(content: bytes, boundary: str, most: int) -> list[tuple[str, bytes]]:
    """Read the files in the fields named `image`. Flask's own parser takes several times as long.

    Args:
        boundary: the parameter of the header Content-Type.
        most: the number of parts that the form may have.

    Returns:
        The name and the content of each file; at least one.

    Raises:
        HTTPException: 413 for more parts; 400 if the form is damaged or has no such file.
    """
    files = []
    try:
        with PushMultipartParser(boundary, len(content), max_segment_count=most) as parser:
            for event in parser.parse(content):
                if isinstance(event, MultipartSegment):
                    part, data = event, bytearray()
                elif event:
                    data += event
                elif part.name == "image" and part.filename is not None:
                    files.append((part.filename, bytes(data)))
    except ParserLimitReached as error:
        raise RequestEntityTooLarge(
            f"The form has more than {most:,} parts, or one with too many headers."
        ) from error
    except MultipartError as error:
        raise BadRequest(f"The form is damaged or cut off: {error.args[0]}.") from error
    if not files:
        raise BadRequest("The form has no file in a field named image.")
    return files


def decode_all(
    decode: Callable[[bytes, int], Decoded],
    contents: Sequence[bytes],
    names: Sequence[str | None] = (),
) -> list[Decoded]:
    """Decode pictures, each with `images.decode` or `images.decode_many`.

    Args:
        names: of the pictures, for the error.

    Raises:
        ImageError: one is none, as in `images.decode`; the text says which of several.
        HTTPException: 413 for too many, or too large together; 503 if they take too long.
    """
    most = limits.current().pixels
    limits.check_images(len(contents))
    limits.leave_loop_if(len(contents) > limits.SHORT_PICTURES)
    pixels = sum(map(images.pixels_of, contents))
    limits.leave_loop_if(pixels > limits.SHORT_PIXELS)
    if len(contents) > 1:
        limits.check_pixels(pixels)
    decoded = []
    for number, content in enumerate(contents):
        if number:
            limits.check_time()
        try:
            decoded.append(decode(content, most))
        except ImageError as error:
            if len(contents) == 1:
                raise
            name = f" ({names[number]})" if names else ""
            raise type(error)(f"Image {number + 1}{name}: {error}") from error
    return decoded


def from_array(pixels: np.ndarray) -> np.ndarray:
    """As `images.from_array`; raises 413 for too many."""
    if pixels.ndim == 3:
        limits.check_images(len(pixels))
    return images.from_array(pixels)
