import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.common import network, params
from stages.common.runner import StageError
from stages.train import _compare, _cross_entropy, train
from tests.conftest import PROJECT


@pytest.fixture(scope="module")
def chosen():
    return params.load(PROJECT / "params.yaml")


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


def test_one_step_changes_every_weight(chosen, testing):
    keras.utils.set_random_seed(1)
    before = network.build(chosen.network).get_weights()
    after, _ = fit(chosen, "cnn", digits(testing, 20), warmup_fraction=0.0)
    assert all((a != b).any() for a, b in zip(before, after.get_weights(), strict=True))


def test_images_that_do_not_fill_a_batch_are_left_out(chosen, testing):
    _, history = fit(chosen, "mlp", digits(testing, 39))
    hits = history[0]["train/accuracy"] * 20
    assert hits == pytest.approx(round(hits))


def test_too_few_images_for_a_batch_are_an_error(chosen, testing):
    with pytest.raises(StageError, match="batch_size is 20, but there are 19 images"):
        fit(chosen, "mlp", digits(testing, 19))


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
