"""The Flask application, put together."""

from pathlib import Path

from flask import Flask, Response
from flask.globals import request_ctx

from service import (
    bodies,
    documentation,
    errors,
    health,
    log,
    open_inference,
    page,
    prometheus,
    queue,
    recognize,
    recognizer,
    tensorflow_serving,
)


def create(folder: Path, version: str, engine: str = "litert", log_format: str = "text") -> Flask:
    """Load the artifact in `folder`; its version goes on every answer.

    Args:
        engine: one of `recognizer.ENGINES`.
        log_format: one of `log.FORMATS`.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = bodies.MAX_BODY
    observed = prometheus.Observed(recognizer.load(folder, engine))
    errors.init_app(app)
    health.init_app(app, version)
    prometheus.init_app(app, version)
    documentation.init_app(app)
    page.init_app(app)
    recognize.init_app(app, observed)
    tensorflow_serving.init_app(app, observed, version)
    open_inference.init_app(app, observed, version)

    # Every hook of Flask, and every look through its proxy, costs time on each request.
    @app.before_request
    def begin() -> None:
        current = request_ctx.request
        log.begin(current)
        queue.check(current)

    @app.after_request
    def end(response: Response) -> Response:
        current = request_ctx.request
        took = log.seconds(current)
        response.headers["X-Model-Version"] = version
        response.headers["X-Request-Id"] = current.environ[log.IDENTITY]
        log.write(log_format, current, response, took)
        prometheus.count(current, response, took)
        return response

    return app
