"""The body of the request, whole; and as JSON."""

import binascii
from typing import Any

import numpy as np
import orjson
from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from service.api import limits

LISTS = 30  # of an image in JSON: one for each row, and two around


def read() -> bytes:
    """Raises 413 where the body is larger than the application's limit, 415 if it is compressed."""
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(
            f"A body of Content-Encoding {encoding} is not read; send it as it is."
        )
    content = request.get_data(cache=False)
    request.stream.read(1)  # of a chunked body at its limit: 413, where get_data just stops
    return content


def parse_object(content: bytes) -> dict[str, Any]:
    """Raises 400 unless the content is a JSON object; 413 where it cannot be one of images."""
    most = LISTS * (limits.current().images + 100)
    # Nothing but lists would take 36 times the length of the body in memory.
    if content.count(b"[") + content.count(b"{") > most:
        raise RequestEntityTooLarge(f"The JSON body has more than {most:,} lists and objects.")
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("The JSON body is not an object.")
    return parsed


def from_base64(text: str) -> bytes:
    """Raises 400 unless the text is base64, with or without its padding."""
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise BadRequest("Unable to base64 decode") from error


def numbers(nested: Any) -> np.ndarray:
    """Numbers of JSON as float64, of the shape of the lists that they are in.

    Raises:
        TypeError: something else is among them.
        ValueError: the lists are not all as long as each other.
    """
    # As objects first: of texts NumPy makes an array in which each is as long as the longest.
    objects = np.array(nested, object)
    types = set(map(type, objects.ravel()))
    if list in types:
        raise ValueError
    if not types <= {int, float}:
        raise TypeError
    return objects.astype(float)
