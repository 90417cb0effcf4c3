"""The Flask application, put together."""

from pathlib import Path

from flask import Flask, Response

from service import errors, health, recognize
from service.recognizer import Recognizer

MAX_BODY = 16 << 20  # bytes


def create(folder: Path, version: str) -> Flask:
    """Load the artifact in `folder`; its version goes on every answer."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    errors.init_app(app)
    health.init_app(app, version)
    recognize.init_app(app, Recognizer(folder))

    @app.after_request
    def name_the_version(response: Response) -> Response:
        response.headers["X-Model-Version"] = version
        return response

    return app
