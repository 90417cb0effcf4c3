"""TensorFlow Serving's REST interface: https://www.tensorflow.org/tfx/serving/api_rest

curl -d '{"signature_name":"recognize_png","instances":[{"png_bytes":{"b64":"..."}}]}' \
    localhost:8080/v1/models/mnist:predict

The signature `recognize_png` accepts every picture that `POST /recognize` accepts. If TensorFlow
Serving has an error for a case, this module copies its wording, misspellings included, and its
status.
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
PATH_SUFFIXES = ("", "/versions/<int:number>", "/labels/<part:label>")


class Part(BaseConverter):
    """A segment of a path that ends before `:predict`."""

    regex = "[^/:]+"


def init_app(app: Flask, served: Model) -> None:
    """Add the routes of the interface to an application."""
    app.url_map.converters["part"] = Part

    def status(model: str, number: int | None = None, label: str | None = None) -> Response:
        _refuse_label(label)
        if model != MODEL:
            raise NotFound(f"Could not find any versions of model {model}")
        statuses = {number_of(each.version): each for each in served.statuses if each.version}
        if number is not None and number not in statuses:
            raise NotFound(f"Could not find version {number} of model {model}")
        entries = [
            _status_entry(version, each)
            for version, each in statuses.items()
            if number in (None, version)
        ]
        return json_response({"model_version_status": entries})

    def metadata(model: str, number: int | None = None, label: str | None = None) -> Response:
        version = _requested_version(model, number, label)
        signatures = {name: _signature(name, index) for index, name in enumerate(sorted(INPUTS))}
        return json_response(
            {
                "model_spec": {"name": MODEL, "signature_name": "", "version": str(version)},
                "metadata": {"signature_def": {"signature_def": signatures}},
            }
        )

    def predict(model: str, number: int | None = None, label: str | None = None) -> Response:
        _requested_version(model, number, label)
        body = request_body.parse_object(request_body.read())
        labels, probabilities = served.recognize(_images(body), request.environ)
        if "inputs" in body:
            return json_response({"outputs": {"label": labels, "probabilities": probabilities}})
        rows = zip(labels.tolist(), probabilities, strict=True)
        return json_response(
            {"predictions": [{"label": digit, "probabilities": row} for digit, row in rows]}
        )

    def refuse(
        model: str, verb: str, number: int | None = None, label: str | None = None
    ) -> NoReturn:
        _requested_version(model, number, label)
        raise BadRequest(
            f"The model has no {verb} signature; use :predict, which returns the probability of "
            "each label."
        )

    for suffix in PATH_SUFFIXES:
        path = f"/v1/models/<part:model>{suffix}"
        app.add_url_rule(path, view_func=status)
        app.add_url_rule(f"{path}/metadata", view_func=metadata)
        app.add_url_rule(f"{path}:predict", view_func=predict, methods=["POST"])
        app.add_url_rule(
            f"{path}:<any(classify, regress):verb>", view_func=refuse, methods=["POST"]
        )


def number_of(version: str) -> int:
    """Return the version as an integer, which this protocol requires.

    Args:
        version: The MD5 of an artifact, 32 hexadecimal digits.

    Returns:
        The first 12 hexadecimal digits as an integer.
    """
    return int(version[:12], 16)


def _requested_version(model: str, number: int | None, label: str | None) -> int:
    """Check that the request names the served model and version, and return the version.

    Raises:
        BadRequest: The request names a version label (400).
        NotFound: The request names another model or another version (404).
    """
    _refuse_label(label)
    version = number_of(request.environ[ARTIFACT].version)
    if model != MODEL or number not in (None, version):
        which = f"Latest({model})" if number is None else f"Specific({model}, {number})"
        raise NotFound(f"Servable not found for request: {which}")
    return version


def _status_entry(number: int, status: ModelStatus) -> dict[str, Any]:
    """Return the JSON entry of one version's status."""
    error = {
        "error_code": "FAILED_PRECONDITION" if status.error else "OK",
        "error_message": status.error,
    }
    return {"version": str(number), "state": status.status, "status": error}


