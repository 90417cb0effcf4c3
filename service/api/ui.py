"""`GET /`: draw a digit or give a picture, and see what the model makes of it.

The page is the files in `static/` as they are; it asks `POST /recognize` like any other client.
"""

from flask import Blueprint, Flask, Response

# Only what this service sends itself; pictures also from the visitor's own disk (blob:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def init_app(app: Flask) -> None:
    page = Blueprint("page", __name__, static_folder="static", static_url_path="/static")

    @page.get("/")
    def index() -> Response:
        return page.send_static_file("index.html")

    @page.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    app.register_blueprint(page)
