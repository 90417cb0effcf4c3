"""The Flask application, put together."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.globals import request_ctx

from service import access_log, metrics
from service.api import (
    api_docs,
    auth,
    errors,
    health,
    open_inference,
    recognize,
    tensorflow_serving,
    ui,
)
from service.api import metrics as metrics_route
from service.api.fast_path import with_fast_path
from service.api.limits import CONFIG, REFUSAL, Limits
from service.served_model import ARTIFACT, Model

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
    metrics_route.init_app(app)
    api_docs.init_app(app)
    ui.init_app(app)
    recognize.init_app(app, model)
    tensorflow_serving.init_app(app, model)
    open_inference.init_app(app, model)

    # Every hook of Flask, and every look through its proxy, costs time on each request.
    @app.before_request
    def begin() -> None:
        current = request_ctx.request
        if current.url_rule:
            current.environ[metrics.ROUTE] = current.url_rule.rule
        auth.check(token, current)
        if REFUSAL in current.environ:
            raise current.environ[REFUSAL]()

    quick = with_fast_path(app.wsgi_app, model, token)
    app.wsgi_app = _observed(quick, model, log_format)  # type: ignore[assignment, method-assign]
    return app


def _observed(application: "WSGIApplication", model: Model, log_format: str) -> "WSGIApplication":
    """Log and count each answer, and add what all have. Hooks of Flask would take longer."""

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        access_log.begin(environ)
        model.begin(environ)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            code, took = int(status[:3]), access_log.seconds(environ)
            access_log.write(log_format, environ, code, took)
            metrics.count(environ, code, took)
            headers += HEADERS
            headers.append(("X-Model-Version", environ[ARTIFACT].version))
            headers.append(("X-Request-Id", environ[access_log.IDENTITY]))
            if "Content-Security-Policy" not in dict(headers):
                headers.append(("Content-Security-Policy", POLICY))
            return start_response(status, headers, *rest)

        return application(environ, start)

    return wrapped
