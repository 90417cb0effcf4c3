"""The networks.

The input of each is images, (N, 28, 28), of pixels 0 to 255; the output is logits, (N, 10). The
networks scale the pixels themselves.
"""

import bisect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from stages.common import metrics, params
from stages.common.runner import StageError

CONFIG, WEIGHTS = "network.json", "network.weights.h5"
TEMPERATURES = np.geomspace(0.1, 10, 4001, dtype=np.float32)  # steps of 0.1 %
BATCH = 1000  # images in a batch of inference


@keras.saving.register_keras_serializable("mnist")
class BatchNormalization(layers.BatchNormalization):
    """Keras' layer with a true square root and division.

    Keras multiplies by a reciprocal square root, which processors approximate, each kind in its own
    way. IEEE 754 defines every bit of a square root and of a division.

    As in Flax, the variance is the mean square minus the squared mean: this takes fewer passes over
    the images than the mean squared difference.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalize each channel of (N, height, width, channels), by the batch if in training."""
        mean, variance = self.moving_mean.value, self.moving_variance.value
        if training:
            old = self.momentum
            sums = _sums(inputs)
            count = tf.cast(tf.size(inputs) / inputs.shape[-1], sums.dtype)
            if self.synchronized:
                replica = tf.distribute.get_replica_context()
                sums, count = replica.all_reduce("SUM", [sums, count])
            batch_mean, square = tf.unstack(sums / count)
            batch_variance = tf.maximum(square - batch_mean * batch_mean, 0.0)
            self.moving_mean.assign(mean * old + batch_mean * (1 - old))
            self.moving_variance.assign(variance * old + batch_variance * (1 - old))
            mean, variance = batch_mean, batch_variance
        scale = self.gamma / tf.sqrt(variance + self.epsilon)
        return inputs * scale + (self.beta - mean * scale)


