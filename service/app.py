"""The Flask application, put together."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask
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
from service.model import ARTIFACT, Model
from service.shortcut import shortcut

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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
        if current.url_rule:
            current.environ[prometheus.ROUTE] = current.url_rule.rule
        authorization.check(token, current)
        if REFUSAL in current.environ:
            raise current.environ[REFUSAL]()

    quick = shortcut(app.wsgi_app, model, token)
    app.wsgi_app = _observed(quick, model, log_format)  # type: ignore[assignment, method-assign]
    return app


def _observed(application: "WSGIApplication", model: Model, log_format: str) -> "WSGIApplication":
    """Log and count each answer, and add what all have. Hooks of Flask would take longer."""

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        log.begin(environ)
        model.begin(environ)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            code, took = int(status[:3]), log.seconds(environ)
            log.write(log_format, environ, code, took)
            prometheus.count(environ, code, took)
            headers += HEADERS
            headers.append(("X-Model-Version", environ[ARTIFACT].version))
            headers.append(("X-Request-Id", environ[log.IDENTITY]))
            if "Content-Security-Policy" not in dict(headers):
                headers.append(("Content-Security-Policy", POLICY))
            return start_response(status, headers, *rest)

        return application(environ, start)

    return wrapped
