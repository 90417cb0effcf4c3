"""The fast path: answer one small PNG file, POSTed to /recognize, without Flask.

Flask takes about as long as the rest of such a request. The fast path passes every other request,
and every request on which it fails, to Flask, which knows all routes, options and errors.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from service import metrics
from service.api import auth, limits
from service.api.responses import TYPE, dumps
from service.recognition import images
from service.served_model import Model

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROUTE = "/recognize"
MAX_BODY = 4096  # bytes; a PNG file of an MNIST image has a few hundred
CONTENT_TYPE = re.compile(r"multipart/form-data; ?boundary=([\w-]+)")
# A form with one file, as clients write it, whose name needs no decoding. The parser of
# `uploads.read_form` reads every form, but with it the service answers a tenth fewer requests.
FORM = re.compile(
    rb"--(?P<boundary>[\w-]+)\r\n"
    rb'Content-Disposition: form-data; name="image"; filename="(?P<name>[ !#$&-\[\]-~]+)"\r\n'
    rb"(?:Content-Type: [ -~]+\r\n)?"
    rb"\r\n(?P<content>.*)\r\n--(?P=boundary)--(?:\r\n)?",
    re.DOTALL,
)


def with_fast_path(
    application: "WSGIApplication", model: Model, token: str | None
) -> "WSGIApplication":
    """Wrap an application: answer the most common request, and pass any other on.

    Args:
        application: The application that answers all other requests.
        model: The served model.
        token: The token that requests must carry, or None.

    Returns:
        The wrapped application.
    """

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _may_qualify(environ, token):
            return application(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        name, content = _file(body, environ.get("CONTENT_TYPE", ""))
        if content.startswith(images.PLAIN_PNG_HEAD):
            with suppress(Exception):  # Flask answers, logs and counts every error
                image = images.decode(content)
                labels, _ = model.recognize(image[np.newaxis], environ)
                answer = dumps({"filename": name, "labels": labels})
                environ[metrics.ROUTE] = ROUTE
                headers = [("Content-Type", TYPE), ("Content-Length", str(len(answer)))]
                start_response("200 OK", headers)
                return [answer]
        environ["wsgi.input"] = BytesIO(body)
        return application(environ, start_response)

    return wrapped


def _may_qualify(environ: "WSGIEnvironment", token: str | None) -> bool:
    """Return whether the request line, the headers and the token allow the fast path."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ["REQUEST_METHOD"] == "POST"
        and environ["PATH_INFO"] == ROUTE
        and not environ.get("QUERY_STRING")
        and length.isdecimal()
        and int(length) <= MAX_BODY
        and "HTTP_CONTENT_ENCODING" not in environ
        and limits.REFUSAL not in environ
        and auth.allows(token, ROUTE, environ.get("HTTP_AUTHORIZATION"))
    )


def _file(body: bytes, content_type: str) -> tuple[str | None, bytes]:
    """Return the name and the content of the file in a body.

    The name is None for a raw body. The content is empty for any other content type, and for a form
    that is not as in `FORM`.
    """
    if content_type == "image/png":
        return None, body
    header, form = CONTENT_TYPE.fullmatch(content_type), FORM.fullmatch(body)
    if not (header and form) or form["boundary"].decode() != header[1]:
        return None, b""
    if b"\r\n--" + form["boundary"] in form["content"]:  # there is more than one part
        return None, b""
    return form["name"].decode(), form["content"]
