import numpy as np
import pytest
import tensorflow as tf

from stages.common.augment import background, distort, transforms
from stages.common.params import Augment

STILL = Augment(shift=0.0, rotation=0.0, scale=0.0, shear=0.0)
SEED = tf.constant([1, 2])


def augment(images, limits, seed):
    return distort(images, transforms(len(images), limits, seed))


def test_no_distortion_leaves_the_images_as_they_are(testing):
    images = testing[0][:5]
    np.testing.assert_array_equal(augment(tf.constant(images), STILL, SEED), images)


def test_distortion_differs_by_image_and_by_seed_and_repeats_with_the_seed(testing):
    images = tf.constant(np.repeat(testing[0][:1], 2, axis=0))
    limits = Augment(shift=2.0, rotation=10.0, scale=0.1, shear=10.0)
    first = augment(images, limits, SEED).numpy()
    assert first.dtype == np.uint8
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(first, augment(images, limits, SEED))
    assert (first != augment(images, limits, SEED + 1).numpy()).any()


@pytest.mark.parametrize("limit", ["shift", "rotation", "scale", "shear"])
def test_each_distortion_is_small_and_does_something(testing, limit):
    image = testing[0][:1].repeat(50, axis=0)
    amount = {"shift": 2.0, "rotation": 10.0, "scale": 0.1, "shear": 10.0}[limit]
    limits = STILL.model_copy(update={limit: amount})
    distorted = augment(tf.constant(image), limits, SEED).numpy().astype(float)
    rows, columns = np.mgrid[:28, :28]
    ink = distorted.sum((1, 2))
    moved = [
        (distorted * place).sum((1, 2)) / ink - (image[0] * place).sum() / image[0].sum()
        for place in (rows, columns)
    ]
    assert (distorted != image).any()
    assert np.abs(moved).max() < 2.6  # pixels, of the centre of mass


def test_a_shift_moves_the_ink_by_at_most_that_much():
    image = np.zeros((200, 28, 28), np.uint8)
    image[:, 14, 14] = 255
    shifted = augment(tf.constant(image), STILL.model_copy(update={"shift": 2.0}), SEED).numpy()
    rows, columns = np.nonzero(shifted.any(0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 16, 12, 16)


def test_pictures_of_nothing_are_dark_and_bright_and_repeat_with_the_seed():
    pictures = background(200, SEED).numpy()
    assert (pictures.dtype, pictures.shape) == (np.uint8, (200, 28, 28))
    means = pictures.mean((1, 2))
    assert means.min() < 10
    assert means.max() > 150
    np.testing.assert_array_equal(pictures, background(200, SEED))
    assert (pictures != background(200, SEED + 2).numpy()).any()
