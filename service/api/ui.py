"""`GET /`: the page on which visitors draw or upload a digit and see the result.

The page consists of the static files in `static/`. It calls `POST /recognize` like any other
client.
"""

from flask import Blueprint, Flask, Response

# The page loads resources only from this service. Pictures may also come from the visitor's own
# disk (blob:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def init_app(app: Flask) -> None:
    """Add the page and its files to an application."""
    page = Blueprint("page", __name__, static_folder="static", static_url_path="/static")

    @page.get("/")
    def index() -> Response:
        return page.send_static_file("index.html")

    @page.after_request
    def set_policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    app.register_blueprint(page)
