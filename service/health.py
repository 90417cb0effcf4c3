"""`GET /healthz`: the model is loaded and warm, and this is its version."""

from flask import Flask, Response

from service.answers import answer


def init_app(app: Flask, version: str) -> None:
    @app.get("/healthz")
    def healthz() -> Response:
        return answer({"status": "ok", "version": version})
