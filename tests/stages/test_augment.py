import numpy as np
import pytest
import tensorflow as tf

from stages.common.augment import background, distort, transforms
from stages.common.params import Augment

STILL = Augment(shift=0.0, rotation=0.0, scale=0.0, shear=0.0)
SEED = tf.constant([1, 2])


def augment(images, limits, seed):
    return distort(images, transforms(len(images), limits, seed))


def test_zero_limits_leave_images_unchanged(testing):
    images = testing[0][:5]
    np.testing.assert_array_equal(augment(tf.constant(images), STILL, SEED), images)


def test_distortion_depends_on_the_image_and_the_seed_alone(testing):
    images = tf.constant(np.repeat(testing[0][:1], 2, axis=0))
    limits = Augment(shift=2.0, rotation=10.0, scale=0.1, shear=10.0)
    first = augment(images, limits, SEED).numpy()
    assert first.dtype == np.uint8
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(first, augment(images, limits, SEED))
    assert (first != augment(images, limits, SEED + 1).numpy()).any()


@pytest.mark.parametrize("limit", ["shift", "rotation", "scale", "shear"])
def test_each_limit_distorts_images_slightly(testing, limit):
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
    assert np.abs(moved).max() < 2.6  # pixels that the center of mass moves


def test_shift_moves_ink_by_at_most_its_limit():
    image = np.zeros((200, 28, 28), np.uint8)
    image[:, 14, 14] = 255
    shifted = augment(tf.constant(image), STILL.model_copy(update={"shift": 2.0}), SEED).numpy()
    rows, columns = np.nonzero(shifted.any(0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 16, 12, 16)


def test_backgrounds_vary_in_brightness_and_depend_on_the_seed_alone():
    images = background(200, SEED).numpy()
    assert (images.dtype, images.shape) == (np.uint8, (200, 28, 28))
    means = images.mean((1, 2))
    assert means.min() < 10
    assert means.max() > 150
    np.testing.assert_array_equal(images, background(200, SEED))
    assert (images != background(200, SEED + 2).numpy()).any()
