"""`POST /feedback`: keep a correction of an answer, if the service collects corrections.

curl -F image=@104.png -F label=9 localhost:8080/feedback
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from flask import Flask, Response, request
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    TooManyRequests,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from service import metrics
from service.api import limits, request_body, uploads
from service.api.responses import json_response
from service.feedback import Correction, FullError, Inbox, TooManyError, is_loopback
from service.recognition import images
from service.recognition.images import ImageError
from service.served_model import Model

ADMITTED = "service.feedback.admitted"  # environ key: this attempt is counted
FIELDS = ("image", "label", "answered", "version")
MAX_PARTS = 10  # more than the fields, so that the error names an unknown or a second one
LABEL = re.compile("[0-9]")
VERSION = re.compile("[0-9a-f]{32}")
# The values of the label `result` of the metric, by the status of the response; see `metrics`.
RESULTS = {429: "too_many", 507: "full"}


class InsufficientStorage(HTTPException):
    """The folder takes no more corrections."""

    code = 507


class _Form(NamedTuple):
    picture: bytes
    label: int
    answered: int | None
    version: str | None


def init_app(
    app: Flask, model: Model, inbox: Inbox, cors_origin: str | None, token: str | None
) -> None:
    """Add the route `/feedback` to an application.

    Args:
        app: The application.
        model: The served model.
        inbox: The folder that keeps the corrections.
        cors_origin: The origin whose pages may send corrections besides the service's own, `*` for
            all, or None.
        token: The token that every request must carry, or None.
    """
    count = metrics.current().feedback()

    @app.post("/feedback")
    def correct() -> Response:
        try:
            if token is None:
                _check_host()
            _check_origin(cors_origin)
            sha256 = _keep(model, inbox)
        except (HTTPException, ImageError) as error:
            code = error.code if isinstance(error, HTTPException) else None
            count[RESULTS.get(code or 0, "refused")].inc()
            raise
        except Exception:
            count["failed"].inc()
            raise
        count["kept"].inc()
        return json_response({"kept": True, "sha256": sha256})


def _keep(model: Model, inbox: Inbox) -> str:
    """Check the correction of the current request, and keep it."""
    form = _read_form()
    try:
        # Once, and before the picture is decoded: the event loop refuses what is too much at once.
        if ADMITTED not in request.environ:
            inbox.admit()
            request.environ[ADMITTED] = True
        limits.leave_loop_if(True)  # a disk may be slow
        [image] = uploads.decode_all(images.decode, [form.picture])
        return inbox.keep(form.picture, _correction(model, form, image))
    except TooManyError as error:
        raise TooManyRequests(str(error), retry_after=error.seconds) from error
    except FullError as error:
        raise InsufficientStorage(str(error)) from error


def _check_host() -> None:
    """Refuse a page that has given its own host name the address of this machine.

    For the browser, such a page is of the same origin as the service (DNS rebinding). It cannot
    know a token.
    """
    host = request.headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # it has only one bracket of an IPv6 address
        name = ""
    if not is_loopback(name):
        raise Forbidden(
            "Without a token, this service takes corrections only if the host in the address is "
            f"localhost or a loopback address, not {host!r}; start it with --token-file, also "
            "behind a proxy."
        )


def _check_origin(cors_origin: str | None) -> None:
    """Refuse a page of another origin, which could send a form to a service without a token."""
    is_foreign = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if is_foreign and cors_origin not in ("*", request.headers.get("Origin", "null")):
        raise Forbidden(
            "Pages of other origins may not send corrections to this service; name their origin "
            "with --cors-origin."
        )


def _read_form() -> _Form:
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType(
            "Send a form (multipart/form-data) with the fields image and label."
        )
    boundary = request.mimetype_params.get("boundary", "")
    values: dict[str, bytes] = {}
    for part, content in uploads.read_parts(request_body.read(), boundary, MAX_PARTS):
        if part.name not in FIELDS:
            raise BadRequest(
                f"The form has a field named {part.name}; its fields are {', '.join(FIELDS)}."
            )
        if part.name in values:
            raise BadRequest(f"The form has more than one field named {part.name}.")
        if (part.name == "image") != (part.filename is not None):
            break  # the picture is not a file, or something else is
        values[part.name] = content
    if "image" not in values:
        raise BadRequest("The form has no file in a field named image.")
    label, answered = (_value(values, name, LABEL, "a digit") for name in ("label", "answered"))
    version = _value(values, "version", VERSION, "a version, as X-Model-Version names it")
    if label is None:
        raise BadRequest("The form has no field named label, with the right digit.")
    return _Form(values["image"], int(label), None if answered is None else int(answered), version)


def _value(values: dict[str, bytes], name: str, pattern: re.Pattern[str], kind: str) -> str | None:
    """Return the text of a field, or None if the form does not have it."""
    if name not in values:
        return None
    text = values[name].decode(errors="replace")
    if not pattern.fullmatch(text):
        raise BadRequest(f"The field {name} must be {kind}, not {text!r}.")
    return text


def _correction(model: Model, form: _Form, image: np.ndarray) -> Correction:
    """Compare what the client says that the service answered with what the service says itself."""
    artifact = model.begin(request.environ)
    known = {status.version for status in model.statuses if not status.error}
    if form.version not in (None, artifact.version, *known):
        raise UnprocessableEntity(
            f"This service does not serve the version {form.version}; send the picture to "
            "/recognize again, and then correct that answer."
        )
    # Not `model.recognize`: its metrics are about the pictures that clients want recognized.
    [answered], [probabilities] = artifact.recognizer.recognize(image[np.newaxis])
    is_current = form.version in (None, artifact.version)
    if is_current and form.answered not in (None, answered):
        raise UnprocessableEntity(
            f"The answer for this picture is {answered}, not {form.answered}; send the picture to "
            "/recognize again, and then correct that answer."
        )
    confidence = round(float(probabilities[answered]), 6)
    return Correction(form.label, int(answered), confidence, artifact.version)
