"""The Open Inference Protocol, tested with NVIDIA's client and with plain HTTP."""

import base64

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.api.open_inference import LENGTH

INFER = "/v2/models/mnist/infer"


@pytest.fixture(scope="module")
def nvidia(server):
    """Yield NVIDIA's client, connected to the real service."""
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as inference_client:
        yield inference_client


def image_input(values, datatype, *, binary):
    tensor = triton.InferInput("image", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def outputs(*, binary):
    return [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")
    ]


def test_server_and_model_return_their_metadata(nvidia, server, version, sha256):
    assert nvidia.is_server_live()
    assert nvidia.is_server_ready()
    assert nvidia.is_model_ready("mnist")
    assert nvidia.is_model_ready("mnist", version)
    assert not nvidia.is_model_ready("other")
    assert not nvidia.is_model_ready("mnist", "1")
    assert nvidia.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = nvidia.get_model_metadata("mnist", version)
    assert metadata["versions"] == [version]
    assert metadata["properties"] == {"sha256": sha256}
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert metadata["outputs"] == [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(("datatype", "dtype"), [("UINT8", np.uint8), ("FP32", np.float32)])
def test_images_in_both_datatypes_and_encodings(
    nvidia, testing, predictions, version, datatype, dtype, binary_in, binary_out
):
    tensor = image_input(testing[0][:9].astype(dtype), datatype, binary=binary_in)
    answer = nvidia.infer(
        "mnist", [tensor], version, outputs=outputs(binary=binary_out), request_id="a-17"
    )
    assert answer.get_response()["id"] == "a-17"
    assert answer.get_response()["model_version"] == version
    labels, probabilities = answer.as_numpy("label"), answer.as_numpy("probabilities")
    assert (labels.dtype, probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(labels, predictions[:9])
    assert probabilities.shape == (9, 10)
    np.testing.assert_array_equal(probabilities.argmax(1), predictions[:9])


def test_pictures_as_binary_tensors(nvidia, png_files, predictions):
    contents = np.array([file.read_bytes() for file in png_files[:9]], object)
    for array in (contents, contents.reshape(-1, 1)):
        answer = nvidia.infer("mnist", [image_input(array, "BYTES", binary=True)])
        np.testing.assert_array_equal(answer.as_numpy("label"), predictions[:9])


def test_pictures_in_json_are_base64(client, png_files, artifact):
    data = [base64.b64encode(file.read_bytes()).decode() for file in png_files[:9]]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [9], "data": data}
    payload = {"inputs": [tensor], "outputs": [{"name": "label"}]}
    answer = client.post(INFER, json=payload).json()
    (output,) = answer["outputs"]
    assert output["data"] == artifact.predictions[:9].tolist()
    assert "id" not in answer


def test_numbers_may_be_nested_or_flat(client, testing, artifact):
    for data in (testing[0][:2].tolist(), testing[0][:2].ravel().tolist()):
        tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 28, 28], "data": data}
        label, probabilities = client.post(INFER, json={"inputs": [tensor]}).json()["outputs"]
        assert label["data"] == artifact.predictions[:2].tolist()
        assert probabilities["shape"] == [2, 10]
        assert len(probabilities["data"]) == 20


def test_a_request_may_ask_for_all_outputs_in_binary(client, testing):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28]}
    tensor["data"] = testing[0][:1].tolist()
    answer = client.post(
        INFER, json={"inputs": [tensor], "parameters": {"binary_data_output": True}}
    )
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert len(answer.content) == int(answer.headers[LENGTH]) + 8 + 40


def test_the_client_raises_the_error_sentence(nvidia):
    wrong_shape = image_input(np.zeros((1, 20, 20), np.uint8), "UINT8", binary=True)
    with pytest.raises(InferenceServerException, match=r"\[1, 20, 20\]; it must be \[N, 28, 28\]"):
        nvidia.infer("mnist", [wrong_shape])
    valid = image_input(np.zeros((1, 28, 28), np.uint8), "UINT8", binary=True)
    with pytest.raises(InferenceServerException, match="There is no model other"):
        nvidia.infer("other", [valid])


