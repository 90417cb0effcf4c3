import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.common import network, params
from stages.common.runner import StageError
from tests.conftest import PROJECT


@pytest.fixture(scope="module")
def chosen():
    return params.load(PROJECT / "params.yaml")


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_load_restores_a_saved_network(chosen, tmp_path, testing, kind):
    model = network.build(chosen.network.model_copy(update={"kind": kind}))
    network.save(model, tmp_path)
    images = testing[0][:10]
    np.testing.assert_array_equal(
        network.probabilities(network.load(tmp_path), images), network.probabilities(model, images)
    )


def test_load_rejects_a_damaged_network(chosen, tmp_path):
    network.save(network.build(chosen.network), tmp_path)
    file = tmp_path / network.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StageError, match="does not contain a readable network"):
        network.load(tmp_path)


def test_calibration_equates_confidence_and_accuracy_and_keeps_the_predictions(chosen, testing):
    images = testing[0]
    model = network.build(chosen.network.model_copy(update={"kind": "mlp"}))
    before = network.probabilities(model, images)
    wrong = np.arange(len(images)) % 2
    labels = (before.argmax(1) + wrong) % 10
    network.calibrate(model, images, labels)
    after = network.probabilities(model, images)
    np.testing.assert_array_equal(after.argmax(1), before.argmax(1))
    assert abs(before.max(1).mean() - 0.5) > 0.1
    assert after.max(1).mean() == pytest.approx(0.5, abs=0.01)


def test_multiply_adds_of_dense_layers(chosen):
    tiny = chosen.network.model_copy(update={"kind": "mlp"})
    tiny = tiny.model_copy(update={"mlp": params.Mlp(hidden=[3])})
    assert network.multiply_adds(network.build(tiny)) == 28 * 28 * 3 + 3 * 10


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("BatchNormalization", {"momentum": 0.95}, (9, 6, 5, 4)),
        ("Conv2D", {"filters": 3, "kernel_size": 3}, (9, 6, 5, 4)),
        ("Conv2D", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}, (9, 6, 5, 4)),
        ("Dense", {"units": 3, "activation": "relu"}, (9, 4)),
    ],
)
def test_layers_compute_the_same_as_those_of_keras(name, options, shape):
    """In training: the outputs, the updated weights and all gradients, in double precision."""
    random = np.random.default_rng(1)
    inputs = tf.constant(random.normal(3, 2, shape))
    own, of_keras = (
        getattr(module, name)(**options, dtype="float64") for module in (network, keras.layers)
    )
    of_keras.build(shape)
    of_keras.set_weights([random.uniform(0.5, 1, each.shape) for each in of_keras.get_weights()])
    own.build(shape)
    own.set_weights(of_keras.get_weights())
    factors = random.normal(size=of_keras(inputs).shape)

    def results(layer):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs * factors)
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        return [outputs, *layer.get_weights(), *gradients]

    for own_result, result in zip(results(own), results(of_keras), strict=True):
        np.testing.assert_allclose(own_result, result, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_a_folded_network_is_equal_without_batch_normalization(chosen, testing, kind):
    model = network.build(chosen.network.model_copy(update={"kind": kind}))
    random = np.random.default_rng(1)
    model.set_weights([random.uniform(-0.5, 1, value.shape) ** 2 for value in model.get_weights()])
    folded = network.fold(model)
    assert not any("normalization" in layer.name for layer in folded.layers)
    images = testing[0][:20].astype(np.float32)
    # `evidence` limits the logits, which would hide a difference of large scores.
    found, expected = (
        keras.Model(each.inputs[0], next(x for x in each.layers[::-1] if x.weights).output)(images)
        for each in (folded, model)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
