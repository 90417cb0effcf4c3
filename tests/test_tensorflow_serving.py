"""TensorFlow Serving's REST interface over HTTP, as its clients use it."""

import base64
import json

from service.quiet import tf

import numpy as np
import pytest
import requests
from google.protobuf import json_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from service.tensorflow_serving import number_of


@pytest.fixture(scope="module")
def url(server):
    return f"{server.url}/v1/models/mnist"


@pytest.fixture(scope="module")
def number(version):
    return number_of(version)


def predict(url, payload, suffix=":predict"):
    body = payload if isinstance(payload, (str, bytes)) else json.dumps(payload)
    return requests.post(f"{url}{suffix}", data=body, timeout=30)


def picture(file):
    return {"b64": base64.b64encode(file.read_bytes()).decode()}


def test_status(url, number):
    state = {
        "version": str(number),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in (url, f"{url}/versions/{number}"):
        assert requests.get(path, timeout=30).json() == {"model_version_status": [state]}


def test_the_number_is_the_first_12_digits_of_the_version(version, number):
    assert f"{number:012x}" == version[:12]


def test_metadata_is_what_the_saved_model_says(url, number, repository):
    answer = requests.get(f"{url}/metadata", timeout=30).json()
    spec = {"name": "mnist", "signature_name": "", "version": str(number)}
    assert answer["model_spec"] == spec
    saved = SavedModel.FromString((repository.path / "data/model/saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    told = answer["metadata"]["signature_def"]["signature_def"]
    assert set(told) == {"serving_default", "recognize_png"}
    for name, signature in told.items():
        assert signature.pop("defaults") == {}
        parsed = json_format.ParseDict(signature, type(graph.signature_def[name])())
        assert parsed == graph.signature_def[name]


def test_rows_of_images(url, testing, predictions):
    for instances in (
        testing[0][:7].tolist(),
        [{"image": image.tolist()} for image in testing[0][:7]],
    ):
        rows = predict(url, {"instances": instances}).json()["predictions"]
        assert [row["label"] for row in rows] == predictions[:7].tolist()
        assert [len(row["probabilities"]) for row in rows] == [10] * 7
        assert rows[0]["label"] == int(np.argmax(rows[0]["probabilities"]))


def test_columns_of_images(url, testing, predictions):
    column = testing[0][:7].tolist()
    for inputs in (column, {"image": column}):
        outputs = predict(url, {"inputs": inputs}).json()["outputs"]
        assert outputs["label"] == predictions[:7].tolist()
        assert np.shape(outputs["probabilities"]) == (7, 10)


def test_the_probabilities_are_those_of_the_saved_model(url, testing, repository):
    outputs = predict(url, {"inputs": testing[0][:50].tolist()}).json()["outputs"]
    model = tf.saved_model.load(str(repository.path / "data/model"))
    expected = model.signatures["serving_default"](image=tf.constant(testing[0][:50]))
    np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-3)


def test_pictures_in_base64(url, number, png_files, predictions):
    pictures = [picture(file) for file in png_files[:5]]
    expected = predictions[:5].tolist()
    for instances in (pictures, [{"png_bytes": content} for content in pictures]):
        request = {"signature_name": "recognize_png", "instances": instances}
        for suffix in (":predict", f"/versions/{number}:predict"):
            rows = predict(url, request, suffix).json()["predictions"]
            assert [row["label"] for row in rows] == expected
    for column in (pictures, {"png_bytes": pictures}):
        request = {"signature_name": "recognize_png", "inputs": column}  # type: ignore[dict-item]
        assert predict(url, request).json()["outputs"]["label"] == expected


IMAGE = [[0] * 28] * 28

BAD = {
    "no JSON": ("{", "JSON Parse error: "),
    "an empty body": ("", "JSON Parse error: "),
    "no object": ([1], "is not an object"),
    "deep nesting": ("[" * 30_000, "JSON Parse error: "),
    "no key": ({}, "Missing 'inputs' or 'instances' key"),
    "both keys": ({"inputs": [IMAGE], "instances": [IMAGE]}, "expecting only one of"),
    "no list": ({"instances": 1}, "Excepting 'instances' to be an list/array"),
    "no values": ({"instances": []}, "No values in 'instances' array"),
    "no values in a column": ({"inputs": []}, "a list with one value for each image"),
    "an unknown signature": (
        {"signature_name": "x", "instances": [IMAGE]},
        'Serving signature name: "x" not found in signature def',
    ),
    "a signature that is no name": (
        {"signature_name": 1, "instances": [IMAGE]},
        "'signature_name' key must be a string value",
    ),
    "another input": ({"instances": [{"x": IMAGE}]}, "keys must be equal to: image"),
    "no input": ({"inputs": {"x": [IMAGE]}}, "Missing named input: image in 'inputs' object."),
    "mixed rows": ({"instances": [IMAGE, {"image": IMAGE}]}, "got object at item 1"),
    "mixed named rows": ({"instances": [{"image": IMAGE}, IMAGE]}, "got list at item 1"),
    "one row of pixels": ({"instances": [[0] * 784]}, "The shape of image is [1, 784]"),
    "uneven rows": ({"instances": [[[0], [0, 0]]]}, "not all as long as each other"),
    "fractions": ({"instances": [[[0.5] * 28] * 28]}, "not of expected type: uint8"),
    "texts": ({"instances": [[["0"] * 28] * 28]}, "not of expected type: uint8"),
    "truths": ({"instances": [[[True] * 28] * 28]}, "not of expected type: uint8"),
    "a negative pixel": ({"instances": [[[-1] * 28] * 28]}, "numbers from 0 to 255"),
    "a large pixel": ({"instances": [[[256] * 28] * 28]}, "numbers from 0 to 255"),
    "a huge pixel": ({"instances": [[[10**30] * 28] * 28]}, "numbers from 0 to 255"),
    "no base64": (
        {"signature_name": "recognize_png", "instances": [{"b64": "%"}]},
        "Unable to base64 decode",
    ),
    "no picture": (
        {"signature_name": "recognize_png", "instances": [{"b64": "aGk="}]},
        "The file is not an image",
    ),
    "a number for a picture": (
        {"signature_name": "recognize_png", "instances": [1]},
        "is not of the form",
    ),
}


@pytest.mark.parametrize(("payload", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence(url, payload, sentence):
    answer = predict(url, payload)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


def test_other_models_and_versions_are_not_found(server, url, number):
    other = f"{server.url}/v1/models/other"
    for path, sentence in (
        (other, "Could not find any versions of model other"),
        (f"{url}/versions/5", "Could not find version 5 of model mnist"),
        (f"{other}/metadata", "Servable not found for request: Latest(other)"),
        (f"{url}/versions/5/metadata", "Servable not found for request: Specific(mnist, 5)"),
    ):
        answer = requests.get(path, timeout=30)
        assert (answer.status_code, answer.json()) == (404, {"error": sentence})
    answer = predict(url, {"instances": [IMAGE]}, "/versions/5:predict")
    assert answer.status_code == 404
    assert answer.json() == {"error": "Servable not found for request: Specific(mnist, 5)"}


def test_labels_of_versions_are_refused(url):
    expected = 400, {"error": "Unrecognized servable version label: stable"}
    for answer in (
        requests.get(f"{url}/labels/stable", timeout=30),
        requests.get(f"{url}/labels/stable/metadata", timeout=30),
        predict(url, {"instances": [IMAGE]}, "/labels/stable:predict"),
    ):
        assert (answer.status_code, answer.json()) == expected


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_other_verbs_are_refused(url, verb):
    answer = predict(url, {"examples": [{}]}, f":{verb}")
    assert answer.status_code == 400
    assert f"no signature of the method {verb}" in answer.json()["error"]
