import numpy as np
import pytest
from flask import Flask
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from service.api import request_body
from service.api.limits import CONFIG, Limits

LIMIT = 1000  # bytes


@pytest.fixture
def receive():
    """Return a function that creates a request context with the given body and headers."""
    application = Flask(__name__)
    application.config.update({CONFIG: Limits(images=1), "MAX_CONTENT_LENGTH": LIMIT})

    def context(content, **headers):
        return application.test_request_context(method="POST", data=content, headers=headers)

    return context


def test_read_returns_the_whole_body(receive):
    with receive(b"x" * LIMIT):
        assert request_body.read() == b"x" * LIMIT


def test_read_rejects_a_body_over_the_limit(receive):
    with receive(b"x" * (LIMIT + 1)), pytest.raises(RequestEntityTooLarge):
        request_body.read()


def test_read_rejects_a_compressed_body(receive):
    with receive(b"x", **{"Content-Encoding": "gzip"}), pytest.raises(UnsupportedMediaType):
        request_body.read()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"1", b"\xff"])
def test_parse_object_rejects_anything_but_a_json_object(receive, content):
    with receive(b""), pytest.raises(BadRequest):
        request_body.parse_object(content)


def test_parse_object_rejects_more_lists_than_the_images_need(receive):
    limit = request_body.LISTS_PER_IMAGE * 101
    with receive(b""):
        assert request_body.parse_object(b'{"a":[%b]}' % b",".join([b"[]"] * (limit - 2)))
        with pytest.raises(RequestEntityTooLarge):
            request_body.parse_object(b'{"a":[%b]}' % b",".join([b"[]"] * (limit - 1)))


@pytest.mark.parametrize(("text", "content"), [("aGk=", b"hi"), ("aGk", b"hi"), ("", b"")])
def test_base64_needs_no_padding(text, content):
    assert request_body.from_base64(text) == content


@pytest.mark.parametrize("text", ["%", "a", "a=Gk", "aGk=\n"])
def test_from_base64_rejects_invalid_base64(text):
    with pytest.raises(BadRequest, match="Unable to base64 decode"):
        request_body.from_base64(text)


def test_to_array_keeps_the_shape_of_the_lists():
    array = request_body.to_array([[1, 2.5], [3, 4]])
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, [[1, 2.5], [3, 4]])


@pytest.mark.parametrize(
    ("nested", "error"),
    [
        ([[1], [1, 2]], ValueError),
        ([True], TypeError),
        (["1"], TypeError),
        ([None], TypeError),
    ],
)
def test_to_array_rejects_anything_but_an_array_of_numbers(nested, error):
    with pytest.raises(error):
        request_body.to_array(nested)
