"""TensorFlow Serving's REST interface over HTTP."""

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


def test_the_status_is_available(client, number):
    state = {
        "version": str(number),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in (MODEL, f"{MODEL}/versions/{number}"):
        assert client.get(path).json() == {"model_version_status": [state]}


def test_number_of_is_the_first_12_digits_of_the_version(artifact, number):
    assert f"{number:012x}" == artifact.version[:12]


def test_metadata_equals_the_signatures_of_the_saved_model(client, number, artifact):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    answer = client.get(f"{MODEL}/metadata").json()
    spec = {"name": "mnist", "signature_name": "", "version": str(number)}
    assert answer["model_spec"] == spec
    saved = SavedModel.FromString((artifact.path / "data/model/saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "recognize_png"}
    for name, signature in signatures.items():
        assert signature.pop("defaults") == {}
        parsed = json_format.ParseDict(signature, type(graph.signature_def[name])())
        assert parsed == graph.signature_def[name]


def test_images_in_row_format(client, testing, artifact):
    for instances in (
        testing[0][:7].tolist(),
        [{"image": image.tolist()} for image in testing[0][:7]],
    ):
        rows = predict(client, {"instances": instances}).json()["predictions"]
        assert [row["label"] for row in rows] == artifact.predictions[:7].tolist()
        assert [len(row["probabilities"]) for row in rows] == [10] * 7
        assert rows[0]["label"] == int(np.argmax(rows[0]["probabilities"]))


def test_images_in_column_format(client, testing, artifact):
    column = testing[0][:7].tolist()
    for inputs in (column, {"image": column}):
        outputs = predict(client, {"inputs": inputs}).json()["outputs"]
        assert outputs["label"] == artifact.predictions[:7].tolist()
        assert np.shape(outputs["probabilities"]) == (7, 10)


def test_the_probabilities_equal_those_of_the_saved_model(client, testing, artifact):
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

INVALID = {
    "not JSON": ("{", "JSON Parse error: "),
    "an empty body": ("", "JSON Parse error: "),
    "not an object": ([1], "is not an object"),
    "deep nesting": ("[" * 30_000, "JSON Parse error: "),
    "no key": ({}, "Missing 'inputs' or 'instances' key"),
    "both keys": ({"inputs": [IMAGE], "instances": [IMAGE]}, "expecting only one of"),
    "instances that are not a list": (
        {"instances": 1},
        "Excepting 'instances' to be an list/array",
    ),
    "no instances": ({"instances": []}, "No values in 'instances' array"),
    "no values in a column": ({"inputs": []}, "a list with one value per image"),
    "an unknown signature": (
        {"signature_name": "x", "instances": [IMAGE]},
        'Serving signature name: "x" not found in signature def',
    ),
    "a signature that is not a string": (
        {"signature_name": 1, "instances": [IMAGE]},
        "'signature_name' key must be a string value",
    ),
    "an unknown input": ({"instances": [{"x": IMAGE}]}, "keys must be equal to: image"),
    "a missing input": (
        {"inputs": {"x": [IMAGE]}},
        "Missing named input: image in 'inputs' object.",
    ),
    "mixed rows": ({"instances": [IMAGE, {"image": IMAGE}]}, "got object at item 1"),
    "mixed named rows": ({"instances": [{"image": IMAGE}, IMAGE]}, "got list at item 1"),
    "one row of pixels": ({"instances": [[0] * 784]}, "The shape of image is [1, 784]"),
    "uneven rows": ({"instances": [[[0], [0, 0]]]}, "different lengths"),
    "fractions": ({"instances": [[[0.5] * 28] * 28]}, "not of expected type: uint8"),
    "strings": ({"instances": [[["0"] * 28] * 28]}, "not of expected type: uint8"),
    "booleans": ({"instances": [[[True] * 28] * 28]}, "not of expected type: uint8"),
    "a negative pixel": ({"instances": [[[-1] * 28] * 28]}, "numbers from 0 to 255"),
    "a large pixel": ({"instances": [[[256] * 28] * 28]}, "numbers from 0 to 255"),
    "a huge pixel": ({"instances": [[[10**30] * 28] * 28]}, "numbers from 0 to 255"),
    "invalid base64": (
        {"signature_name": "recognize_png", "instances": [{"b64": "%"}]},
        "Unable to base64 decode",
    ),
    "not a picture": (
        {"signature_name": "recognize_png", "instances": [{"b64": "aGk="}]},
        "The file is not a picture",
    ),
    "a number instead of a picture": (
        {"signature_name": "recognize_png", "instances": [1]},
        "must have the form",
    ),
}


@pytest.mark.parametrize(("payload", "sentence"), INVALID.values(), ids=INVALID)
def test_invalid_input_returns_one_sentence(client, payload, sentence):
    answer = predict(client, payload)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


def test_other_models_and_versions_return_404(client, number):
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


def test_version_labels_return_400(client):
    expected = 400, {"error": "Unrecognized servable version label: stable"}
    for answer in (
        client.get(f"{MODEL}/labels/stable"),
        client.get(f"{MODEL}/labels/stable/metadata"),
        predict(client, {"instances": [IMAGE]}, "/labels/stable:predict"),
    ):
        assert (answer.status_code, answer.json()) == expected


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_classify_and_regress_return_400(client, verb):
    answer = predict(client, {"examples": [{}]}, f":{verb}")
    assert answer.status_code == 400
    assert f"no {verb} signature" in answer.json()["error"]
