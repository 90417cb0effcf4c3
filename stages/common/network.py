"""The networks: (N, 28, 28) pixels of 0 to 255 in, ten logits out, all scaling inside."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from stages.common import metrics, params
from stages.common.runner import StageError

CONFIG, WEIGHTS = "network.json", "network.weights.h5"
TEMPERATURES = np.geomspace(0.1, 10, 401, dtype=np.float32)
BATCH = 1000  # images at once where nothing is learnt


def build(network: params.Network) -> keras.Model:
    """Build the chosen kind of network with fresh weights from Keras' global seed."""
    body = cnn(network.cnn) if network.kind == "cnn" else mlp(network.mlp)
    return keras.Sequential(
        [layers.Input((28, 28)), layers.Rescaling(1 / 255), *body, layers.Dense(10)],
        name=network.kind,
    )


def cnn(cnn: params.Cnn) -> list[keras.Layer]:
    """Four convolutions, each with batch normalisation, and one maximum per filter."""
    first, second, third, fourth = cnn.filters
    return [
        layers.Reshape((28, 28, 1)),
        *_convolution(first, 5, strides=2, padding="same"),  # (14, 14)
        *_convolution(second, 3, strides=2, padding="same"),  # (7, 7)
        *_convolution(third, 3, padding="same"),  # (7, 7)
        *_convolution(fourth, 3, padding="valid"),  # (5, 5)
        layers.GlobalMaxPooling2D(),
    ]


def mlp(mlp: params.Mlp) -> list[keras.Layer]:
    """The original design: fully connected layers, here with He's initial weights."""
    hidden = [layers.Dense(units, "relu", kernel_initializer="he_normal") for units in mlp.hidden]
    return [layers.Flatten(), *hidden]


def probabilities(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Classify images, uint8 (N, 28, 28): the probability of each label, float32 (N, 10)."""
    logits = network.predict(images, batch_size=BATCH, verbose=0)
    return tf.nn.softmax(logits).numpy()


def calibrate(network: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Scale the logits so that confidence matches accuracy; no answer changes.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017): divide by
    the one number that minimises the cross-entropy on images that were not trained on. Here the
    weights of the last layer take it in.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
    """
    logits = network.predict(images, batch_size=BATCH, verbose=0)
    losses = [
        metrics.cross_entropy(tf.nn.softmax(logits / temperature).numpy(), labels)
        for temperature in TEMPERATURES
    ]
    best = TEMPERATURES[int(np.argmin(losses))]
    last = network.layers[-1]
    last.set_weights([weight / best for weight in last.get_weights()])


def multiply_adds(network: keras.Model) -> int:
    """Count the multiplications, each with its addition, that one image takes."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            height, width = layer.output.shape[1:3]
            total += height * width * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, layers.Dense):
            total += int(np.prod(layer.kernel.shape))
    return total


def save(network: keras.Model, folder: Path) -> None:
    """Write architecture and weights; equal networks give equal bytes."""
    (folder / CONFIG).write_text(network.to_json(indent=2) + "\n")
    network.save_weights(folder / WEIGHTS)


def load(folder: Path) -> keras.Model:
    """Read what `save` wrote.

    Raises:
        StageError: the files are not there or do not fit each other.
    """
    try:
        network = keras.models.model_from_json((folder / CONFIG).read_text())
        network.load_weights(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StageError(
            f"{folder} holds no readable network ({error}); run `dvc repro train`"
        ) from error
    return network


def _convolution(filters: int, size: int, **options: object) -> list[keras.Layer]:
    return [
        layers.Conv2D(filters, size, use_bias=False, **options),
        # Keras' default of 0.99 forgets the first steps too slowly for a run of minutes.
        layers.BatchNormalization(momentum=0.95),
        layers.ReLU(),
    ]
