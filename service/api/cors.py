"""Cross-origin resource sharing: let the pages of another origin send requests, if configured.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from wsgiref.types import WSGIEnvironment

from flask import Response

# What a browser may send and show beyond the headers that the specification always allows.
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Inference-Header-Content-Length, "
    "X-Request-Id, traceparent, tracestate",
    "Access-Control-Max-Age": "3600",
}
EXPOSED = "Inference-Header-Content-Length, Retry-After, X-Model-Version, X-Request-Id"


def headers(origin: str | None) -> list[tuple[str, str]]:
    """Return the headers that each response carries.

    Args:
        origin: The origin whose pages may send requests, `*` for all, or None.
    """
    if origin is None:
        return []
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", EXPOSED),
    ]


def preflight(environ: WSGIEnvironment) -> Response | None:
    """Return the response if a browser asks whether a page may send a request, or None."""
    asks = "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    if environ["REQUEST_METHOD"] == "OPTIONS" and asks:
        return Response(status=204, headers=PREFLIGHT)
    return None
