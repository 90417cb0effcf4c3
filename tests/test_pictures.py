"""Pictures as people send them: stages/pictures.py makes them, service/pictures.py decodes them."""

import numpy as np
import pytest
from flask import Flask
from PIL import Image
from werkzeug.exceptions import RequestEntityTooLarge, ServiceUnavailable

from service import images, log, pictures
from service.limits import CONFIG, Limits
from stages import pictures as made

BLANK = made.encoded(Image.new("L", (50, 50)))


@pytest.fixture
def limited():
    """A request to an application with low limits, which began now or some seconds ago."""
    application = Flask(__name__)
    application.config[CONFIG] = Limits(images=2, pixels=28 * 28, seconds=5)

    def context(ago=0.0):
        request = application.test_request_context()
        log.begin(request.request.environ)
        request.request.environ[log.ARRIVED] -= ago
        return request

    return context


@pytest.fixture
def contents(png_files):
    return [file.read_bytes() for file in png_files[:3]]


def test_pictures_are_decoded_in_order(limited, contents, testing):
    with limited():
        decoded = pictures.decode_all(images.decode, contents[:2])
    np.testing.assert_array_equal(decoded, testing[0][:2])


def test_the_bad_one_of_several_is_named(limited, contents):
    with limited():
        with pytest.raises(
            images.ImageError, match=r"^Image 2 \(b.png\): The file is not an image"
        ):
            pictures.decode_all(images.decode, [contents[0], b"x"], ["a.png", "b.png"])
        with pytest.raises(images.ImageError, match=r"^The file is not an image"):
            pictures.decode_all(images.decode, [b"x"], ["a.png"])


def test_too_many_and_too_large_pictures_are_refused(limited, contents):
    with limited():
        with pytest.raises(RequestEntityTooLarge, match="3 images; the most is 2"):
            pictures.decode_all(images.decode, contents)
        with pytest.raises(RequestEntityTooLarge, match="3 images; the most is 2"):
            pictures.from_array(np.zeros((3, 28, 28)))
        with pytest.raises(images.ImageError, match="the most is 784"):
            pictures.decode_all(images.decode, [BLANK])


def test_the_rest_is_not_decoded_once_the_time_is_over(limited, contents):
    with limited(ago=6), pytest.raises(ServiceUnavailable, match="longer than 5 seconds"):
        pictures.decode_all(images.decode, contents[:2])


@pytest.mark.parametrize("name", ["off-centre", "chalk"])
def test_the_variations_of_an_image_differ_and_repeat(testing, name):
    variation = {**made.TUNED, **made.HELD_OUT}[name]
    sent = made.files(testing[0][:1].repeat(2, axis=0), variation)
    assert sent[0] != sent[1]
    assert sent == made.files(testing[0][:1].repeat(2, axis=0), variation)


def test_a_picture_that_is_refused_counts_as_misread(testing):
    labels = testing[1][:2]
    sent = [made.encoded(Image.fromarray(testing[0][0])), BLANK]
    assert not made.seen_of(BLANK).any()
    assert made.accuracy(lambda seen: np.eye(10)[labels], sent, labels) == 0.5


def test_the_examples_show_every_variation(testing):
    sent = dict.fromkeys(made.TUNED, BLANK)
    rows = -(-len(sent) // 7)
    assert made.examples(sent).size == (7 * (made.TILE + 8), rows * (2 * made.TILE + 30))
