"""`GET /healthz`: the model is loaded and warm, and this is its version."""

from flask import Flask, Response

from service.answers import answer
from service.model import Model


def init_app(app: Flask, model: Model) -> None:
    @app.get("/healthz")
    def healthz() -> Response:
        return answer({"status": "ok", "version": model.version})
