"""The Open Inference Protocol, version 2, with its extension for binary tensors.

https://github.com/kserve/open-inference-protocol
https://docs.nvidia.com/deeplearning/triton-inference-server (binary tensor data extension)

    client = tritonclient.http.InferenceServerClient("localhost:8080")

The input `image` has the datatype UINT8 or FP32 and the shape [N, 28, 28], or the datatype BYTES
and the shape [N]. The elements of BYTES are pictures as `POST /recognize` accepts them: raw in a
binary tensor, and in base64 in JSON.
"""

from typing import Any

import numpy as np
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, NotFound

import service
from service.api import request_body, uploads
from service.api.responses import json_response
from service.recognition import images
from service.recognition.engines import MODEL
from service.recognition.preprocessing import SIDE
from service.served_model import ARTIFACT, Model

# The header with the length in bytes of the JSON, which the binary tensors follow.
LENGTH = "Inference-Header-Content-Length"
PATH_SUFFIXES = ("", "/versions/<version>")
TYPES: dict[str, str] = {"UINT8": "u1", "FP32": "<f4"}  # numeric datatypes, as NumPy names them
DATATYPES = (*TYPES, "BYTES")
OUTPUTS = {"label": "INT64", "probabilities": "FP32"}

METADATA = {
    "platform": "tensorflow_savedmodel",
    "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}],
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    ],
}


def init_app(app: Flask, served: Model) -> None:
    """Add the routes of the protocol to an application."""

    @app.get("/v2")
    def server_metadata() -> Response:
        return json_response(
            {
                "name": "mnist-pipeline",
                "version": service.__version__,
                "extensions": ["binary_tensor_data"],
            }
        )

    @app.get("/v2/health/live")
    def server_live() -> Response:
        return json_response({"live": True})

    def model_metadata(model: str, version: str | None = None) -> Response:
        artifact = request.environ[ARTIFACT]
        _check_model(model, version, artifact.version)
        properties = {"sha256": artifact.sha256}
        return json_response(
            {"name": MODEL, "versions": [artifact.version], **METADATA, "properties": properties}
        )

    def model_ready(model: str, version: str | None = None) -> Response:
        _check_model(model, version, served.version)
        return json_response({"name": MODEL, "ready": True})

    def infer(model: str, version: str | None = None) -> Response:
        artifact = request.environ[ARTIFACT].version
        _check_model(model, version, artifact)
        header, binary = _split(request_body.read())
        binary_outputs = _requested_outputs(header)
        labels, probabilities = served.recognize(_images(header, binary), request.environ)
        arrays = {"label": labels, "probabilities": probabilities}
        fields = {"model_name": MODEL, "model_version": artifact}
        if "id" in header:
            fields["id"] = header["id"]
        return _respond(fields, {name: arrays[name] for name in binary_outputs}, binary_outputs)

    for suffix in PATH_SUFFIXES:
        path = f"/v2/models/<model>{suffix}"
        app.add_url_rule(path, view_func=model_metadata)
        app.add_url_rule(f"{path}/ready", view_func=model_ready)
        app.add_url_rule(f"{path}/infer", view_func=infer, methods=["POST"])


