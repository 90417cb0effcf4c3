"""Data augmentation: distorted digits, and background images without a digit.

`transforms` and `background` are random; equal seeds give equal results.
"""

import math

import tensorflow as tf

from stages.common.params import Augment

CENTER = 13.5  # pixels: the center of 28 pixels, counted from 0


def transforms(count: int, limits: Augment, seed: tf.Tensor) -> tf.Tensor:
    """Draw a random shift, rotation, scale and shear for each image.

    Args:
        count: The number of images.
        limits: The largest amount of each distortion, in either direction.
        seed: An integer tensor (2,).

    Returns:
        The coefficients for `distort`, float32 (count, 8).
    """
    amounts = tf.random.stateless_uniform([6, count], seed, -1.0, 1.0)
    angle = amounts[0] * math.radians(limits.rotation)
    shear = tf.tan(amounts[1] * math.radians(limits.shear))
    scale_x, scale_y = 1 + amounts[2] * limits.scale, 1 + amounts[3] * limits.scale
    center_x, center_y = (
        CENTER + amounts[4] * limits.shift,
        CENTER + amounts[5] * limits.shift,
    )
    # The transform maps a point of the result to a point of the image:
    # x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2. It maps the shifted center to the center.
    a0, a1 = tf.cos(angle) / scale_x, (shear - tf.sin(angle)) / scale_x
    b0, b1 = tf.sin(angle) / scale_y, tf.cos(angle) / scale_y
    a2 = CENTER - a0 * center_x - a1 * center_y
    b2 = CENTER - b0 * center_x - b1 * center_y
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


def distort(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Apply a projective transform to each image; points outside an image are black.

    Args:
        images: uint8 (N, 28, 28).
        transforms: The coefficients of each image, float32 (N, 8), as the function `transforms`
            returns them.

    Returns:
        The distorted images, uint8 (N, 28, 28).
    """
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
    """Draw images without a digit: a flat gray with noise of random strength and density.

    Args:
        count: The number of images.
        seed: An integer tensor (2,).

    Returns:
        uint8 (count, 28, 28).
    """
    flat, strength, density = tf.unstack(tf.random.stateless_uniform([3, count, 1, 1], seed))
    noise, place = tf.unstack(tf.random.stateless_uniform([2, count, 28, 28], seed + 1))
    # The cube makes most images dark and a few bright, because digits are white on black.
    gray = flat**3 + tf.where(place < density, strength * noise, 0.0)
    return tf.cast(255 * tf.minimum(gray, 1.0), tf.uint8)
