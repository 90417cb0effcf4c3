"""`POST /recognize`: pictures as files of a form, or one as the body itself.

curl -F image=@104.png localhost:8080/recognize
curl -H 'Content-Type: image/png' --data-binary @104.png localhost:8080/recognize
"""

from typing import Any

import numpy as np
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from service import images
from service.answers import answer
from service.recognizer import Recognizer

RAW_TYPES = {f"image/{name.lower()}" for name in images.FORMATS}
SWITCH = {"true": True, "false": False}


def init_app(app: Flask, recognizer: Recognizer) -> None:
    @app.post("/recognize")
    def recognize() -> Response:
        probabilities_wanted = _probabilities_wanted()
        names, contents = _pictures()
        labels, probabilities = recognizer.recognize(_decode(names, contents))
        results = []
        for name, label, row in zip(names, labels.tolist(), probabilities.tolist(), strict=True):
            result: dict[str, Any] = {"filename": name, "labels": [label]}
            if probabilities_wanted:
                result["probabilities"] = [row]
            results.append(result)
        return answer(results[0] if len(results) == 1 else {"results": results})


def _probabilities_wanted() -> bool:
    value = request.args.get("probabilities", "false")
    if value not in SWITCH:
        raise BadRequest(f"The parameter probabilities is true or false, not {value!r}.")
    return SWITCH[value]


def _pictures() -> tuple[list[str | None], list[bytes]]:
    """The name and the bytes of each picture in the request."""
    if request.mimetype == "multipart/form-data":
        files = request.files.getlist("image")
        if not files:
            raise BadRequest("The form has no file in a field named image.")
        return [file.filename for file in files], [file.read() for file in files]
    if request.mimetype in RAW_TYPES:
        content = request.get_data(cache=False)
        request.stream.read(1)  # of a chunked body at its limit: 413, where get_data just stops
        return [None], [content]
    raise UnsupportedMediaType(
        "Send a form (multipart/form-data) with the field image, or a body of type "
        f"{', '.join(sorted(RAW_TYPES))}."
    )


def _decode(names: list[str | None], contents: list[bytes]) -> np.ndarray:
    """The pictures as one uint8 (N, 28, 28); the first that is none is named."""
    decoded = []
    for number, (name, content) in enumerate(zip(names, contents, strict=True), 1):
        try:
            decoded.append(images.decode(content))
        except images.ImageError as error:
            which = f"Image {number} ({name}): " if len(contents) > 1 else ""
            raise BadRequest(f"{which}{error}") from error
    return np.stack(decoded)
