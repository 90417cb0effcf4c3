"""`GET /healthz`: report that the model is loaded, and its hashes."""

from flask import Flask, Response, request

from service.api.responses import json_response
from service.served_model import ARTIFACT


def init_app(app: Flask) -> None:
    """Add the route `/healthz` to an application."""

    @app.get("/healthz")
    def healthz() -> Response:
        artifact = request.environ[ARTIFACT]
        return json_response(
            {"status": "ok", "version": artifact.version, "sha256": artifact.sha256}
        )
