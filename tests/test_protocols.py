"""Generate valid and damaged requests of both protocols, and send them to the service."""

import copy
import json
from base64 import b64encode
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.open_inference import LENGTH
from service.recognition import engines

TENSORFLOW, OPEN = "/v1/models/mnist:predict", "/v2/models/mnist/infer"
OUTPUTS: dict[str, np.dtype[Any]] = {"label": np.dtype("<i8"), "probabilities": np.dtype("<f4")}
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0.5,
    2**64 - 1,
    1e300,
    "",
    "x",
    "label",
    [],
    [[]],
    {},
    {"b64": "AAAA"},
)

flags = st.booleans()
indices = st.lists(st.integers(0, 499), min_size=1, max_size=4)  # indices of test images


@pytest.fixture(scope="module")
def model(artifact):
    """The artifact, loaded without the service."""
    return engines.load(artifact.path / "data/model", "litert")


@st.composite
def tensorflow_requests(draw):
    """Draw a function that converts images and their files to the payload of a request."""
    pictures, named, column = draw(flags), draw(flags), draw(flags)
    number = draw(st.sampled_from([int, float]))
    name = "png_bytes" if pictures else "image"

    def payload(images, files):
        if pictures:
            values = [{"b64": b64encode(file).decode()} for file in files]
        else:
            values = images.astype(number).tolist()
        signature = {"signature_name": "recognize_png"} if pictures else {}
        if column:
            return {"inputs": {name: values} if named else values, **signature}
        return {"instances": [{name: v} for v in values] if named else values, **signature}

    return payload


@st.composite
def open_requests(draw):
    """Draw a function that converts images and files to a request's header and binary tensor."""
    datatype = draw(st.sampled_from(["UINT8", "FP32", "BYTES"]))
    binary, nested = draw(flags), draw(flags)
    error = draw(st.sampled_from([-0.4, 0.0, 0.4]))
    rest = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.text(max_size=9),
                "parameters": st.fixed_dictionaries({"binary_data_output": flags}),
                "outputs": outputs(),
            },
        )
    )

    def request(images, files):
        if datatype == "BYTES":
            shape = [len(files), 1] if nested else [len(files)]
            data = np.array([b64encode(file).decode() for file in files]).reshape(shape)
            content = b"".join(len(file).to_bytes(4, "little") + file for file in files)
        else:
            shape = list(images.shape)
            fractions = images + np.float32(error) * ((images > 0) & (images < 255))
            data = images if datatype == "UINT8" else fractions.astype("<f4")
            content = data.tobytes()
            data = data if nested else data.ravel()
        tensor = {"name": "image", "datatype": datatype, "shape": shape}
        if binary:
            tensor["parameters"] = {"binary_data_size": len(content)}
        else:
            tensor["data"], content = data.tolist(), b""
        return {"inputs": [tensor], **rest}, content

    return request


@st.composite
def outputs(draw):
    """Draw some of the outputs, each as a binary tensor, in JSON or in the default form."""
    parameters = st.fixed_dictionaries({}, optional={"binary_data": flags})
    names = draw(st.lists(st.sampled_from(list(OUTPUTS)), min_size=1, unique=True))
    return [{"name": name, "parameters": draw(parameters)} for name in names]


@given(indices, tensorflow_requests())
def test_tensorflow_serving_answers_requests_of_any_form(
    client, model, testing, png_files, chosen, payload
):
    request_ = payload(testing[0][chosen], [png_files[number].read_bytes() for number in chosen])
    answer = client.post(TENSORFLOW, data=orjson.dumps(request_))
    assert answer.status_code == 200
    content = answer.json()
    if "inputs" in request_:
        values = content["outputs"]
    else:
        values = {name: [row[name] for row in content["predictions"]] for name in OUTPUTS}
    assert_same(values, OUTPUTS, model.recognize(testing[0][chosen]))


@given(indices, open_requests())
def test_open_inference_answers_requests_of_any_form(
    client, model, testing, png_files, chosen, request_
):
    files = [png_files[number].read_bytes() for number in chosen]
    header, binary = request_(testing[0][chosen], files)
    answer = send(client, header, binary)
    assert answer.status_code == 200
    content, values = read(answer)
    assert content.get("id") == header.get("id")
    names = [output["name"] for output in header.get("outputs", [{"name": n} for n in OUTPUTS])]
    assert_same(values, names, model.recognize(testing[0][chosen]))
    default = header.get("parameters", {}).get("binary_data_output", False)
    for requested, output in zip(header.get("outputs", []), content["outputs"], strict=False):
        as_binary = requested["parameters"].get("binary_data", default)
        assert ("data" in output) != as_binary


@given(indices, tensorflow_requests(), st.data())
def test_tensorflow_serving_answers_or_refuses_a_damaged_request(
    client, testing, png_files, chosen, payload, data
):
    request_ = payload(testing[0][chosen], [png_files[number].read_bytes() for number in chosen])
    content = orjson.dumps(damaged(request_, data.draw))
    assert_answered_or_refused(client.post(TENSORFLOW, data=content))


@given(indices, open_requests(), st.data())
def test_open_inference_answers_or_refuses_a_damaged_request(
    client, testing, png_files, chosen, request_, data
):
    files = [png_files[number].read_bytes() for number in chosen]
    header, binary = request_(testing[0][chosen], files)
    content = bytearray(binary)
    for place in data.draw(st.lists(st.integers(0, 4000), max_size=3)):
        if place < len(content):
            content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 0, 1, 3, 784]))
    assert_answered_or_refused(
        send(
            client,
            damaged(header, data.draw),
            bytes(content[: len(content) - cut]),
            data.draw(st.sampled_from([0, 0, 0, -1, 1, 4, 10**6])),
        )
    )


def damaged(value, draw):
    """Return JSON with some of its parts removed, duplicated or replaced by junk."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        parts = list(places(value))
        if not parts:
            break
        holder, key = draw(st.sampled_from(parts))
        match draw(st.sampled_from(["remove", "double", "replace", "replace"])):
            case "remove":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(holder[key])
            case "double":
                holder[f"{key}s"] = holder[key]
            case "replace":
                holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return value


def places(value):
    """Yield the container and the key of each part of JSON, but only the first two of a list."""
    for key in list(value) if isinstance(value, dict) else range(len(value))[:2]:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def send(client, header, binary, error=0):
    """Send a request whose length header is wrong by `error`."""
    head = orjson.dumps(header)
    headers = {LENGTH: str(len(head) + error)} if binary or error else None
    return client.post(OPEN, data=head + binary, headers=headers)


def read(answer):
    """Return the JSON of a response, and its outputs by name."""
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    content, binary = json.loads(answer.content[:length]), answer.content[length:]
    values = {}
    for output in content["outputs"]:
        if "data" in output:
            flat = np.array(output["data"])
        else:
            size = output["parameters"]["binary_data_size"]
            flat, binary = np.frombuffer(binary[:size], OUTPUTS[output["name"]]), binary[size:]
        values[output["name"]] = flat.reshape(output["shape"])
    assert not binary
    return content, values


def assert_same(values, names, expected):
    """Compare to the last digit of a float32, because both computations are the same."""
    assert list(values) == list(names)
    for name, array in zip(OUTPUTS, expected, strict=True):
        if name in values:
            np.testing.assert_array_equal(np.array(values[name], array.dtype), array)


def assert_answered_or_refused(answer):
    assert answer.status_code in {200, 400, 422}
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"]
        assert "\n" not in answer.json()["error"]
