"""`GET /healthz`: report the hashes of the model. `GET /readyz`: say whether to send requests."""

from collections.abc import Callable

from flask import Flask, Response, request
from werkzeug.exceptions import ServiceUnavailable

from service.api.responses import json_response
from service.served_model import ARTIFACT


def init_app(app: Flask, is_draining: Callable[[], bool]) -> None:
    """Add the routes to an application.

    Args:
        app: The application.
        is_draining: A function that returns whether the service is about to stop.
    """

    @app.get("/healthz")
    def healthz() -> Response:
        artifact = request.environ[ARTIFACT]
        return json_response(
            {"status": "ok", "version": artifact.version, "sha256": artifact.sha256}
        )

    @app.get("/readyz")
    @app.get("/v2/health/ready")
    def readyz() -> Response:
        if is_draining():
            raise ServiceUnavailable("The service is about to stop; send requests to another one.")
        return json_response({"ready": True})
