"""Pictures as people send them, made of test images."""

import numpy as np
import pytest
from PIL import Image

from stages import pictures as made

BLANK = made.encoded(Image.new("L", (50, 50)))


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
