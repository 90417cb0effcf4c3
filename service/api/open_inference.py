"""The Open Inference Protocol, version 2, with its extension for binary tensors.

https://github.com/kserve/open-inference-protocol
https://docs.nvidia.com/deeplearning/triton-inference-server (binary tensor data extension)

    client = tritonclient.http.InferenceServerClient("localhost:8080")

The input `image` is UINT8 or FP32 [N, 28, 28], or BYTES [N]: pictures as `POST /recognize` takes
them, as they are in a binary tensor and in base64 in JSON.
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

LENGTH = "Inference-Header-Content-Length"  # of the JSON before the binary tensors
PLACES = ("", "/versions/<version>")
TYPES: dict[str, str] = {"UINT8": "u1", "FP32": "<f4"}  # in NumPy's words; and BYTES
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

    @app.get("/v2/health/ready")
    def server_ready() -> Response:
        return json_response({"ready": True})

    def model_metadata(model: str, version: str | None = None) -> Response:
        _find(model, version, served.version)
        return json_response({"name": MODEL, "versions": [served.version], **METADATA})

    def model_ready(model: str, version: str | None = None) -> Response:
        _find(model, version, served.version)
        return json_response({"name": MODEL, "ready": True})

    def infer(model: str, version: str | None = None) -> Response:
        artifact = request.environ[ARTIFACT].version
        _find(model, version, artifact)
        header, binary = _split(request_body.read())
        wanted = _wanted(header)
        labels, probabilities = served.recognize(_images(header, binary), request.environ)
        answers = {"label": labels, "probabilities": probabilities}
        head = {"model_name": MODEL, "model_version": artifact}
        if "id" in header:
            head["id"] = header["id"]
        return _respond(head, {name: answers[name] for name in wanted}, wanted)

    for place in PLACES:
        path = f"/v2/models/<model>{place}"
        app.add_url_rule(path, view_func=model_metadata)
        app.add_url_rule(f"{path}/ready", view_func=model_ready)
        app.add_url_rule(f"{path}/infer", view_func=infer, methods=["POST"])


def _find(model: str, version: str | None, artifact: str) -> None:
    if model != MODEL:
        raise NotFound(f"There is no model {model}; the model is {MODEL}.")
    if version not in (None, artifact):
        raise NotFound(f"There is no version {version} of {MODEL}; the version is {artifact}.")


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request, and the binary tensors that follow it."""
    length = request.headers.get(LENGTH)
    if length is None:
        return request_body.parse_object(content), b""
    if not (length.isascii() and length.isdecimal() and int(length) <= len(content)):
        raise BadRequest(f"{LENGTH} is {length!r}, but the body has {len(content)} bytes.")
    return request_body.parse_object(content[: int(length)]), content[int(length) :]


def _wanted(header: dict[str, Any]) -> dict[str, bool]:
    """The outputs to answer with, and whether each as a binary tensor."""
    if not isinstance(header.get("id", ""), str):
        raise BadRequest("The id is a string.")
    default = _parameter(header, "binary_data_output", bool, False)
    outputs = header.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadRequest("The outputs are a list of objects.")
    wanted = {}
    for output in outputs or [{"name": name} for name in OUTPUTS]:
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise BadRequest(f"There is no output {name!r}; there are {' and '.join(OUTPUTS)}.")
        wanted[name] = _parameter(output, "binary_data", bool, default)
    return wanted


def _parameter(holder: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest("The parameters are an object.")
    value = parameters.get(name, default)
    if value is not default and type(value) is not kind:
        raise BadRequest(f"The parameter {name} is not of the type {kind.__name__}.")
    return value


def _images(header: dict[str, Any], binary: bytes) -> np.ndarray:
    """The one input of a request: uint8 (N, 28, 28)."""
    inputs = header.get("inputs")
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        raise BadRequest("The inputs are a list with one object, the input image.")
    tensor = inputs[0]
    name, datatype, shape = (tensor.get(key) for key in ("name", "datatype", "shape"))
    if name != "image":
        raise BadRequest(f"There is no input {name!r}; the input is image.")
    if datatype not in (*TYPES, "BYTES"):
        known = ", ".join((*TYPES, "BYTES"))
        raise BadRequest(f"The datatype of image is one of {known}, not {datatype!r}.")
    if not (isinstance(shape, list) and len(shape) <= 3 and set(map(type, shape)) <= {int}):
        raise BadRequest("The shape of image is a list of up to three numbers.")
    size = _parameter(tensor, "binary_data_size", int, None)
    if (size or 0) != len(binary):
        raise BadRequest(f"{len(binary)} bytes follow the JSON, but the input has {size or 0}.")
    if (size is None) == ("data" not in tensor):
        raise BadRequest("The input has either data or the parameter binary_data_size.")
    if datatype == "BYTES":
        contents = _from_json(tensor["data"]) if size is None else _elements(binary)
        if shape not in ([len(contents)], [len(contents), 1]) or not contents:
            raise BadRequest(f"The shape of image is {shape}, its data {len(contents)} pictures.")
        return np.stack(uploads.decode_all(images.decode, contents))
    values = _numbers(tensor["data"]) if size is None else _values(binary, str(datatype))
    if shape[1:] != [SIDE, SIDE]:
        raise BadRequest(f"The shape of image is {shape}; it must be [N, 28, 28].")
    if shape[0] * SIDE**2 != values.size:  # in Python's numbers, which do not overflow
        raise BadRequest(f"The shape of image is {shape}, its data {values.size} numbers.")
    return uploads.from_array(values.reshape(shape))


def _numbers(data: Any) -> np.ndarray:
    """Numbers of JSON, nested or flat."""
    try:
        return request_body.numbers(data)
    except (TypeError, ValueError) as error:
        raise BadRequest("The data of image are numbers, nested evenly or flat.") from error


def _values(binary: bytes, datatype: str) -> np.ndarray:
    dtype = np.dtype(TYPES[datatype])
    if len(binary) % dtype.itemsize:
        raise BadRequest(f"{len(binary)} bytes are no whole number of values.")
    return np.frombuffer(binary, dtype)


def _from_json(data: Any) -> list[bytes]:
    """Pictures of JSON, in base64, nested or flat."""
    texts = np.array(data, object).ravel().tolist() if isinstance(data, list) else [data]
    contents = [request_body.from_base64(text) for text in texts if isinstance(text, str)]
    if len(contents) < len(texts):
        raise BadRequest("The data of BYTES are pictures in base64.")
    return contents


def _elements(binary: bytes) -> list[bytes]:
    """The elements of a binary tensor of BYTES, each after its length in four bytes."""
    elements, place = [], 0
    while place < len(binary):
        end = place + 4 + int.from_bytes(binary[place : place + 4], "little")
        if end > len(binary):
            raise BadRequest("The binary tensor ends within an element.")
        elements.append(binary[place + 4 : end])
        place = end
    return elements


def _respond(
    head: dict[str, Any], arrays: dict[str, np.ndarray], binary: dict[str, bool]
) -> Response:
    outputs, tail = [], b""
    for name, array in arrays.items():
        output: dict[str, Any] = {
            "name": name,
            "datatype": OUTPUTS[name],
            "shape": list(array.shape),
        }
        if binary[name]:
            content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            output["parameters"] = {"binary_data_size": len(content)}
            tail += content
        else:
            output["data"] = array.ravel()
        outputs.append(output)
    response = json_response({**head, "outputs": outputs})
    if tail:
        response.headers[LENGTH] = str(response.content_length)
        response.data += tail
        response.mimetype = "application/octet-stream"
    return response
