"""`GET /openapi.json`, the description of all routes, and `GET /docs/`, its Swagger UI page."""

from pathlib import Path

from flask import Flask, Response
from flask_swagger_ui import get_swaggerui_blueprint

FILE = Path(__file__).parent / "openapi.json"
# As of flask-swagger-ui 5.34, the page contains an inline script and inline styles.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# As of flask-swagger-ui 5.34, the default URL repeats the Host header of the request.
SETTINGS = {"oauth2RedirectUrl": "/docs/oauth2-redirect.html"}


def init_app(app: Flask) -> None:
    """Add the routes `/openapi.json` and `/docs/` to an application."""
    description = FILE.read_bytes()

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(description, mimetype="application/json")

    docs = get_swaggerui_blueprint("/docs", "/openapi.json", SETTINGS)

    @docs.after_request
    def set_policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    app.register_blueprint(docs)
