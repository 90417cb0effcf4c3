"""`GET /healthz`: the model is loaded and warm, and this is its version."""

from flask import Flask, Response

from service.api.responses import json_response
from service.served_model import Model


def init_app(app: Flask, model: Model) -> None:
    @app.get("/healthz")
    def healthz() -> Response:
        return json_response({"status": "ok", "version": model.version})