def _refuse_label(label: str | None) -> None:
    if label is not None:
        raise BadRequest(f"Unrecognized servable version label: {label}")


def _images(body: dict[str, Any]) -> np.ndarray:
    """Return the images of a request in row or column format, uint8 (N, 28, 28)."""
    signature = body.get("signature_name", SIGNATURE)
    if not isinstance(signature, str):
        raise BadRequest("'signature_name' key must be a string value.")
    if signature not in INPUTS:
        raise BadRequest(f'Serving signature name: "{signature}" not found in signature def')
    if ("instances" in body) == ("inputs" in body):
        raise BadRequest(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if "instances" in body
            else "Missing 'inputs' or 'instances' key"
        )
    name = INPUTS[signature]
    values = _rows(body["instances"], name) if "instances" in body else _column(body, name)
    return _from_numbers(values) if name == "image" else _from_pictures(values)


def _rows(instances: Any, name: str) -> list[Any]:
    """Return the input's value in each instance of the row format.

    Args:
        instances: The instances. Each is a value, or an object with the value under `name`.
        name: The name of the input.
    """
    if not isinstance(instances, list):
        raise BadRequest("Excepting 'instances' to be an list/array")
    if not instances:
        raise BadRequest("No values in 'instances' array")
    named = _is_named(instances[0])
    values = []
    for index, instance in enumerate(instances):
        if _is_named(instance) != named:
            wanted, got = ("object", "list") if named else ("value/list", "object")
            raise BadRequest(f"Expecting {wanted} but got {got} at item {index} of input list")
        if named and set(instance) != {name}:
            raise BadRequest(
                f"Failed to process element: {index} of 'instances' list. JSON object keys must be "
                f"equal to: {name}"
            )
        values.append(instance[name] if named else instance)
    return values


def _column(body: dict[str, Any], name: str) -> list[Any]:
    """Return the input's values in the column format."""
    inputs = body["inputs"]
    if _is_named(inputs):
        if name not in inputs:
            raise BadRequest(f"Missing named input: {name} in 'inputs' object.")
        inputs = inputs[name]
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest(f"The input {name} must be a list with one value per image.")
    return inputs


def _is_named(value: Any) -> bool:
    """Return whether a value is an object of named inputs; `{"b64": ...}` is a value itself."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def _from_numbers(values: list[Any]) -> np.ndarray:
    try:
        array = request_body.to_array(values)
    except ValueError as error:
        raise BadRequest("The nested lists of image have different lengths.") from error
    except TypeError as error:
        raise BadRequest("A value of image is not of expected type: uint8") from error
    converted = uploads.from_array(array)
    if (converted != array).any():
        raise BadRequest("A value of image is not of expected type: uint8")
    return converted


def _from_pictures(values: list[Any]) -> np.ndarray:
    contents = []
    for index, value in enumerate(values):
        if isinstance(value, str):
            contents.append(value.encode())
        elif isinstance(value, dict) and not _is_named(value):
            contents.append(request_body.from_base64(value["b64"]))
        else:
            raise BadRequest(f'Value {index} of png_bytes must have the form {{"b64": "..."}}.')
    return np.stack(uploads.decode_all(images.decode, contents))


def _signature(name: str, index: int) -> dict[str, Any]:
    """Return a signature of the SavedModel in the JSON encoding of its protocol buffer.

    Args:
        name: The name of the signature.
        index: The position of the name among the sorted names. TensorFlow numbers the output
            tensors by it.
    """
    call = "StatefulPartitionedCall" + (f"_{index}" if index else "")
    input_name = INPUTS[name]
    dtype, shape = ("DT_UINT8", (-1, 28, 28)) if input_name == "image" else ("DT_STRING", (-1,))
    return {
        "inputs": {input_name: _tensor(f"{name}_{input_name}:0", dtype, shape)},
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
