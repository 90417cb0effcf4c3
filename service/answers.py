"""JSON answers, as compact as they come."""

import json
from typing import Any

from flask import Response


def answer(payload: dict[str, Any], status: int = 200) -> Response:
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, mimetype="application/json")
