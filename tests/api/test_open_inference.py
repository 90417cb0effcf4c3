"""The Open Inference Protocol, spoken by NVIDIA's own client."""

import base64

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.api.open_inference import LENGTH

INFER = "/v2/models/mnist/infer"


@pytest.fixture(scope="module")
def nvidia(server):
    """NVIDIA's client of the real service."""
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as made:
        yield made


def image_input(values, datatype, *, binary):
    given = triton.InferInput("image", list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def outputs(*, binary):
    return [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")
    ]


def test_server_and_model_tell_of_themselves(nvidia, server, version):
    assert nvidia.is_server_live()
    assert nvidia.is_server_ready()
    assert nvidia.is_model_ready("mnist")
    assert nvidia.is_model_ready("mnist", version)
    assert not nvidia.is_model_ready("other")
    assert not nvidia.is_model_ready("mnist", "1")
    assert nvidia.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    told = nvidia.get_model_metadata("mnist", version)
    assert told["versions"] == [version]
    assert told["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert told["outputs"] == [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(("datatype", "dtype"), [("UINT8", np.uint8), ("FP32", np.float32)])
def test_images(nvidia, testing, predictions, version, datatype, dtype, binary_in, binary_out):
    given = image_input(testing[0][:9].astype(dtype), datatype, binary=binary_in)
    answer = nvidia.infer(
        "mnist", [given], version, outputs=outputs(binary=binary_out), request_id="a-17"
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
    for shaped in (contents, contents.reshape(-1, 1)):
        answer = nvidia.infer("mnist", [image_input(shaped, "BYTES", binary=True)])
        np.testing.assert_array_equal(answer.as_numpy("label"), predictions[:9])


def test_pictures_in_json(client, png_files, artifact):
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


def test_all_outputs_may_be_asked_for_in_binary(client, testing):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28]}
    tensor["data"] = testing[0][:1].tolist()
    answer = client.post(
        INFER, json={"inputs": [tensor], "parameters": {"binary_data_output": True}}
    )
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert len(answer.content) == int(answer.headers[LENGTH]) + 8 + 40


def test_the_client_reads_the_reason_of_a_refusal(nvidia):
    given = image_input(np.zeros((1, 20, 20), np.uint8), "UINT8", binary=True)
    with pytest.raises(InferenceServerException, match=r"\[1, 20, 20\]; it must be \[N, 28, 28\]"):
        nvidia.infer("mnist", [given])
    good = image_input(np.zeros((1, 28, 28), np.uint8), "UINT8", binary=True)
    with pytest.raises(InferenceServerException, match="There is no model other"):
        nvidia.infer("other", [good])


GOOD = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}
BYTES = {"name": "image", "datatype": "BYTES", "shape": [1]}

BAD = {
    "no inputs": ({}, "The inputs are a list with one object"),
    "two inputs": ({"inputs": [GOOD, GOOD]}, "The inputs are a list with one object"),
    "another input": ({"inputs": [GOOD | {"name": "x"}]}, "There is no input 'x'"),
    "another type": ({"inputs": [GOOD | {"datatype": "INT8"}]}, "one of UINT8, FP32, BYTES"),
    "a type that is none": ({"inputs": [GOOD | {"datatype": {}}]}, "one of UINT8, FP32, BYTES"),
    "no shape": ({"inputs": [GOOD | {"shape": None}]}, "The shape of image is a list"),
    "another size": ({"inputs": [GOOD | {"shape": [2, 28, 28]}]}, "its data 784 numbers"),
    "a size that overflows": (
        {"inputs": [GOOD | {"shape": [2**63 - 1, 28, 28], "data": [0]}]},
        "its data 1 numbers",
    ),
    "a size of nought times too much": (
        {"inputs": [GOOD | {"shape": [0, 2**63, 2**63], "data": []}]},
        "it must be [N, 28, 28]",
    ),
    "many dimensions": ({"inputs": [GOOD | {"shape": [1] * 65}]}, "a list of up to three numbers"),
    "no data": ({"inputs": [{**GOOD, "data": None}]}, "The data of image are numbers"),
    "uneven data": ({"inputs": [GOOD | {"data": [[0], [0, 0]]}]}, "The data of image are numbers"),
    "texts": ({"inputs": [GOOD | {"data": ["0"] * 784}]}, "The data of image are numbers"),
    "neither": ({"inputs": [BYTES]}, "either data or the parameter binary_data_size"),
    "a large pixel": ({"inputs": [GOOD | {"data": [256] * 784}]}, "numbers from 0 to 255"),
    "not a number": ('{"inputs": [{"data": [NaN]}]}', "JSON Parse error"),
    "no base64": ({"inputs": [BYTES | {"data": ["%"]}]}, "Unable to base64 decode"),
    "no pictures": ({"inputs": [BYTES | {"data": []}]}, "its data 0 pictures"),
    "numbers for pictures": ({"inputs": [BYTES | {"data": [1]}]}, "pictures in base64"),
    "missing bytes": (
        {"inputs": [BYTES | {"parameters": {"binary_data_size": 9}}]},
        "0 bytes follow the JSON, but the input has 9",
    ),
    "an unknown output": ({"inputs": [GOOD], "outputs": [{"name": "x"}]}, "There is no output 'x'"),
    "outputs that are none": ({"inputs": [GOOD], "outputs": None}, "The outputs are a list"),
    "an id that is none": ({"inputs": [GOOD], "id": 1}, "The id is a string."),
    "parameters that are none": ({"inputs": [GOOD], "parameters": 1}, "parameters are an object"),
    "a parameter of another type": (
        {"inputs": [GOOD], "parameters": {"binary_data_output": "yes"}},
        "binary_data_output is not of the type bool",
    ),
}


@pytest.mark.parametrize(("payload", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence(client, payload, sentence):
    body = {"data": payload} if isinstance(payload, str) else {"json": payload}
    answer = client.post(INFER, **body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "1000000"])
def test_a_wrong_length_of_the_json_is_refused(client, length):
    answer = client.post(INFER, data=b"{}", headers={LENGTH: length})
    assert answer.status_code == 400
    assert LENGTH in answer.json()["error"]


def test_an_element_that_ends_too_soon_is_refused(client):
    tensor = b'{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}'
    head = b'{"inputs":[' + tensor + b"]}"
    answer = client.post(INFER, data=head + b"\x09\0\0\0ab", headers={LENGTH: str(len(head))})
    assert answer.status_code == 400
    assert answer.json()["error"] == "The binary tensor ends within an element."
