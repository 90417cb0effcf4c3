"""The Flask application, put together."""

from flask import Flask, Response
from flask.globals import request_ctx

from service import (
    authorization,
    documentation,
    errors,
    health,
    log,
    open_inference,
    page,
    prometheus,
    recognize,
    tensorflow_serving,
)
from service.limits import CONFIG, REFUSAL, Limits
from service.model import Model

# Of every answer. What software it is need not be known.
HEADERS = [
    ("Referrer-Policy", "no-referrer"),
    ("Server", "mnist"),
    ("X-Content-Type-Options", "nosniff"),
]
# Of every answer but pages, which have their own.
POLICY = "default-src 'none'; frame-ancestors 'none'"


def create(
    model: Model,
    limits: Limits,
    token: str | None = None,
    log_format: str = "text",
) -> Flask:
    """The application over a model, whose version goes on every answer.

    Args:
        token: what requests have to carry, if anything.
        log_format: one of `log.FORMATS`.
    """
    app = Flask(__name__, static_folder=None)
    app.config[CONFIG] = limits
    app.config["MAX_CONTENT_LENGTH"] = limits.body
    errors.init_app(app)
    health.init_app(app, model)
    prometheus.init_app(app)
    documentation.init_app(app)
    page.init_app(app)
    recognize.init_app(app, model)
    tensorflow_serving.init_app(app, model)
    open_inference.init_app(app, model)

    # Every hook of Flask, and every look through its proxy, costs time on each request.
    @app.before_request
    def begin() -> None:
        current = request_ctx.request
        log.begin(current)
        authorization.check(token, current)
        if REFUSAL in current.environ:
            raise current.environ[REFUSAL]()

    @app.after_request
    def end(response: Response) -> Response:
        current = request_ctx.request
        took = log.seconds(current)
        response.headers.extend(HEADERS)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers["X-Model-Version"] = model.version
        response.headers["X-Request-Id"] = current.environ[log.IDENTITY]
        log.write(log_format, current, response, took)
        prometheus.count(current, response, took)
        return response

    return app
