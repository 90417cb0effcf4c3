from service.quiet import tf

import keras
import numpy as np
import pytest

from stages import network, params
from stages.augment import distort, transforms
from stages.params import Augment
from stages.stage import StageError
from stages.train import train
from tests.conftest import PROJECT

STILL = Augment(shift=0.0, rotation=0.0, scale=0.0, shear=0.0)
SEED = tf.constant([1, 2])


@pytest.fixture(scope="module")
def chosen():
    return params.load(PROJECT / "params.yaml")


def augment(images, limits, seed):
    return distort(images, transforms(len(images), limits, seed))


def digits(testing, count):
    images, labels = testing
    return images[:count], labels[:count]


def fit(chosen, kind, split, epochs=1, **changes):
    keras.utils.set_random_seed(1)
    recipe = getattr(chosen.train, kind).model_copy(update={"batch_size": 20, **changes})
    model = network.build(chosen.network.model_copy(update={"kind": kind}))
    history: list[dict[str, float]] = []
    trained = train(model, split, split, recipe, epochs, 1, history.append)
    return trained, history


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_the_loss_falls_and_every_epoch_is_told(chosen, testing, kind):
    _, history = fit(chosen, kind, digits(testing, 200), epochs=8, averaging=0.5)
    assert len(history) == 8
    assert set(history[0]) == {
        "train/loss", "train/accuracy", "validation/loss", "validation/accuracy",
    }  # fmt: skip
    assert history[7]["train/loss"] < history[0]["train/loss"]
    assert history[7]["validation/accuracy"] > 0.5


def test_one_step_moves_every_weight(chosen, testing):
    keras.utils.set_random_seed(1)
    before = network.build(chosen.network).get_weights()
    after, _ = fit(chosen, "cnn", digits(testing, 20), warmup=0.0)
    assert all((a != b).any() for a, b in zip(before, after.get_weights(), strict=True))


def test_the_last_images_that_fill_no_batch_are_left_out_of_an_epoch(chosen, testing):
    _, history = fit(chosen, "mlp", digits(testing, 39))
    hits = history[0]["train/accuracy"] * 20
    assert hits == pytest.approx(round(hits))


def test_fewer_images_than_a_batch_are_refused(chosen, testing):
    with pytest.raises(StageError, match="batch_size is 20, but there are 19 images"):
        fit(chosen, "mlp", digits(testing, 19))


def test_a_loss_that_is_no_number_ends_the_run(chosen, testing):
    with pytest.raises(StageError, match="lower the learning_rate"):
        fit(chosen, "mlp", digits(testing, 100), epochs=3, learning_rate=1e30)


def test_without_averaging_the_model_is_the_trained_one(chosen, testing):
    keras.utils.set_random_seed(1)
    model = network.build(chosen.network.model_copy(update={"kind": "mlp"}))
    recipe = chosen.train.mlp.model_copy(update={"batch_size": 20})
    split = digits(testing, 40)
    average = train(model, split, split, recipe, 1, 1, lambda figures: None)
    for mean, value in zip(average.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mean, value, rtol=1e-6, atol=1e-7)


def test_no_distortion_leaves_the_images_as_they_are(testing):
    images, _ = digits(testing, 5)
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


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_a_network_is_saved_and_read_back(chosen, tmp_path, testing, kind):
    model = network.build(chosen.network.model_copy(update={"kind": kind}))
    network.save(model, tmp_path)
    images, _ = digits(testing, 10)
    np.testing.assert_array_equal(
        network.probabilities(network.load(tmp_path), images), network.probabilities(model, images)
    )


def test_a_damaged_network_is_refused(chosen, tmp_path):
    network.save(network.build(chosen.network), tmp_path)
    file = tmp_path / network.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StageError, match="holds no readable network"):
        network.load(tmp_path)