def _check_model(model: str, version: str | None, artifact: str) -> None:
    """Raise NotFound (404) unless `model` and `version` name the artifact with this version."""
    if model != MODEL:
        raise NotFound(f"There is no model {model}; the only model is {MODEL}.")
    if version not in (None, artifact):
        raise NotFound(f"There is no version {version} of {MODEL}; the only version is {artifact}.")


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the parsed JSON of a request body, and the binary tensors that follow it."""
    length = request.headers.get(LENGTH)
    if length is None:
        return request_body.parse_object(content), b""
    if not (length.isascii() and length.isdecimal() and int(length) <= len(content)):
        raise BadRequest(f"{LENGTH} is {length!r}, but the body has {len(content)} bytes.")
    return request_body.parse_object(content[: int(length)]), content[int(length) :]


def _requested_outputs(header: dict[str, Any]) -> dict[str, bool]:
    """Return the names of the requested outputs, and for each whether to send it as binary."""
    if not isinstance(header.get("id", ""), str):
        raise BadRequest("The id must be a string.")
    default = _parameter(header, "binary_data_output", bool, False)
    outputs = header.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadRequest("The outputs must be a list of objects.")
    requested = {}
    for output in outputs or [{"name": name} for name in OUTPUTS]:
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise BadRequest(
                f"There is no output {name!r}; the outputs are {' and '.join(OUTPUTS)}."
            )
        requested[name] = _parameter(output, "binary_data", bool, default)
    return requested


def _parameter(holder: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """Return a parameter of the request, of an input or of an output."""
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest("The parameters must be an object.")
    value = parameters.get(name, default)
    if value is not default and type(value) is not kind:
        raise BadRequest(f"The parameter {name} must be of type {kind.__name__}.")
    return value


def _images(header: dict[str, Any], binary: bytes) -> np.ndarray:
    """Return the images of a request, uint8 (N, 28, 28)."""
    inputs = header.get("inputs")
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        raise BadRequest("The inputs must be a list with one object, the input image.")
    tensor = inputs[0]
    name, datatype, shape = (tensor.get(key) for key in ("name", "datatype", "shape"))
    if name != "image":
        raise BadRequest(f"There is no input {name!r}; the only input is image.")
    if datatype not in DATATYPES:
        raise BadRequest(
            f"The datatype of image must be one of {', '.join(DATATYPES)}, not {datatype!r}."
        )
    if not (isinstance(shape, list) and len(shape) <= 3 and set(map(type, shape)) <= {int}):
        raise BadRequest("The shape of image must be a list of up to three integers.")
    size = _parameter(tensor, "binary_data_size", int, None)
    if (size or 0) != len(binary):
        raise BadRequest(
            f"The request has {len(binary)} bytes after the JSON, but the input declares "
            f"{size or 0}."
        )
    if (size is None) == ("data" not in tensor):
        raise BadRequest("The input must have either data or the parameter binary_data_size.")
    if datatype == "BYTES":
        contents = _from_json(tensor["data"]) if size is None else _elements(binary)
        if shape not in ([len(contents)], [len(contents), 1]) or not contents:
            raise BadRequest(
                f"The shape of image is {shape}, but its data has {len(contents)} pictures."
            )
        return np.stack(uploads.decode_all(images.decode, contents))
    values = _numbers(tensor["data"]) if size is None else _values(binary, str(datatype))
    if shape[1:] != [SIDE, SIDE]:
        raise BadRequest(f"The shape of image is {shape}; it must be [N, 28, 28].")
    if shape[0] * SIDE**2 != values.size:  # Python's integers do not overflow, NumPy's do
        raise BadRequest(f"The shape of image is {shape}, but its data has {values.size} numbers.")
    return uploads.from_array(values.reshape(shape))


def _numbers(data: Any) -> np.ndarray:
    """Return the numbers of a flat or nested list of JSON, float64."""
    try:
        return request_body.to_array(data)
    except (TypeError, ValueError) as error:
        raise BadRequest(
            "The data of image must be numbers, in a flat list or in nested lists of equal length."
        ) from error


def _values(binary: bytes, datatype: str) -> np.ndarray:
    """Return the numbers of a binary tensor in one dimension, uint8 or float32."""
    dtype = np.dtype(TYPES[datatype])
    if len(binary) % dtype.itemsize:
        raise BadRequest(f"{len(binary)} bytes are not a whole number of {datatype} values.")
    return np.frombuffer(binary, dtype)


def _from_json(data: Any) -> list[bytes]:
    """Return the pictures of a flat or nested list of base64 strings."""
    texts = np.array(data, object).ravel().tolist() if isinstance(data, list) else [data]
    contents = [request_body.from_base64(text) for text in texts if isinstance(text, str)]
    if len(contents) < len(texts):
        raise BadRequest("The data of BYTES must be pictures in base64.")
    return contents


def _elements(binary: bytes) -> list[bytes]:
    """Return the elements of a binary BYTES tensor; four bytes with its length precede each."""
    elements, start = [], 0
    while start < len(binary):
        end = start + 4 + int.from_bytes(binary[start : start + 4], "little")
        if end > len(binary):
            raise BadRequest("The binary tensor ends within an element.")
        elements.append(binary[start + 4 : end])
        start = end
    return elements


def _respond(
    fields: dict[str, Any], arrays: dict[str, np.ndarray], binary_outputs: dict[str, bool]
) -> Response:
    """Return a response with the fields and the outputs, some of which may be binary tensors."""
    outputs, tail = [], b""
    for name, array in arrays.items():
        output: dict[str, Any] = {
            "name": name,
            "datatype": OUTPUTS[name],
            "shape": list(array.shape),
        }
        if binary_outputs[name]:
            content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            output["parameters"] = {"binary_data_size": len(content)}
            tail += content
        else:
            output["data"] = array.ravel()
        outputs.append(output)
    response = json_response({**fields, "outputs": outputs})
    if tail:
        response.headers[LENGTH] = str(response.content_length)
        response.data += tail
        response.mimetype = "application/octet-stream"
    return response
