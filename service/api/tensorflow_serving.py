"""TensorFlow Serving's REST interface: https://www.tensorflow.org/tfx/serving/api_rest

curl -d '{"signature_name":"recognize_png","instances":[{"png_bytes":{"b64":"..."}}]}' \
    localhost:8080/v1/models/mnist:predict

`recognize_png` takes any picture that `POST /recognize` takes. Errors have the wording and the
status of TensorFlow Serving where it has some for the case.
"""

from typing import Any, NoReturn

import numpy as np
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.routing import BaseConverter

from service.api import request_body, uploads
from service.api.responses import json_response
from service.recognition import images
from service.recognition.engines import MODEL, SIGNATURE
from service.reload import ModelStatus
from service.served_model import ARTIFACT, Model

INPUTS = {SIGNATURE: "image", "recognize_png": "png_bytes"}
PLACES = ("", "/versions/<int:number>", "/labels/<part:label>")


class Part(BaseConverter):
    """A part of a path that ends before `:predict`."""

    regex = "[^/:]+"


def init_app(app: Flask, served: Model) -> None:
    app.url_map.converters["part"] = Part

    def status(model: str, number: int | None = None, label: str | None = None) -> Response:
        _refuse_label(label)
        if model != MODEL:
            raise NotFound(f"Could not find any versions of model {model}")
        statuses = {
            number_of(status.version): status for status in served.statuses if status.version
        }
        if number is not None and number not in statuses:
            raise NotFound(f"Could not find version {number} of model {model}")
        told = [_told(of, status) for of, status in statuses.items() if number in (None, of)]
        return json_response({"model_version_status": told})

    def metadata(model: str, number: int | None = None, label: str | None = None) -> Response:
        version = _find(model, number, label)
        signatures = {name: _signature(name, place) for place, name in enumerate(sorted(INPUTS))}
        return json_response(
            {
                "model_spec": {"name": MODEL, "signature_name": "", "version": str(version)},
                "metadata": {"signature_def": {"signature_def": signatures}},
            }
        )

    def predict(model: str, number: int | None = None, label: str | None = None) -> Response:
        _find(model, number, label)
        body = request_body.parse_object(request_body.read())
        labels, probabilities = served.recognize(_pictures(body), request.environ)
        if "inputs" in body:
            return json_response({"outputs": {"label": labels, "probabilities": probabilities}})
        rows = zip(labels.tolist(), probabilities, strict=True)
        return json_response(
            {"predictions": [{"label": a, "probabilities": row} for a, row in rows]}
        )

    def refuse(
        model: str, verb: str, number: int | None = None, label: str | None = None
    ) -> NoReturn:
        _find(model, number, label)
        raise BadRequest(
            f"The model has no signature of the method {verb}; use :predict, which gives the "
            "probability of each label."
        )

    for place in PLACES:
        path = f"/v1/models/<part:model>{place}"
        app.add_url_rule(path, view_func=status)
        app.add_url_rule(f"{path}/metadata", view_func=metadata)
        app.add_url_rule(f"{path}:predict", view_func=predict, methods=["POST"])
        app.add_url_rule(
            f"{path}:<any(classify, regress):verb>", view_func=refuse, methods=["POST"]
        )


def number_of(version: str) -> int:
    """The version as the integer that this protocol wants: its first 12 hexadecimal digits."""
    return int(version[:12], 16)


def _find(model: str, number: int | None, label: str | None) -> int:
    """The version that answers, if it is the one that is asked for."""
    _refuse_label(label)
    version = number_of(request.environ[ARTIFACT].version)
    if model != MODEL or number not in (None, version):
        which = f"Latest({model})" if number is None else f"Specific({model}, {number})"
        raise NotFound(f"Servable not found for request: {which}")
    return version


def _told(number: int, status: ModelStatus) -> dict[str, Any]:
    fine = {
        "error_code": "FAILED_PRECONDITION" if status.error else "OK",
        "error_message": status.error,
    }
    return {"version": str(number), "state": status.status, "status": fine}


def _refuse_label(label: str | None) -> None:
    if label is not None:
        raise BadRequest(f"Unrecognized servable version label: {label}")


def _pictures(body: dict[str, Any]) -> np.ndarray:
    """The images of a request in either form: uint8 (N, 28, 28)."""
    signature = body.get("signature_name", SIGNATURE)
    if not isinstance(signature, str):
        raise BadRequest("'signature_name' key must be a string value.")
    if signature not in INPUTS:
        raise BadRequest(f'Serving signature name: "{signature}" not found in signature def')
    if ("instances" in body) == ("inputs" in body):
        both = "instances" in body
        raise BadRequest(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if both
            else "Missing 'inputs' or 'instances' key"
        )
    name = INPUTS[signature]
    values = _rows(body["instances"], name) if "instances" in body else _column(body, name)
    return _arrays(values) if name == "image" else _decoded(values)


def _rows(instances: Any, name: str) -> list[Any]:
    """The value of the input in each instance, with its name or without."""
    if not isinstance(instances, list):
        raise BadRequest("Excepting 'instances' to be an list/array")
    if not instances:
        raise BadRequest("No values in 'instances' array")
    named = _is_named(instances[0])
    values = []
    for place, instance in enumerate(instances):
        if _is_named(instance) != named:
            wanted, got = ("object", "list") if named else ("value/list", "object")
            raise BadRequest(f"Expecting {wanted} but got {got} at item {place} of input list")
        if named and set(instance) != {name}:
            raise BadRequest(
                f"Failed to process element: {place} of 'instances' list. JSON object keys must be "
                f"equal to: {name}"
            )
        values.append(instance[name] if named else instance)
    return values


def _column(body: dict[str, Any], name: str) -> list[Any]:
    inputs = body["inputs"]
    if _is_named(inputs):
        if name not in inputs:
            raise BadRequest(f"Missing named input: {name} in 'inputs' object.")
        inputs = inputs[name]
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest(f"The input {name} is a list with one value for each image.")
    return inputs


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def _arrays(values: list[Any]) -> np.ndarray:
    try:
        array = request_body.numbers(values)
    except ValueError as error:
        raise BadRequest("The lists of image are not all as long as each other.") from error
    except TypeError as error:
        raise BadRequest("A value of image is not of expected type: uint8") from error
    found = uploads.from_array(array)
    if (found != array).any():
        raise BadRequest("A value of image is not of expected type: uint8")
    return found


def _decoded(values: list[Any]) -> np.ndarray:
    contents = []
    for place, value in enumerate(values):
        if isinstance(value, str):
            contents.append(value.encode())
        elif isinstance(value, dict) and not _is_named(value):
            contents.append(request_body.from_base64(value["b64"]))
        else:
            raise BadRequest(f'Value {place} of png_bytes is not of the form {{"b64": "..."}}.')
    return np.stack(uploads.decode_all(images.decode, contents))


def _signature(name: str, place: int) -> dict[str, Any]:
    """What the SavedModel says of a signature, as Protocol Buffers are written in JSON."""
    call = "StatefulPartitionedCall" + (f"_{place}" if place else "")
    given = INPUTS[name]
    dtype, shape = ("DT_UINT8", (-1, 28, 28)) if given == "image" else ("DT_STRING", (-1,))
    return {
        "inputs": {given: _tensor(f"{name}_{given}:0", dtype, shape)},
        "outputs": {
            "label": _tensor(f"{call}:0", "DT_INT64", (-1,)),
            "probabilities": _tensor(f"{call}:1", "DT_FLOAT", (-1, 10)),
        },
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in shape]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": name,
    }
