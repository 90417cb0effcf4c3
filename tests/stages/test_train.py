import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.common import idx, network, params
from stages.common.runner import StageError
from stages.train import _batches, _compare, _cross_entropy, _mix, _order, train
from tests.conftest import PROJECT


@pytest.fixture(scope="module")
def chosen():
    return params.load(PROJECT / "params.yaml")


def with_photometric(chosen, fraction):
    """Return the recipe of the CNN with another fraction of photometric distortion.

    The graph of this distortion takes seconds to build; with the fraction 0, there is none.
    """
    recipe = chosen.train.cnn
    photometric = recipe.photometric.model_copy(update={"fraction": fraction})
    return recipe.model_copy(update={"photometric": photometric})


@pytest.fixture(scope="module")
def plain(chosen):
    """The recipe of the CNN without photometric distortion."""
    return with_photometric(chosen, 0.0)


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
def test_loss_falls_and_each_epoch_reports_figures(chosen, testing, kind):
    _, history = fit(chosen, kind, digits(testing, 200), epochs=8, ema_decay=0.5)
    assert len(history) == 8
    assert set(history[0]) == {
        "train/loss", "train/accuracy", "validation/loss", "validation/accuracy",
    }  # fmt: skip
    assert history[7]["train/loss"] < history[0]["train/loss"]
    assert history[7]["validation/accuracy"] > 0.5


def test_one_step_changes_every_weight(chosen, plain, testing):
    keras.utils.set_random_seed(1)
    before = network.build(chosen.network).get_weights()
    changes = {"warmup_fraction": 0.0, "photometric": plain.photometric}
    after, _ = fit(chosen, "cnn", digits(testing, 20), **changes)
    assert all((a != b).any() for a, b in zip(before, after.get_weights(), strict=True))


def test_images_that_do_not_fill_a_batch_are_left_out(chosen, testing):
    _, history = fit(chosen, "mlp", digits(testing, 39))
    hits = history[0]["train/accuracy"] * 20
    assert hits == pytest.approx(round(hits))


def test_too_few_images_for_a_batch_are_an_error(chosen, testing):
    with pytest.raises(StageError, match=r"batch_size is 20, .* there are only 19; lower it"):
        fit(chosen, "mlp", digits(testing, 19))


def test_batch_without_a_place_for_the_images_of_the_split_is_an_error(chosen, testing):
    split = digits(testing, 20)
    recipe = chosen.train.cnn.model_copy(update={"batch_size": 2, "handwriting_fraction": 0.9})
    with pytest.raises(StageError, match="handwriting_fraction and drawn_digit_fraction leave no"):
        _mix(split, split, idx.NONE, idx.NONE[0], recipe, 1, 1)


def test_loss_that_is_not_finite_ends_the_run(chosen, testing):
    with pytest.raises(StageError, match="lower the learning_rate"):
        fit(chosen, "mlp", digits(testing, 100), epochs=3, learning_rate=1e30)


def test_average_without_decay_equals_the_model(chosen, testing):
    keras.utils.set_random_seed(1)
    model = network.build(chosen.network.model_copy(update={"kind": "mlp"}))
    recipe = chosen.train.mlp.model_copy(update={"batch_size": 20})
    split = digits(testing, 40)
    average = train(model, split, split, recipe, 1, 1, lambda figures: None)
    for mean, value in zip(average.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mean, value, rtol=1e-6, atol=1e-7)


def test_each_kind_of_image_has_its_share_of_each_step():
    order = _order([50, 7, 9], [8, 3, 2], 12, seed=1)
    assert order.shape == (12, 13)
    for kind, (first, last) in enumerate([(0, 50), (50, 57), (57, 66)]):
        counts = ((order >= first) & (order < last)).sum(1)
        assert set(counts.tolist()) == {[8, 3, 2][kind]}


def test_every_image_is_used_equally_often_in_a_new_order():
    order = _order([20], [5], 8, seed=1)
    first, second = order[:4].ravel(), order[4:].ravel()
    assert sorted(first) == sorted(second) == [*range(20)]
    assert (first != second).any()


