"""`service.api.uploads` decodes the pictures of a request in order and within its limits."""

import numpy as np
import pytest
from flask import Flask
from PIL import Image
from werkzeug.exceptions import RequestEntityTooLarge, ServiceUnavailable

from service import access_log
from service.api import uploads
from service.api.limits import CONFIG, Limits
from service.recognition import images
from stages import pictures

BLANK = pictures.encoded(Image.new("L", (50, 50)))


@pytest.fixture
def limited():
    """Return a function that creates a request, which began `ago` seconds ago, with low limits."""
    application = Flask(__name__)
    application.config[CONFIG] = Limits(images=2, pixels=28 * 28, seconds=5)

    def create(ago=0.0):
        context = application.test_request_context()
        access_log.begin(context.request.environ)
        context.request.environ[access_log.ARRIVED] -= ago
        return context

    return create


@pytest.fixture
def contents(png_files):
    return [file.read_bytes() for file in png_files[:3]]


def test_pictures_are_decoded_in_order(limited, contents, testing):
    with limited():
        decoded = uploads.decode_all(images.decode, contents[:2])
    np.testing.assert_array_equal(decoded, testing[0][:2])


def test_the_error_names_the_invalid_picture_of_several(limited, contents):
    with limited():
        with pytest.raises(
            images.ImageError, match=r"^Picture 2 \(b.png\): The file is not a picture"
        ):
            uploads.decode_all(images.decode, [contents[0], b"x"], ["a.png", "b.png"])
        with pytest.raises(images.ImageError, match=r"^The file is not a picture"):
            uploads.decode_all(images.decode, [b"x"], ["a.png"])


def test_too_many_and_too_large_pictures_are_rejected(limited, contents):
    with limited():
        with pytest.raises(RequestEntityTooLarge, match="3 images; the limit is 2"):
            uploads.decode_all(images.decode, contents)
        with pytest.raises(RequestEntityTooLarge, match="3 images; the limit is 2"):
            uploads.from_array(np.zeros((3, 28, 28)))
        with pytest.raises(images.ImageError, match="the limit is 784"):
            uploads.decode_all(images.decode, [BLANK])


def test_decoding_stops_when_the_time_is_over(limited, contents):
    with limited(ago=6), pytest.raises(ServiceUnavailable, match="longer than 5 seconds"):
        uploads.decode_all(images.decode, contents[:2])
