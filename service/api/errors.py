"""The error handlers: every error response is `{"error": "<one sentence>"}` with its status."""

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.routing import RequestRedirect

from service.api import limits
from service.api.responses import json_response
from service.recognition.images import ImageError

FAILED = "The service failed to process this request; its log has the details."
LONGEST = 1000  # characters of a sentence; some sentences repeat text from the request


def init_app(app: Flask) -> None:
    """Register the error handlers with an application."""
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ImageError, _image_error)
    app.register_error_handler(Exception, _failure)


def _http_error(error: HTTPException) -> Response | RequestRedirect:
    if isinstance(error, RequestRedirect):  # Werkzeug redirects /docs to /docs/ by this exception
        return error
    response = json_response({"error": _shortened(_sentence(error))}, error.code or 500)
    for name, value in error.get_headers():
        if name != "Content-Type":
            response.headers[name] = value  # for example, Allow with 405
    return response


def _image_error(error: ImageError) -> Response:
    return json_response({"error": _shortened(str(error))}, error.status)


def _failure(error: Exception) -> Response:
    current_app.logger.exception("%s %s failed", request.method, request.path)
    return json_response({"error": FAILED}, 500)


def _sentence(error: HTTPException) -> str:
    match error.code:
        case 404 if error.description == NotFound.description:
            return f"The path {request.path} does not exist; POST a picture to /recognize."
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            return f"{request.method} is not allowed at {request.path}; use {allowed}."
        case 413 if error.description == RequestEntityTooLarge.description:
            return f"The body is too large; the limit is {limits.current().body:,} bytes."
    return error.description or error.name


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]}..."
