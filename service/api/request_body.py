"""Read the body of the current request, and parse it as JSON."""

import binascii
from typing import Any

import numpy as np
import orjson
from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from service.api import limits

LISTS_PER_IMAGE = 30  # in JSON: one list per row, and two around the rows


def read() -> bytes:
    """Read the whole body of the current request.

    Returns:
        The body.

    Raises:
        RequestEntityTooLarge: The body exceeds the application's limit (413).
        UnsupportedMediaType: The body is compressed (415).
    """
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding} is not supported; send the body uncompressed."
        )
    content = request.get_data(cache=False)
    # As of Werkzeug 3.1 (pallets/werkzeug#2620), get_data silently truncates a chunked body at the
    # limit. Only the next read raises 413.
    request.stream.read(1)
    return content


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        content: The JSON, in UTF-8.

    Returns:
        The object.

    Raises:
        BadRequest: The content is not a JSON object (400).
        RequestEntityTooLarge: The content has more lists and objects than the maximum number of
            images needs (413).
    """
    # A body that consists of lists would take 36 times its length in memory.
    limit = LISTS_PER_IMAGE * (limits.current().images + 100)
    if content.count(b"[") + content.count(b"{") > limit:
        raise RequestEntityTooLarge(f"The JSON body has more than {limit:,} lists and objects.")
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("The JSON body is not an object.")
    return parsed


def from_base64(text: str) -> bytes:
    """Decode base64.

    Args:
        text: The base64, with or without its padding.

    Returns:
        The decoded bytes.

    Raises:
        BadRequest: The text is not base64 (400).
    """
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise BadRequest("Unable to base64 decode") from error


def to_array(nested: Any) -> np.ndarray:
    """Convert numbers of JSON to an array.

    Args:
        nested: A number, or nested lists of numbers.

    Returns:
        The numbers, float64, in the shape of the lists.

    Raises:
        TypeError: A value is not a number.
        ValueError: Lists at the same depth have different lengths.
    """
    # An array of strings would take as much memory per element as the longest string. An array of
    # objects does not.
    objects = np.array(nested, object)
    types = set(map(type, objects.ravel()))
    if list in types:
        raise ValueError
    if not types <= {int, float}:
        raise TypeError
    return objects.astype(float)
