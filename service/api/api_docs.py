"""`GET /openapi.json`, the description of all routes, and `GET /docs/`, its Swagger UI page.

The page is a template of this service. Its script and style come from the package flask-swagger-ui.
"""

from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Flask, Response, render_template

FILE = Path(__file__).parent / "openapi.json"
ASSETS = Path(flask_swagger_ui.__file__).parent / "dist"
# As of Swagger UI 5.34, the script adds inline styles.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def init_app(app: Flask) -> None:
    """Add the routes `/openapi.json` and `/docs/` to an application."""
    description = FILE.read_bytes()

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(description, mimetype="application/json")

    docs = Blueprint("docs", __name__, static_folder=ASSETS, static_url_path="/docs")

    @docs.get("/docs/")
    def index() -> str:
        return render_template("docs.html")

    @docs.after_request
    def set_policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    app.register_blueprint(docs)
