"""The photometric distortion of training images: each effect, its limit and its seed."""

import numpy as np
import pytest
import tensorflow as tf

from stages.common import params, photometric
from stages.common.params import Photometric
from tests.conftest import PROJECT, load_slice

IMAGES = load_slice("training")[0][:200]
SEED = tf.constant([1, 2])
LIMITS = params.load(PROJECT / "params.yaml").train.cnn.photometric
NONE = Photometric(**dict.fromkeys(Photometric.model_fields, 0.0))
EFFECTS = sorted(Photometric.model_fields.keys() - {"fraction"})


def distort(limits, images=IMAGES, seed=SEED):
    return photometric.distort(tf.constant(images), limits, seed).numpy()


def test_without_effects_images_keep_every_byte():
    np.testing.assert_array_equal(distort(NONE), IMAGES)


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_changes_some_images_and_not_all(effect):
    only = NONE.model_copy(update={effect: getattr(LIMITS, effect)})
    distorted = distort(only)
    changed = (distorted != IMAGES).any((1, 2))
    assert distorted.dtype == np.uint8
    assert 0.01 < changed.mean() < 0.9


def test_equal_seeds_give_equal_images():
    first = distort(LIMITS)
    np.testing.assert_array_equal(first, distort(LIMITS))
    assert (first != distort(LIMITS, seed=SEED + 1)).any()


def test_light_never_darkens_a_black_background():
    only = NONE.model_copy(update={"brightness": 0.5, "gradient": 0.5, "fog": 0.5})
    assert (distort(only).astype(int) - IMAGES >= -1).mean() > 0.98


def test_noise_has_the_standard_deviation_of_its_limit():
    gray = np.full((500, 28, 28), 128, np.uint8)
    deviations = distort(NONE.model_copy(update={"noise": 0.2}), gray).std((1, 2)) / 255
    assert deviations.max() == pytest.approx(0.2, rel=0.1)


def test_motion_and_displacement_keep_the_ink():
    only = NONE.model_copy(update={"motion": 3.0, "displacement": 2.0, "blur": 1.0})
    before, after = IMAGES.mean((1, 2)), distort(only).mean((1, 2))
    np.testing.assert_allclose(after, before, rtol=0.25)


def test_distortion_is_the_same_in_a_graph():
    graph = tf.function(
        lambda images, seed: photometric.distort(images, LIMITS, seed), autograph=False
    )
    np.testing.assert_array_equal(graph(tf.constant(IMAGES), SEED), distort(LIMITS))
