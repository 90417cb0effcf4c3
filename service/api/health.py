"""`GET /healthz`: report that the model is loaded, and its hashes."""

from flask import Flask, Response, request

from service.api.responses import json_response
from service.served_model import ARTIFACT


def init_app(app: Flask) -> None:
    """Add the route `/healthz` to an application."""

    @app.get("/healthz")
    def healthz() -> Response:
        version, sha256, _ = request.environ[ARTIFACT]
        return json_response({"status": "ok", "version": version, "sha256": sha256})
