"""`GET /`: the page on which visitors draw or upload a digit and see the result.

The page consists of the static files in `static/`. It calls `POST /recognize`, and `POST /feedback`
if the service collects corrections, like any other client.
"""

from pathlib import Path

from flask import Blueprint, Flask, Response, request

# The page loads resources only from this service. Pictures may also come from the visitor's own
# disk (blob:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


FOLDER = Path(__file__).parent / "static"


def init_app(app: Flask, collects: bool) -> None:
    """Add the page and its files to an application.

    Args:
        app: The application.
        collects: Whether the page offers to correct an answer.
    """
    content = (FOLDER / "index.html").read_text()
    if collects:
        content = content.replace("<body>", '<body data-collects="">')
    page = Blueprint("page", __name__, static_folder="static", static_url_path="/static")

    @page.get("/")
    def index() -> Response:
        response = Response(content, mimetype="text/html")
        response.cache_control.no_cache = True  # ask each time whether it has changed
        response.add_etag()
        response.make_conditional(request)
        return response

    @page.after_request
    def set_policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    app.register_blueprint(page)
