"""Training images that are not in the data: distorted digits, and backgrounds without a digit.

All are random, and the same for the same seed.
"""

import math

import tensorflow as tf

from stages.common.params import Augment

CENTRE = 13.5  # pixels; of 28, counted from 0


def transforms(count: int, limits: Augment, seed: tf.Tensor) -> tf.Tensor:
    """Draw how each of so many images is shifted, rotated, scaled and sheared.

    Args:
        limits: how far each amount may go, either way.
        seed: integer (2,).

    Returns:
        float32 (count, 8), for `distort`.
    """
    amounts = tf.random.stateless_uniform([6, count], seed, -1.0, 1.0)
    angle = amounts[0] * math.radians(limits.rotation)
    shear = tf.tan(amounts[1] * math.radians(limits.shear))
    scale_x, scale_y = 1 + amounts[2] * limits.scale, 1 + amounts[3] * limits.scale
    centre_x, centre_y = (
        CENTRE + amounts[4] * limits.shift,
        CENTRE + amounts[5] * limits.shift,
    )
    # The transform maps a place in the result to its place in the image:
    # x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2, and the shifted centre to the centre.
    a0, a1 = tf.cos(angle) / scale_x, (shear - tf.sin(angle)) / scale_x
    b0, b1 = tf.sin(angle) / scale_y, tf.cos(angle) / scale_y
    a2 = CENTRE - a0 * centre_x - a1 * centre_y
    b2 = CENTRE - b0 * centre_x - b1 * centre_y
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


def distort(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Transform each image, uint8 (N, 28, 28), by its row, float32 (N, 8); black all around."""
    distorted = tf.raw_ops.ImageProjectiveTransformV3(
        images=images[..., tf.newaxis],
        transforms=transforms,
        output_shape=tf.shape(images)[1:],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return distorted[..., 0]


def background(count: int, seed: tf.Tensor) -> tf.Tensor:
    """Draw pictures without a digit: a flat grey with more or less noise on more or less of it.

    Args:
        seed: integer (2,).

    Returns:
        uint8 (count, 28, 28).
    """
    flat, strength, density = tf.unstack(tf.random.stateless_uniform([3, count, 1, 1], seed))
    noise, place = tf.unstack(tf.random.stateless_uniform([2, count, 28, 28], seed + 1))
    # Cubed, for mostly dark pictures with a few bright ones: digits are white on black.
    grey = flat**3 + tf.where(place < density, strength * noise, 0.0)
    return tf.cast(255 * tf.minimum(grey, 1.0), tf.uint8)
