"""The usual request, one PNG file like MNIST's to /recognize, answered without Flask.

Flask and its requests take as long as all the rest together. Whatever is not so plain, or goes
wrong, takes the long way, through Flask, which alone knows every route, option and error.
"""

import re
from collections.abc import Iterable
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
SMALL = 4096  # bytes; a larger request is not the usual one
TYPE_OF_FORM = re.compile(r"multipart/form-data; ?boundary=([\w-]+)")
# A form of one file as clients write it, with a name that needs no unquoting. To take any other
# apart is for a parser, which takes a tenth of the whole request.
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
    """Take the usual request from `application`, which answers every other as before.

    Args:
        token: what requests have to carry, if anything.
    """

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _may_be_usual(environ, token):
            return application(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        found = _read(body, environ.get("CONTENT_TYPE", ""))
        if found is None:
            environ["wsgi.input"] = BytesIO(body)  # to be read once more
            return application(environ, start_response)
        name, image = found
        labels, _ = model.recognize(image[np.newaxis], environ)
        content = dumps({"filename": name, "labels": labels})
        environ[metrics.ROUTE] = ROUTE
        start_response("200 OK", [("Content-Type", TYPE), ("Content-Length", str(len(content)))])
        return [content]

    return wrapped


def _may_be_usual(environ: "WSGIEnvironment", token: str | None) -> bool:
    """Whether a request has all but the body of a usual one, and may be answered."""
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


def _read(body: bytes, content_type: str) -> tuple[str | None, np.ndarray] | None:
    """The name and the image of a body that is one such PNG file, or a form with no other part."""
    name, content = None, body
    if of_form := TYPE_OF_FORM.fullmatch(content_type):
        form = FORM.fullmatch(body)
        if form is None or form["boundary"].decode() != of_form[1]:
            return None
        name, content = form["name"].decode(), form["content"]
        if b"\r\n--" + form["boundary"] in content:  # more than one part
            return None
    elif content_type != "image/png":
        return None
    if not content.startswith(images.PLAIN):
        return None
    try:
        return name, images.decode(content)
    except images.ImageError:
        return None
