"""TensorFlow Serving's REST interface over HTTP, as its clients use it."""

import base64
import json

import numpy as np
import pytest
from google.protobuf import json_format

from service.api.tensorflow_serving import number_of

MODEL = "/v1/models/mnist"


@pytest.fixture(scope="module")
def number(artifact):
    return number_of(artifact.version)


def predict(client, payload, suffix=":predict"):
    body = payload if isinstance(payload, (str, bytes)) else json.dumps(payload)
    return client.post(f"{MODEL}{suffix}", data=body)


def picture(file):
    return {"b64": base64.b64encode(file.read_bytes()).decode()}


def test_status(client, number):
    state = {
        "version": str(number),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in (MODEL, f"{MODEL}/versions/{number}"):
        assert client.get(path).json() == {"model_version_status": [state]}


def test_the_number_is_the_first_12_digits_of_the_version(artifact, number):
    assert f"{number:012x}" == artifact.version[:12]


def test_metadata_is_what_the_saved_model_says(client, number, artifact):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    answer = client.get(f"{MODEL}/metadata").json()
    spec = {"name": "mnist", "signature_name": "", "version": str(number)}
    assert answer["model_spec"] == spec
    saved = SavedModel.FromString((artifact.path / "data/model/saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    told = answer["metadata"]["signature_def"]["signature_def"]
    assert set(told) == {"serving_default", "recognize_png"}
    for name, signature in told.items():
        assert signature.pop("defaults") == {}
        parsed = json_format.ParseDict(signature, type(graph.signature_def[name])())
        assert parsed == graph.signature_def[name]


def test_rows_of_images(client, testing, artifact):
    for instances in (
        testing[0][:7].tolist(),
        [{"image": image.tolist()} for image in testing[0][:7]],
    ):
        rows = predict(client, {"instances": instances}).json()["predictions"]
        assert [row["label"] for row in rows] == artifact.predictions[:7].tolist()
        assert [len(row["probabilities"]) for row in rows] == [10] * 7
        assert rows[0]["label"] == int(np.argmax(rows[0]["probabilities"]))


def test_columns_of_images(client, testing, artifact):
    column = testing[0][:7].tolist()
    for inputs in (column, {"image": column}):
        outputs = predict(client, {"inputs": inputs}).json()["outputs"]
        assert outputs["label"] == artifact.predictions[:7].tolist()
        assert np.shape(outputs["probabilities"]) == (7, 10)


def test_the_probabilities_are_those_of_the_saved_model(client, testing, artifact):
    import tensorflow as tf

    outputs = predict(client, {"inputs": testing[0][:50].tolist()}).json()["outputs"]
    model = tf.saved_model.load(str(artifact.path / "data/model"))
    expected = model.signatures["serving_default"](image=tf.constant(testing[0][:50]))
    np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-3)


def test_pictures_in_base64(client, number, png_files, artifact):
    pictures = [picture(file) for file in png_files[:5]]
    expected = artifact.predictions[:5].tolist()
    for instances in (pictures, [{"png_bytes": content} for content in pictures]):
        request = {"signature_name": "recognize_png", "instances": instances}
        for suffix in (":predict", f"/versions/{number}:predict"):
            rows = predict(client, request, suffix).json()["predictions"]
            assert [row["label"] for row in rows] == expected
    for column in (pictures, {"png_bytes": pictures}):
        request = {"signature_name": "recognize_png", "inputs": column}  # type: ignore[dict-item]
        assert predict(client, request).json()["outputs"]["label"] == expected


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
def test_bad_input_is_one_sentence(client, payload, sentence):
    answer = predict(client, payload)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


def test_other_models_and_versions_are_not_found(client, number):
    other = "/v1/models/other"
    for path, sentence in (
        (other, "Could not find any versions of model other"),
        (f"{MODEL}/versions/5", "Could not find version 5 of model mnist"),
        (f"{other}/metadata", "Servable not found for request: Latest(other)"),
        (f"{MODEL}/versions/5/metadata", "Servable not found for request: Specific(mnist, 5)"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": sentence})
    answer = predict(client, {"instances": [IMAGE]}, "/versions/5:predict")
    assert answer.status_code == 404
    assert answer.json() == {"error": "Servable not found for request: Specific(mnist, 5)"}


def test_labels_of_versions_are_refused(client):
    expected = 400, {"error": "Unrecognized servable version label: stable"}
    for answer in (
        client.get(f"{MODEL}/labels/stable"),
        client.get(f"{MODEL}/labels/stable/metadata"),
        predict(client, {"instances": [IMAGE]}, "/labels/stable:predict"),
    ):
        assert (answer.status_code, answer.json()) == expected


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_other_verbs_are_refused(client, verb):
    answer = predict(client, {"examples": [{}]}, f":{verb}")
    assert answer.status_code == 400
    assert f"no signature of the method {verb}" in answer.json()["error"]
