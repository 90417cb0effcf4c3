"""The most common request, one PNG file like MNIST's to /recognize, answered without Flask.

Flask takes about as long as all the rest of such a request. Any other request, and any that fails
here, goes to Flask, which alone knows every route, option and error.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header

from service import metrics
from service.api import auth, limits, uploads
from service.api.responses import TYPE, dumps
from service.recognition import images
from service.served_model import Model

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROUTE = "/recognize"
SMALL = 4096  # bytes; an image like MNIST's takes some hundred


def with_fast_path(
    application: "WSGIApplication", model: Model, token: str | None
) -> "WSGIApplication":
    """Wrap an application: answer the most common request, and pass any other on.

    Args:
        token: the token that requests must carry, or None.
    """

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _may_be_usual(environ, token):
            return application(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        try:
            name, file = _file(body, environ.get("CONTENT_TYPE", ""))
            image = images.decode(file) if file.startswith(images.PLAIN) else None
        except (HTTPException, images.ImageError):
            image = None
        if image is None:
            environ["wsgi.input"] = BytesIO(body)
            return application(environ, start_response)
        labels, _ = model.recognize(image[np.newaxis], environ)
        content = dumps({"filename": name, "labels": labels})
        environ[metrics.ROUTE] = ROUTE
        start_response("200 OK", [("Content-Type", TYPE), ("Content-Length", str(len(content)))])
        return [content]

    return wrapped


def _may_be_usual(environ: "WSGIEnvironment", token: str | None) -> bool:
    """Return whether all but the body is as in the most common request, with the token."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ["REQUEST_METHOD"] == "POST"
        and environ["PATH_INFO"] == ROUTE
        and not environ.get("QUERY_STRING")
        and length.isdecimal()
        and int(length) <= SMALL
        and "HTTP_CONTENT_ENCODING" not in environ
        and limits.REFUSAL not in environ
        and auth.allows(token, ROUTE, environ.get("HTTP_AUTHORIZATION"))
    )


def _file(body: bytes, content_type: str) -> tuple[str | None, bytes]:
    """Return the name and the content of the file in a body; no content if its type is another.

    Raises:
        HTTPException: the form is damaged, or has more than one part.
    """
    kind, options = parse_options_header(content_type)
    if kind == "multipart/form-data":
        (file,) = uploads.read_form(body, options.get("boundary", ""), most=1)
        return file
    return None, body if kind == "image/png" else b""
