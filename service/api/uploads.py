"""Decode the pictures of a request within its limits."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from service.api import limits
from service.recognition import images
from service.recognition.images import ImageError

Decoded = TypeVar("Decoded")


def read_form(content: bytes, boundary: str, max_parts: int) -> list[tuple[str, bytes]]:
    """Read the files in the form fields named `image`.

    Args:
        content: The body of the request.
        boundary: The boundary parameter of the Content-Type header.
        max_parts: The number of parts that the form may have.

    Returns:
        The name and the content of each file, for at least one file.

    Raises:
        RequestEntityTooLarge: The form has too many parts or headers (413).
        BadRequest: The form is damaged, or it has no such file (400).
    """
    files = [
        (part.filename, data)
        for part, data in read_parts(content, boundary, max_parts)
        if part.name == "image" and part.filename is not None
    ]
    if not files:
        raise BadRequest("The form has no file in a field named image.")
    return files


def read_parts(
    content: bytes, boundary: str, max_parts: int
) -> Iterator[tuple[MultipartSegment, bytes]]:
    """Yield each part of a form and its content.

    As of Werkzeug 3.1, Flask's own form parser is several times slower than this one.

    Args:
        content: The body of the request.
        boundary: The boundary parameter of the Content-Type header.
        max_parts: The number of parts that the form may have.

    Raises:
        RequestEntityTooLarge: The form has too many parts or headers (413).
        BadRequest: The form is damaged (400).
    """
    try:
        with PushMultipartParser(boundary, len(content), max_segment_count=max_parts) as parser:
            for event in parser.parse(content):
                if isinstance(event, MultipartSegment):
                    part, data = event, bytearray()
                elif event:
                    data += event
                else:
                    yield part, bytes(data)
    except ParserLimitReached as error:
        raise RequestEntityTooLarge(
            f"The form has more than {max_parts:,} parts, or a part with too many headers."
        ) from error
    except MultipartError as error:
        raise BadRequest(f"The form is damaged or cut off: {error.args[0]}.") from error


def decode_all(
    decode: Callable[[bytes, int], Decoded],
    contents: Sequence[bytes],
    names: Sequence[str | None] = (),
) -> list[Decoded]:
    """Decode the pictures of the current request.

    Args:
        decode: The function that decodes one picture: `images.decode` or `segmentation.decode`. Its
            arguments are the content and the maximum number of pixels.
        contents: The pictures.
        names: The file names of the pictures, for error messages.

    Returns:
        The results of `decode`, in the order of `contents`.

    Raises:
        ImageError: A picture cannot be decoded, as in `images.decode`. If the request has several
            pictures, the text names the picture.
        RequestEntityTooLarge: The pictures are too many, or too large in total (413).
        ServiceUnavailable: Decoding takes too long (503).
        ClientClosedRequest: The client has closed the connection (499).
        LongRequestError: The event loop is answering the request, and the request is long.
    """
    max_pixels = limits.current().pixels
    limits.check_images(len(contents))
    limits.leave_loop_if(len(contents) > limits.SHORT_PICTURES)
    pixels = sum(map(images.count_pixels, contents))
    limits.leave_loop_if(pixels > limits.SHORT_PIXELS)
    if len(contents) > 1:
        limits.check_pixels(pixels)
    decoded = []
    for number, content in enumerate(contents):
        if number:
            limits.check_time()
        try:
            decoded.append(decode(content, max_pixels))
        except ImageError as error:
            if len(contents) == 1:
                raise
            sentence = about_picture(str(error), number, names or [None] * len(contents))
            raise type(error)(sentence) from error
    return decoded


def about_picture(sentence: str, number: int, names: Sequence[str | None]) -> str:
    """Make an error's sentence name its picture, if the request has several.

    Args:
        sentence: The sentence.
        number: The index of the picture.
        names: The file name of each picture of the request, or None if it has no name.

    Returns:
        The sentence, with the picture's number and name in front of it.
    """
    if len(names) == 1:
        return sentence
    name = f" ({names[number]})" if names[number] is not None else ""
    return f"Picture {number + 1}{name}: {sentence}"


def from_array(pixels: np.ndarray) -> np.ndarray:
    """Convert numbers to images with `images.from_array`, within the limits of the request.

    Args:
        pixels: Numbers (N, 28, 28) from 0 to 255, white ink on black.

    Returns:
        Images, uint8 (N, 28, 28).

    Raises:
        ImageError: The shape or a value is invalid, as in `images.from_array`.
        RequestEntityTooLarge: The request has too many images (413).
    """
    if pixels.ndim == 3:
        limits.check_images(len(pixels))
    return images.from_array(pixels)
