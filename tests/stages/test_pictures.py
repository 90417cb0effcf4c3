import numpy as np
import pytest
from PIL import Image

from stages import pictures

BLANK = pictures.encoded(Image.new("L", (50, 50)))


@pytest.mark.parametrize("name", ["off-center", "chalk"])
def test_variations_of_equal_images_differ_reproducibly(testing, name):
    variation = {**pictures.TUNED, **pictures.HELD_OUT}[name]
    images = testing[0][:1].repeat(2, axis=0)
    contents = pictures.files(images, variation)
    assert contents[0] != contents[1]
    assert contents == pictures.files(images, variation)


def test_rejected_picture_counts_as_an_error(testing):
    labels = testing[1][:2]
    contents = [pictures.encoded(Image.fromarray(testing[0][0])), BLANK]
    assert not pictures.preprocessed(BLANK).any()
    assert pictures.accuracy(lambda images: np.eye(10)[labels], contents, labels) == 0.5


def test_examples_show_every_variation():
    contents = dict.fromkeys(pictures.TUNED, BLANK)
    rows = -(-len(contents) // 7)
    assert pictures.examples(contents).size == (
        7 * (pictures.TILE + 8),
        rows * (2 * pictures.TILE + 30),
    )
