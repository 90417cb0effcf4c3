"""Photometric distortion of training images: other pens, papers and cameras, dirt and damage.

Each effect acts on a random part of the images with a random strength; equal seeds give equal
results. The values are real numbers from 0 to 1 until the end. The module uses no function that
processors approximate, such as the reciprocal.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from stages.common.params import Photometric

SIDE = 28  # pixels
# Coordinates of the pixels, from the center of the image.
CENTER = (SIDE - 1) / 2
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32) - CENTER


class Random:
    """Random numbers from 0 to 1 for `count` images."""

    def __init__(self, count: int, seed: tf.Tensor) -> None:
        self._count, self._seed = count, tf.cast(seed, tf.int64)

    def image(self) -> tf.Tensor:
        """Draw one number for each image, float32 (N, 1, 1)."""
        return self._draw(1, 1)

    def signed(self) -> tf.Tensor:
        """Draw one number from -1 to 1 for each image, float32 (N, 1, 1)."""
        return 2 * self._draw(1, 1) - 1

    def pixel(self) -> tf.Tensor:
        """Draw one number for each pixel, float32 (N, 28, 28)."""
        return self._draw(SIDE, SIDE)

    def field(self, cells: int) -> tf.Tensor:
        """Draw numbers for a grid of `cells`, and interpolate them: float32 (N, 28, 28)."""
        coarse = self._draw(cells, cells)[..., tf.newaxis]
        return tf.image.resize(coarse, (SIDE, SIDE))[..., 0]

    def some(self, share: float, limit: float) -> tf.Tensor:
        """Draw 0 for most images, and a number from 0 to `limit` for a share of them."""
        return tf.maximum(self.image() - (1 - share), 0.0) * (limit / share)

    def _draw(self, *shape: int) -> tf.Tensor:
        self._seed += tf.constant([0, 1 << 20], tf.int64)
        return tf.random.stateless_uniform([self._count, *shape], self._seed)


def distort(images: tf.Tensor, limits: Photometric, seed: tf.Tensor) -> tf.Tensor:
    """Distort images.

    Args:
        images: uint8 (N, 28, 28), white ink on black.
        limits: The largest amount of each effect.
        seed: An integer tensor (2,).

    Returns:
        uint8 (N, 28, 28).
    """
    random = Random(images.shape[0], seed)
    x = tf.cast(images, tf.float32) * (1 / 255)
    for effect in (_hand, _pen, _optics, _motion, _line, _damage, _light, _noise):
        x = effect(x, random, limits)
    return tf.cast(tf.round(255 * tf.clip_by_value(x, 0.0, 1.0)), tf.uint8)


def _hand(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Bend strokes as another hand would.

    This is the elastic distortion of Simard, Steinkraus and Platt, "Best Practices for
    Convolutional Neural Networks Applied to Visual Document Analysis", 2003, with a field of
    displacements that is interpolated instead of smoothed.
    """
    reach = random.some(0.7, limits.bend)
    rows = ROWS + CENTER + reach * (2 * random.field(4) - 1)
    columns = COLUMNS + CENTER + reach * (2 * random.field(4) - 1)
    above, left = tf.floor(rows), tf.floor(columns)
    down, right = rows - above, columns - left
    upper = _pixels(x, above, left) * (1 - right) + _pixels(x, above, left + 1) * right
    lower = _pixels(x, above + 1, left) * (1 - right) + _pixels(x, above + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def _pen(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Make strokes thicker or thinner, or replace them by their outlines."""
    thick, thin = _neighbors(x, tf.maximum), _neighbors(x, tf.minimum)
    outline = tf.clip_by_value(3 * (thick - thin) - 1, 0.0, 1.0)
    pen = random.signed()
    x += tf.where(pen > 0, thick - x, thin - x) * tf.abs(pen) * random.some(0.3, limits.stroke)
    return tf.where(random.image() < limits.outline, outline, x)


def _optics(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Blur images, and displace each pixel as frosted glass does."""
    reach = random.some(0.1, limits.displacement)
    x = _moved(x, reach * (2 * random.pixel() - 1), reach * (2 * random.pixel() - 1))
    blurred = _blurred(_blurred(_blurred(x)))
    return x + random.some(0.3, limits.blur) * (blurred - x)


def _motion(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Move the camera along a straight line while the picture is taken."""
    reach = random.some(0.15, limits.motion)
    down, right = reach * random.signed(), reach * random.signed()
    return sum((_moved(x, step * down, step * right) for step in (-1, -0.5, 0.5, 1)), x) * 0.2


def _line(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Draw a straight, zigzag or dotted line across the image, as ink or as a gap in the ink."""
    down, right = random.signed(), random.signed()
    length = tf.sqrt(down * down + right * right) + 1e-3
    row, column = ROWS - 9 * random.signed(), COLUMNS - 9 * random.signed()
    along, across = (row * down + column * right) / length, (row * right - column * down) / length
    period = 4 + 8 * random.image()
    wave = tf.abs(tf.math.floormod(along, period) - period / 2) * random.some(0.5, 1.0)
    line = tf.clip_by_value(0.3 + 1.5 * random.image() - tf.abs(across - wave), 0.0, 1.0)
    dot = 1 + 2 * random.image()
    dotted = (tf.math.floormod(along, 2 * dot) < dot) | (random.image() < 0.7)
    line = tf.where(dotted, line, 0.0)
    kind = random.image()
    x = tf.where(kind < limits.lines, tf.maximum(x, line), x)
    return tf.where(kind > 1 - limits.gaps, x * (1 - line), x)


def _damage(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Cut off an edge, splash spots of ink or of paper, and invert a stripe."""
    down, right = random.signed(), random.signed()
    length = tf.sqrt(down * down + right * right) + 1e-3
    across = (ROWS * down + COLUMNS * right) / length
    x = tf.where(across > 20 - random.some(0.2, limits.cut), 0.0, x)
    field, kind = random.field(7), random.image()
    spots = tf.clip_by_value(8 * (field - 0.6 - 0.3 * random.image()), 0.0, 1.0)
    x = tf.where(kind < limits.spots, tf.maximum(x, spots), x)
    x = tf.where(kind > 1 - limits.spots, x * (1 - spots), x)
    stripe = tf.abs(across - 6 * random.signed()) < 2 + 6 * random.image()
    return tf.where(stripe & (random.image() < limits.stripes), 1 - x, x)


def _light(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Lighten the background: evenly, along a gradient or in clouds; and reduce the contrast."""
    slope = (ROWS * random.signed() + COLUMNS * random.signed()) / SIDE
    x *= 1 - random.some(0.25, limits.contrast)
    background = (
        random.some(0.25, limits.brightness)
        + random.some(0.15, limits.gradient) * (slope + 0.5)
        + random.some(0.15, limits.fog) * random.field(7)
    )
    return x + background * (1 - random.image() * x)


def _noise(x: tf.Tensor, random: Random, limits: Photometric) -> tf.Tensor:
    """Add noise to every pixel, and make some pixels black or white."""
    first, second, third = random.pixel(), random.pixel(), random.pixel()
    # The sum of three uniform numbers has nearly a normal distribution, with a variance of 1/4.
    x += random.some(0.2, limits.noise) * 2 * (first + second + third - 1.5)
    share = random.some(0.12, limits.impulses) / 2
    impulse = random.pixel()
    return tf.where(impulse < share, 0.0, tf.where(impulse > 1 - share, 1.0, x))


def _neighbors(x: tf.Tensor, combine: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Combine each pixel with its four neighbors, (N, 28, 28)."""
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1]])
    vertical = combine(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1])
    horizontal = combine(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    return combine(combine(vertical, horizontal), x)


def _blurred(x: tf.Tensor) -> tf.Tensor:
    """Apply the weights 1/4, 1/2 and 1/4 along both axes, (N, 28, 28)."""
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1]])
    x = 0.25 * (padded[:, :-2] + padded[:, 2:]) + 0.5 * padded[:, 1:-1]
    return 0.25 * (x[..., :-2] + x[..., 2:]) + 0.5 * x[..., 1:-1]


def _moved(x: tf.Tensor, down: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Take each pixel from another place, at a distance of whole pixels: (N, 28, 28)."""
    return _pixels(x, ROWS + CENTER + tf.round(down), COLUMNS + CENTER + tf.round(right))


def _pixels(x: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return the pixels at whole coordinates, which may differ for each image: (N, 28, 28)."""
    rows = tf.clip_by_value(rows, 0, SIDE - 1)
    columns = tf.clip_by_value(columns, 0, SIDE - 1)
    places = tf.reshape(tf.cast(SIDE * rows + columns, tf.int32), (-1, SIDE * SIDE))
    return tf.reshape(
        tf.gather(tf.reshape(x, (-1, SIDE * SIDE)), places, batch_dims=1), tf.shape(x)
    )
