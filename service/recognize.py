"""`POST /recognize`: pictures as files of a form, or one as the body itself.

curl -F image=@104.png localhost:8080/recognize
curl -H 'Content-Type: image/png' --data-binary @104.png localhost:8080/recognize
"""

from typing import Any

from flask import Flask, Response, request
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from service import bodies, images
from service.answers import answer
from service.recognizer import Recognizer

MAX_PICTURES = 1000  # of one request
RAW_TYPES = {f"image/{name.lower()}" for name in images.FORMATS}
SWITCH = {"true": True, "false": False}


def init_app(app: Flask, recognizer: Recognizer) -> None:
    @app.post("/recognize")
    def recognize() -> Response:
        probabilities_wanted, seen_wanted = _switch("probabilities"), _switch("seen")
        names, contents = _pictures()
        seen = images.decode_all(contents, names)
        labels, probabilities = recognizer.recognize(seen)
        results = []
        for number, (name, label) in enumerate(zip(names, labels.tolist(), strict=True)):
            result: dict[str, Any] = {"filename": name, "labels": [label]}
            if probabilities_wanted:
                result["probabilities"] = [probabilities[number]]
            if seen_wanted:
                result["seen"] = [seen[number]]
            results.append(result)
        return answer(results[0] if len(results) == 1 else {"results": results})


def _switch(name: str) -> bool:
    if not request.query_string:  # the usual case, without parsing nothing
        return False
    value = request.args.get(name, "false")
    if value not in SWITCH:
        raise BadRequest(f"The parameter {name} is true or false, not {value!r}.")
    return SWITCH[value]


def _pictures() -> tuple[list[str | None], list[bytes]]:
    """The name and the bytes of each picture in the request."""
    if request.mimetype == "multipart/form-data":
        return _files()
    if request.mimetype in RAW_TYPES:
        return [None], [bodies.read()]
    raise UnsupportedMediaType(
        "Send a form (multipart/form-data) with the field image, or a body of type "
        f"{', '.join(sorted(RAW_TYPES))}."
    )


def _files() -> tuple[list[str | None], list[bytes]]:
    """The files in the fields named image. Flask's own parser takes several times as long."""
    content = bodies.read()
    names, contents = [], []
    boundary = request.mimetype_params.get("boundary", "")
    try:
        with PushMultipartParser(boundary, len(content), max_segment_count=MAX_PICTURES) as parser:
            for event in parser.parse(content):
                if isinstance(event, MultipartSegment):
                    part, data = event, bytearray()
                elif event:
                    data += event
                elif part.name == "image" and part.filename is not None:
                    names.append(part.filename)
                    contents.append(bytes(data))
    except ParserLimitReached as error:
        raise RequestEntityTooLarge(
            f"The form has more than {MAX_PICTURES:,} parts, or one with too many headers."
        ) from error
    except MultipartError as error:
        raise BadRequest(f"The form is damaged or cut off: {error}.") from error
    if not names:
        raise BadRequest("The form has no file in a field named image.")
    return names, contents