def test_kinds_without_images_have_no_share(chosen, testing):
    recipe, split = chosen.train.cnn, digits(testing, 250)
    others = round(recipe.batch_size * recipe.handwriting_fraction)
    drawn = round(recipe.batch_size * recipe.drawn_digit_fraction)
    without = round(recipe.batch_size * recipe.non_digit_fraction)
    alone = _mix(split, idx.NONE, idx.NONE, idx.NONE[0], recipe, 1, 1).order
    mixed = _mix(split, split, split, split[0], recipe, 1, 1).order
    assert alone.shape[1] == recipe.batch_size
    assert ((mixed >= 250) & (mixed < 500)).sum(1).tolist() == [others]
    assert ((mixed >= 500) & (mixed < 750)).sum(1).tolist() == [drawn]
    assert (mixed >= 750).sum(1).tolist() == [without]
    assert mixed.shape[1] == recipe.batch_size + without


@pytest.mark.parametrize(("replicas", "fraction"), [(2, 0.0), (3, 0.25)])
def test_replicas_share_the_batch_of_a_single_one(chosen, testing, replicas, fraction):
    """Two replicas divide the 39 images and the background image evenly, and three do not."""
    recipe = with_photometric(chosen, fraction).model_copy(update={"batch_size": 39})
    mixture = _mix(digits(testing, 100), idx.NONE, idx.NONE, idx.NONE[0], recipe, 1, 1)

    def batches(count, worker):
        context = tf.distribute.InputContext(count, worker, count)
        return [*_batches(mixture, recipe, 1, 0, context).as_numpy_iterator()]

    parts = [batches(replicas, worker) for worker in range(replicas)]
    for step, (pixels, targets) in enumerate(batches(1, 0)):
        shares = [part[step] for part in parts]
        np.testing.assert_array_equal(np.concatenate([share[0] for share in shares]), pixels)
        np.testing.assert_array_equal(np.concatenate([share[1] for share in shares]), targets)


def test_other_handwriting_and_images_without_a_digit_are_learned(chosen, plain, testing):
    """All zeros are labeled 1 in the other handwriting, and MNIST's ones are not digits."""
    images, labels = testing
    zeros, ones = images[labels == 0], images[labels == 1]
    keras.utils.set_random_seed(1)
    recipe = plain.model_copy(
        update={
            "batch_size": 20,
            "ema_decay": 0.5,
            "handwriting_fraction": 0.3,
            "non_digit_fraction": 0.3,
        }
    )
    rest = labels > 1
    average = train(
        network.build(chosen.network),
        (images[rest][:200], labels[rest][:200]),
        (images[rest], labels[rest]),
        recipe,
        8,
        1,
        lambda figures: None,
        handwriting=(zeros, np.ones(len(zeros), np.uint8)),
        non_digits=ones,
    )
    assert (network.probabilities(average, zeros).argmax(1) == 1).mean() > 0.8
    assert (network.probabilities(average, ones).max(1) < 0.5).mean() > 0.8


def test_a_machine_of_another_class_is_reported(tmp_path, capsys):
    card = tmp_path / "model_card.md"
    _compare("x86_64, CPU", card)
    for text in ("# Model card of version 0.2.0\n", "# Model card\n\nTrained on: x86_64, CPU\n"):
        card.write_text(text)
        _compare("x86_64, CPU", card)
    assert capsys.readouterr().out == ""
    _compare("aarch64, CPU", card)
    output = capsys.readouterr().out
    assert output.startswith(
        "this machine (aarch64, CPU) is of another class than the one that wrote dvc.lock "
        "(x86_64, CPU), so "
    )
    assert output.count("\n") == 1


def test_the_cross_entropy_and_its_gradient_equal_tensorflows():
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(0, 5, (20, 10)).astype(np.float32))
    targets = tf.nn.softmax(random.normal(size=(20, 10)).astype(np.float32))
    values = []
    for function in (
        lambda: _cross_entropy(logits, targets),
        lambda: tf.nn.softmax_cross_entropy_with_logits(targets, logits),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = function()
            loss = tf.reduce_sum(losses**2)
        values.append((losses.numpy(), tape.gradient(loss, logits).numpy()))
    for ours, tensorflows in zip(*values, strict=True):
        np.testing.assert_allclose(ours, tensorflows, rtol=1e-4, atol=1e-5)
