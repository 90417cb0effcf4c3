"""JSON answers, as compact as they come."""

from typing import Any

import orjson
from flask import Response


def answer(payload: dict[str, Any], status: int = 200) -> Response:
    """Arrays of NumPy are lists in JSON; a float32 has as many digits as tell it from others."""
    text = orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(text, status, content_type="application/json")