@tf.custom_gradient
def _sums(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Sum up each channel and its squares.

    TensorFlow's own gradient copies the gradient of each sum to all pixels.

    Args:
        inputs: float (N, height, width, channels).

    Returns:
        The sums, float (2, channels), and the function of their gradient.
    """
    axes = (0, 1, 2)
    sums = tf.stack([tf.reduce_sum(inputs, axes), tf.reduce_sum(inputs * inputs, axes)])

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return inputs * (2 * upstream[1]) + upstream[0]

    return sums, gradient


@keras.saving.register_keras_serializable("mnist")
class Conv2D(layers.Conv2D):
    """Keras' layer, with a faster gradient of the kernel if it has no strides and no padding.

    The gradient is a convolution, too: of the inputs and the gradient of the outputs, in which the
    images are the channels. oneDNN takes 1.6 times as long for its own gradient (AVX2, 220 images
    of 7 x 7 and 5 x 5 pixels).
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve images (N, height, width, channels)."""
        if self.strides != (1, 1) or self.padding != "valid":
            return super().convolution_op(inputs, kernel)
        return _convolve(inputs, tf.convert_to_tensor(kernel))


@tf.custom_gradient
def _convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """Convolve images as `Conv2D` describes it."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_inputs = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(inputs), 1, "VALID")
        of_kernel = tf.nn.conv2d(
            tf.transpose(inputs, (3, 1, 2, 0)), tf.transpose(upstream, (1, 2, 0, 3)), 1, "VALID"
        )
        return of_inputs, tf.transpose(of_kernel, (1, 2, 0, 3))

    return tf.nn.conv2d(inputs, kernel, 1, "VALID"), gradient


@keras.saving.register_keras_serializable("mnist")
class Dense(layers.Dense):
    """Keras' layer, computed as a convolution of 1 x 1 pixels.

    oneDNN splits a large product of matrices by the sizes of the processor's caches, and adds in
    another order at the edges. It adds up a convolution in one order.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Apply the layer to each row of (N, inputs)."""
        product = tf.nn.conv2d(inputs[:, None, None], self.kernel[None, None], 1, "VALID")
        return self.activation(product[:, 0, 0] + self.bias)


@keras.saving.register_keras_serializable("mnist")
def evidence(scores: tf.Tensor) -> tf.Tensor:
    """Convert the scores of the ten labels and of "no digit" to the logits of the labels.

    The softmax of the eleven scores is a probability for each label and one for "no digit". This
    function divides the latter evenly among the labels, so that an image without a digit has about
    the same probability for each label: log(exp(s_i) + exp(s_n) / 10) for the scores s_i of a label
    and s_n of "no digit", minus s_n - log(10), which does not change the softmax. The network
    learns "no digit" as it learns a label. With ten scores only, it would have to learn to keep all
    of them low on such an image.

    Args:
        scores: float (N, 11). The last score is for "no digit".

    Returns:
        float (N, 10).
    """
    margins = scores[:, :-1] - scores[:, -1:] + math.log(10)
    # As of version 2.3, LiteRT computes log(exp(x) + 1) as it stands, and exp(89) overflows.
    return tf.nn.softplus(tf.minimum(margins, 80.0))


def build(network: params.Network) -> keras.Model:
    """Build the network that `network.kind` names, with weights from Keras' global seed."""
    body = cnn(network.cnn) if network.kind == "cnn" else mlp(network.mlp)
    return keras.Sequential(
        [layers.Input((28, 28)), layers.Rescaling(1 / 255), *body], name=network.kind
    )


def cnn(cnn: params.Cnn) -> list[keras.Layer]:
    """Return four convolutions with batch normalization, a maximum per filter, and a dense layer.

    The last activation is `evidence`.
    """
    first, second, third, fourth = cnn.filters
    return [
        layers.Reshape((28, 28, 1)),
        *_convolution(first, 5, strides=2, padding="same"),  # (14, 14)
        *_convolution(second, 3, strides=2, padding="same"),  # (7, 7)
        *_convolution(third, 3, padding="valid"),  # (5, 5)
        *_convolution(fourth, 3, padding="valid"),  # (3, 3)
        layers.GlobalMaxPooling2D(),
        Dense(11),
        layers.Activation(evidence),
    ]


def mlp(mlp: params.Mlp) -> list[keras.Layer]:
    """Return the fully connected layers of the original design, here with He initialization.

    The initialization is from He et al., "Delving Deep into Rectifiers", 2015.
    """
    hidden = [Dense(units, "relu", kernel_initializer="he_normal") for units in mlp.hidden]
    return [layers.Flatten(), *hidden, Dense(10)]


def probabilities(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Compute the probability of each label.

    Args:
        network: A network of this module.
        images: uint8 (N, 28, 28).

    Returns:
        float32 (N, 10).
    """
    return _softmax(_logits(network, images))


def _logits(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Compute the logits in batches, float32 (N, 10)."""
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([network(batch.astype(np.float32)).numpy() for batch in batches])


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax with a true division; `tf.nn.softmax` multiplies by a reciprocal.

    Processors approximate reciprocals, each kind in its own way.

    Args:
        logits: float32 (N, 10).

    Returns:
        float32 (N, 10).
    """
    exponentials = tf.exp(logits - logits.max(1, keepdims=True))
    return (exponentials / tf.reduce_sum(exponentials, 1, keepdims=True)).numpy()


def calibrate(network: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Scale the logits so that confidence matches accuracy; the predictions do not change.

    This is temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017). It
    divides the logits by a temperature. This function divides the weights of the last dense layer
    instead. In the cnn, it thereby divides the eleven scores before `evidence`.

    The temperature is that of Clarte et al., "Expectation Consistency for Calibration of Neural
    Networks", 2023: the mean confidence equals the accuracy on images that the training did not
    use. On MNIST-C and on the held-back handwriting, its calibration error was lower than that of
    the temperature with the lowest cross-entropy.

    Args:
        network: A network of this module. Its last dense layer changes.
        images: Images that the training did not use, uint8 (N, 28, 28).
        labels: The labels of the images, uint8 (N,).
    """
    *_, last = (layer for layer in network.layers if isinstance(layer, Dense))
    outputs = _logits(keras.Model(network.inputs[0], last.output), images)

    def scaled(temperature: np.float32) -> np.ndarray:
        """Return the probabilities with this temperature, float32 (N, 10)."""
        logits = outputs / temperature
        for layer in network.layers[network.layers.index(last) + 1 :]:
            logits = layer(logits).numpy()
        return _softmax(logits)

    def doubt(temperature: np.float32) -> float:
        """Return 1 minus the mean confidence. It rises with the temperature."""
        return 1 - scaled(temperature).max(1).mean(dtype=float)

    accuracy = metrics.accuracy(scaled(np.float32(1)), labels)  # equal at each temperature
    first = bisect.bisect_left(TEMPERATURES, 1 - accuracy, key=doubt)
    best = TEMPERATURES[min(first, len(TEMPERATURES) - 1)]
    last.set_weights([weight / best for weight in last.get_weights()])


def fold(network: keras.Model) -> keras.Model:
    """Return an equal network without batch normalization.

    After training, batch normalization multiplies and adds constants, which become part of the
    weights of the convolution before it. LiteRT's converter would do the same, but with an
    approximate reciprocal square root.

    Args:
        network: A network of this module. It does not change.
    """
    kept: list[keras.Layer] = []
    weights: list[list[np.ndarray]] = []
    for layer in network.layers:
        if isinstance(layer, BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            scale = gamma / np.sqrt(variance + np.float32(layer.epsilon))
            kept[-1] = layers.Conv2D.from_config(kept[-1].get_config() | {"use_bias": True})
            weights[-1] = [weights[-1][0] * scale, beta - mean * scale]
        else:
            kept.append(type(layer).from_config(layer.get_config()))
            weights.append(layer.get_weights())
    folded = keras.Sequential([layers.Input((28, 28)), *kept], name=network.name)
    for layer, values in zip(folded.layers, weights, strict=True):
        layer.set_weights(values)
    return folded


def multiply_adds(network: keras.Model) -> int:
    """Count the multiply-add operations of the convolutions and dense layers for one image."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            height, width = layer.output.shape[1:3]
            total += height * width * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, layers.Dense):
            total += int(np.prod(layer.kernel.shape))
    return total


def save(network: keras.Model, folder: Path) -> None:
    """Write the architecture and the weights to a folder; equal networks give equal bytes."""
    (folder / CONFIG).write_text(network.to_json(indent=2) + "\n")
    network.save_weights(folder / WEIGHTS)


def load(folder: Path) -> keras.Model:
    """Read a network that `save` wrote.

    Raises:
        StageError: A file is missing or damaged, or the files do not match.
    """
    try:
        network = keras.models.model_from_json((folder / CONFIG).read_text())
        network.load_weights(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StageError(
            f"{folder} does not contain a readable network ({error}); run `dvc repro train`"
        ) from error
    return network


def _convolution(filters: int, size: int, **options: object) -> list[keras.Layer]:
    return [
        Conv2D(filters, size, use_bias=False, **options),
        # With Keras' default momentum of 0.99, the statistics of the first steps would persist too
        # long for a run of minutes.
        BatchNormalization(momentum=0.95),
        layers.ReLU(),
    ]
