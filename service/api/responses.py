"""JSON answers, as compact as they come."""

from typing import Any

import orjson
from flask import Response

TYPE = "application/json"


def json_response(payload: dict[str, Any], status: int = 200) -> Response:
    return Response(dumps(payload), status, content_type=TYPE)


def dumps(payload: dict[str, Any]) -> bytes:
    """Arrays of NumPy are lists in JSON; a float32 has as many digits as tell it from others."""
    return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
