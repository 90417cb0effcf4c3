import numpy as np
import pytest
from flask import Flask
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from service.api import request_body
from service.api.limits import CONFIG, Limits

MOST = 1000  # bytes


@pytest.fixture
def receive():
    """Make a body the one of the current request."""
    application = Flask(__name__)
    application.config.update({CONFIG: Limits(images=1), "MAX_CONTENT_LENGTH": MOST})

    def context(content, **headers):
        return application.test_request_context(method="POST", data=content, headers=headers)

    return context


def test_a_body_is_read_whole(receive):
    with receive(b"x" * MOST):
        assert request_body.read() == b"x" * MOST


def test_a_body_over_the_limit_is_refused(receive):
    with receive(b"x" * (MOST + 1)), pytest.raises(RequestEntityTooLarge):
        request_body.read()


def test_a_compressed_body_is_refused(receive):
    with receive(b"x", **{"Content-Encoding": "gzip"}), pytest.raises(UnsupportedMediaType):
        request_body.read()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"1", b"\xff"])
def test_what_is_no_json_object_is_refused(receive, content):
    with receive(b""), pytest.raises(BadRequest):
        request_body.parse_object(content)


def test_more_lists_than_the_images_of_a_request_have_are_refused(receive):
    most = request_body.LISTS * 101
    with receive(b""):
        assert request_body.parse_object(b'{"a":[%b]}' % b",".join([b"[]"] * (most - 2)))
        with pytest.raises(RequestEntityTooLarge):
            request_body.parse_object(b'{"a":[%b]}' % b",".join([b"[]"] * (most - 1)))


@pytest.mark.parametrize(("text", "content"), [("aGk=", b"hi"), ("aGk", b"hi"), ("", b"")])
def test_base64_needs_no_padding(text, content):
    assert request_body.from_base64(text) == content


@pytest.mark.parametrize("text", ["%", "a", "a=Gk", "aGk=\n"])
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(BadRequest, match="Unable to base64 decode"):
        request_body.from_base64(text)


def test_numbers_have_the_shape_of_their_lists():
    found = request_body.numbers([[1, 2.5], [3, 4]])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[1, 2.5], [3, 4]])


@pytest.mark.parametrize(
    ("nested", "error"),
    [
        ([[1], [1, 2]], ValueError),
        ([True], TypeError),
        (["1"], TypeError),
        ([None], TypeError),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(nested, error):
    with pytest.raises(error):
        request_body.numbers(nested)
