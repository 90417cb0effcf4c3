"""`POST /recognize`: recognize pictures that arrive as files of a form, or one as the raw body.

curl -F image=@104.png localhost:8080/recognize
curl -H 'Content-Type: image/png' --data-binary @104.png localhost:8080/recognize
"""

import re
from typing import Any

import numpy as np
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, UnprocessableEntity, UnsupportedMediaType

from service.api import confidence, limits, request_body, uploads
from service.api.responses import json_response
from service.recognition import images, occlusion, segmentation
from service.recognition.engines import Recognizer
from service.recognition.segmentation import Candidates
from service.served_model import Model

RAW_TYPES = {f"image/{name.lower()}" for name in images.FORMATS}
# With `why`, the network runs up to a hundred times for each digit, so for this many digits about
# as often as for a request with the default maximum of 1,000 images.
MAX_EXPLAINED = 10
# `float` also accepts underscores, the digits of other scripts, "nan" and "inf".
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def init_app(app: Flask, model: Model) -> None:
    """Add the route `/recognize` to an application."""

    @app.post("/recognize")
    def recognize() -> Response:
        many = _choice("digits", "one", "many") == "many"
        include_why = _choice("why", "false", "true") == "true"
        # Finding the digits of a number takes 50 ms, and explaining a digit 15 ms.
        limits.leave_loop_if(many or include_why)
        include_probabilities = _choice("probabilities", "false", "true") == "true"
        include_preprocessed = _choice("preprocessed", "false", "true") == "true"
        # Clients of versions before 0.2.0 use the former name of `preprocessed`.
        include_seen = _choice("seen", "false", "true") == "true"
        # The service refuses a number if a part of it is probably not a digit.
        min_confidence = _fraction("min_confidence", confidence.LIKELY if many else 0.0)
        names, contents = _pictures()
        if include_why and len(contents) > 1:
            raise BadRequest(
                f"The parameter why allows one picture per request, not {len(contents):,}; send "
                "each picture in a request of its own."
            )
        decoded = uploads.decode_all(segmentation.decode if many else _decode_one, contents, names)
        candidates = np.concatenate([found.images for found in decoded])
        boxes = [box for found in decoded for box in found.boxes]
        chosen = [[number] for number in range(len(candidates))]  # the digits of each picture
        if many:
            limits.check_images(len(candidates))

        def choose(probabilities: np.ndarray) -> list[int]:
            chosen[:] = _choose(decoded, probabilities)
            return [number for numbers in chosen for number in numbers]

        labels, probabilities = model.recognize(
            candidates, request.environ, choose if many else None
        )
        results, end = [], 0
        for number, (name, digits) in enumerate(zip(names, chosen, strict=True)):
            start, end = end, end + len(digits)
            if doubt := confidence.doubt(probabilities[start:end], min_confidence, many):
                raise UnprocessableEntity(uploads.about_picture(doubt, number, names))
            result: dict[str, Any] = {"filename": name, "labels": labels[start:end]}
            if many:
                result["boxes"] = [boxes[digit] for digit in digits]
            if include_probabilities:
                result["probabilities"] = probabilities[start:end]
            if include_preprocessed:
                result["preprocessed"] = candidates[digits]
            if include_seen:
                result["seen"] = candidates[digits]
            if include_why:
                result["why"] = _explain(
                    model.begin(request.environ).recognizer, candidates[digits]
                )
            results.append(result)
        return json_response(results[0] if len(results) == 1 else {"results": results})


def _decode_one(content: bytes, max_pixels: int) -> Candidates:
    return Candidates(images.decode(content, max_pixels)[np.newaxis], [], [], [])


def _choose(decoded: list[Candidates], probabilities: np.ndarray) -> list[list[int]]:
    """Choose the digits of each picture.

    Args:
        decoded: The candidates of each picture.
        probabilities: The probabilities of the labels of all candidates, float32 (N, 10).

    Returns:
        For each picture, the indices of its digits among all candidates.
    """
    chosen, start = [], 0
    for found in decoded:
        end = start + len(found.images)
        chosen.append([start + number for number in found.choose(probabilities[start:end])])
        start = end
    return chosen


def _explain(recognizer: Recognizer, digits: np.ndarray) -> list[np.ndarray]:
    """Return where the network looked in each digit, within the limits of the request.

    Args:
        recognizer: The engine that answers the request.
        digits: The images of the digits, uint8 (N, 28, 28).
    """
    if len(digits) > MAX_EXPLAINED:
        raise BadRequest(
            f"The parameter why allows {MAX_EXPLAINED} digits in a picture, and this one has "
            f"{len(digits):,}; cut the picture, or leave out why."
        )
    maps = []
    for image in digits:
        limits.check_time()
        maps.append(occlusion.explain(recognizer, image))
    return maps


def _choice(name: str, default: str, other: str) -> str:
    if not request.query_string:  # saves the time to parse an empty query, the usual case
        return default
    value = request.args.get(name, default)
    if value not in (default, other):
        raise BadRequest(f"The parameter {name} must be {other} or {default}, not {value!r}.")
    return value


def _fraction(name: str, default: float) -> float:
    if not request.query_string:
        return default
    text = request.args.get(name)
    if text is None:
        return default
    if not NUMBER.fullmatch(text) or not 0 <= float(text) <= 1:
        raise BadRequest(f"The parameter {name} must be a number from 0 to 1, not {text!r}.")
    return float(text)


def _pictures() -> tuple[list[str | None], list[bytes]]:
    """Return the names and the contents of the pictures in the current request."""
    if request.mimetype == "multipart/form-data":
        files = uploads.read_form(
            request_body.read(),
            request.mimetype_params.get("boundary", ""),
            limits.current().images,
        )
        return [name for name, _ in files], [content for _, content in files]
    if request.mimetype in RAW_TYPES:
        return [None], [request_body.read()]
    raise UnsupportedMediaType(
        "Send a form (multipart/form-data) with the field image, or a body of type "
        f"{', '.join(sorted(RAW_TYPES))}."
    )
