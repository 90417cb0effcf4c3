"""Compact JSON responses."""

from typing import Any

import orjson
from flask import Response

TYPE = "application/json"


def json_response(payload: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON response.

    Args:
        payload: The object to encode; see `dumps`.
        status: The HTTP status.
    """
    return Response(dumps(payload), status, content_type=TYPE)


def dumps(payload: dict[str, Any]) -> bytes:
    """Encode an object as compact JSON.

    Args:
        payload: The object. NumPy arrays become lists, and a float32 gets as many digits as are
            needed to read the same float32 back.

    Returns:
        The JSON, in UTF-8.
    """
    return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