VALID = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}
BYTES = {"name": "image", "datatype": "BYTES", "shape": [1]}

INVALID = {
    "no inputs": ({}, "The inputs must be a list with one object"),
    "two inputs": ({"inputs": [VALID, VALID]}, "The inputs must be a list with one object"),
    "an unknown input": ({"inputs": [VALID | {"name": "x"}]}, "There is no input 'x'"),
    "an unsupported datatype": (
        {"inputs": [VALID | {"datatype": "INT8"}]},
        "one of UINT8, FP32, BYTES",
    ),
    "a datatype that is not a string": (
        {"inputs": [VALID | {"datatype": {}}]},
        "one of UINT8, FP32, BYTES",
    ),
    "no shape": ({"inputs": [VALID | {"shape": None}]}, "The shape of image must be a list"),
    "a wrong size": ({"inputs": [VALID | {"shape": [2, 28, 28]}]}, "its data has 784 numbers"),
    "a size that overflows": (
        {"inputs": [VALID | {"shape": [2**63 - 1, 28, 28], "data": [0]}]},
        "its data has 1 numbers",
    ),
    "a size of zero with dimensions that overflow": (
        {"inputs": [VALID | {"shape": [0, 2**63, 2**63], "data": []}]},
        "it must be [N, 28, 28]",
    ),
    "many dimensions": (
        {"inputs": [VALID | {"shape": [1] * 65}]},
        "a list of up to three integers",
    ),
    "no data": ({"inputs": [{**VALID, "data": None}]}, "The data of image must be numbers"),
    "uneven data": (
        {"inputs": [VALID | {"data": [[0], [0, 0]]}]},
        "The data of image must be numbers",
    ),
    "strings": ({"inputs": [VALID | {"data": ["0"] * 784}]}, "The data of image must be numbers"),
    "neither data nor a size": (
        {"inputs": [BYTES]},
        "either data or the parameter binary_data_size",
    ),
    "a large pixel": ({"inputs": [VALID | {"data": [256] * 784}]}, "numbers from 0 to 255"),
    "not a number": ('{"inputs": [{"data": [NaN]}]}', "JSON Parse error"),
    "invalid base64": ({"inputs": [BYTES | {"data": ["%"]}]}, "Unable to base64 decode"),
    "no pictures": ({"inputs": [BYTES | {"data": []}]}, "its data has 0 pictures"),
    "numbers instead of pictures": ({"inputs": [BYTES | {"data": [1]}]}, "pictures in base64"),
    "missing bytes": (
        {"inputs": [BYTES | {"parameters": {"binary_data_size": 9}}]},
        "0 bytes after the JSON, but the input declares 9",
    ),
    "an unknown output": (
        {"inputs": [VALID], "outputs": [{"name": "x"}]},
        "There is no output 'x'",
    ),
    "outputs that are not a list": (
        {"inputs": [VALID], "outputs": None},
        "The outputs must be a list",
    ),
    "an id that is not a string": ({"inputs": [VALID], "id": 1}, "The id must be a string."),
    "parameters that are not an object": (
        {"inputs": [VALID], "parameters": 1},
        "parameters must be an object",
    ),
    "a parameter of a wrong type": (
        {"inputs": [VALID], "parameters": {"binary_data_output": "yes"}},
        "binary_data_output must be of type bool",
    ),
}


@pytest.mark.parametrize(("payload", "sentence"), INVALID.values(), ids=INVALID)
def test_invalid_input_returns_one_sentence(client, payload, sentence):
    body = {"data": payload} if isinstance(payload, str) else {"json": payload}
    answer = client.post(INFER, **body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "1000000"])
def test_a_wrong_length_of_the_json_returns_400(client, length):
    answer = client.post(INFER, data=b"{}", headers={LENGTH: length})
    assert answer.status_code == 400
    assert LENGTH in answer.json()["error"]


def test_a_truncated_element_returns_400(client):
    tensor = b'{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}'
    head = b'{"inputs":[' + tensor + b"]}"
    answer = client.post(INFER, data=head + b"\x09\0\0\0ab", headers={LENGTH: str(len(head))})
    assert answer.status_code == 400
    assert answer.json()["error"] == "The binary tensor ends within an element."
