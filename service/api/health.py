"""`GET /healthz`: report that the model is loaded, and its version."""

from flask import Flask, Response

from service.api.responses import json_response
from service.served_model import Model


def init_app(app: Flask, model: Model) -> None:
    """Add the route `/healthz` to an application."""

    @app.get("/healthz")
    def healthz() -> Response:
        return json_response({"status": "ok", "version": model.version})
