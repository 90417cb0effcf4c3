"""`GET /openapi.json`, the description of all routes, and `/docs/`, the same to read and try."""

from pathlib import Path

from flask import Flask, Response
from flask_swagger_ui import get_swaggerui_blueprint

FILE = Path(__file__).parent / "openapi.json"
# The page of Swagger UI has a script of its own in it, and styles.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Else it would put together an address from the request's header Host.
SETTINGS = {"oauth2RedirectUrl": "/docs/oauth2-redirect.html"}


def init_app(app: Flask) -> None:
    description = FILE.read_bytes()

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(description, mimetype="application/json")

    docs = get_swaggerui_blueprint("/docs", "/openapi.json", SETTINGS)

    @docs.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    app.register_blueprint(docs)
