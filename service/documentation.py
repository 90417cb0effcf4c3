"""`GET /openapi.json`, the description of all routes, and `/docs/`, the same to read and try."""

from pathlib import Path

from flask import Flask, Response
from flask_swagger_ui import get_swaggerui_blueprint

FILE = Path(__file__).parent / "openapi.json"


def init_app(app: Flask) -> None:
    description = FILE.read_bytes()

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(description, mimetype="application/json")

    app.register_blueprint(get_swaggerui_blueprint("/docs", "/openapi.json"))
