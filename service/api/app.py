"""The factory of the Flask application."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response
from flask.globals import request_ctx

from service import access_log, metrics
from service.api import (
    api_docs,
    auth,
    cors,
    errors,
    feedback,
    health,
    model_page,
    open_inference,
    recognize,
    tensorflow_serving,
    ui,
)
from service.api import metrics as metrics_route
from service.api.fast_path import with_fast_path
from service.api.limits import CONFIG, REFUSAL, Limits
from service.feedback import Inbox
from service.served_model import ARTIFACT, Model

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# The value of Server hides which software serves the request.
HEADERS = [
    ("Referrer-Policy", "no-referrer"),
    ("Server", "mnist"),
    ("X-Content-Type-Options", "nosniff"),
]
# The default policy. HTML pages set their own.
POLICY = "default-src 'none'; frame-ancestors 'none'"


def create(
    model: Model,
    limits: Limits,
    token: str | None = None,
    log_format: str = "text",
    cors_origin: str | None = None,
    is_draining: Callable[[], bool] = lambda: False,
    inbox: Inbox | None = None,
) -> Flask:
    """Create the application that serves a model.

    Args:
        model: The served model. Every response carries its version in `X-Model-Version`.
        limits: The limits of one request.
        token: The token that every request must carry, or None to admit all requests.
        log_format: The format of the access log, one of `log.FORMATS`.
        cors_origin: The origin whose pages may send requests, `*` for all origins, or None.
        is_draining: A function that returns whether the service is about to stop.
        inbox: The folder that keeps corrections, or None if the service does not collect any.

    Returns:
        The application. A WSGI server can call it directly.
    """
    app = Flask(__name__, static_folder=None)
    app.config[CONFIG] = limits
    app.config["MAX_CONTENT_LENGTH"] = limits.body
    errors.init_app(app)
    health.init_app(app, is_draining)
    metrics_route.init_app(app)
    api_docs.init_app(app)
    ui.init_app(app, collects=inbox is not None)
    model_page.init_app(app)
    recognize.init_app(app, model)
    tensorflow_serving.init_app(app, model)
    open_inference.init_app(app, model)
    if inbox:
        feedback.init_app(app, model, inbox, cors_origin, token)

    # One hook instead of several, and no `request` proxy: both cost time on every request.
    @app.before_request
    def begin() -> Response | None:
        request = request_ctx.request
        if request.url_rule:
            request.environ[metrics.ROUTE] = request.url_rule.rule
        # A browser sends no token with its preflight.
        if cors_origin and (answer := cors.preflight(request.environ)):
            return answer
        auth.check(token, request)
        if REFUSAL in request.environ:
            raise request.environ[REFUSAL]()
        return None

    fast = with_fast_path(app.wsgi_app, model, token)
    common = HEADERS + cors.headers(cors_origin)
    app.wsgi_app = _observed(fast, model, log_format, common)  # type: ignore[assignment, method-assign]
    return app


def _observed(
    application: "WSGIApplication", model: Model, log_format: str, common: list[tuple[str, str]]
) -> "WSGIApplication":
    """Wrap an application: log and count every response, and add the common headers.

    A WSGI wrapper is faster than Flask's hooks, and it also covers the fast path.
    """

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        access_log.begin(environ)
        model.begin(environ)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            code, duration = int(status[:3]), access_log.seconds(environ)
            version = environ[ARTIFACT].version
            access_log.write(log_format, environ, version, code, duration)
            metrics.count(environ, version, code, duration)
            headers += common
            headers.append(("X-Model-Version", version))
            headers.append(("X-Request-Id", environ[access_log.IDENTITY]))
            if "Content-Security-Policy" not in dict(headers):
                headers.append(("Content-Security-Policy", POLICY))
            return start_response(status, headers, *rest)

        return application(environ, start)

    return wrapped
