"""The fifteen image corruptions of MNIST-C, which measure the robustness of the network.

Mu and Gilmer describe them in "MNIST-C: A Robustness Benchmark for Computer Vision", 2019. The
strengths are those of the published test set (https://github.com/google-research/mnist-c). The
random numbers differ from those of the published images, so the accuracy differs slightly.

Each corruption takes images, uint8 (N, 28, 28), white on black, and a random generator. It returns
the corrupted images, of the same shape and dtype. Gray levels are from 0 (black) to 255 (white).
"""

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

SEED = 0
BATCH = 1000  # images per call of a corruption; larger arrays do not fit in a processor's cache
CENTER = 13.5  # pixels: the center of 28 pixels, counted from 0

Images = np.ndarray
Random = np.random.Generator


def corrupted(images: Images) -> dict[str, Images]:
    """Apply each corruption to the images; equal images give equal results.

    Args:
        images: uint8 (N, 28, 28).

    Returns:
        The corrupted images, uint8 (N, 28, 28), by the name of the corruption.
    """
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    results = {}
    for name, corrupt in CORRUPTIONS.items():
        random = np.random.default_rng(SEED)
        results[name] = np.concatenate([corrupt(batch, random) for batch in batches])
    return results


def shot_noise(images: Images, random: Random) -> Images:
    """Replace each pixel by a Poisson-distributed number of photons; white has 3 on average.

    More than 3 photons count as 3.
    """
    photons = random.poisson(images * (3 / 255))
    return (photons.clip(0, 3) * 85).astype(np.uint8)


def impulse_noise(images: Images, random: Random) -> Images:
    """Make 8.5% of the pixels white and 8.5% black."""
    number = random.random(images.shape, np.float32)
    return np.where(number < 0.085, 255, np.where(number < 0.17, 0, images)).astype(np.uint8)


def glass_blur(images: Images, random: Random) -> Images:
    """Swap neighboring pixels at random, between two vertical Gaussian blurs of 0.7 pixels.

    Each of two passes goes from the bottom right to the top left. It swaps a pixel with the pixel
    above it, to its left or diagonally above it to the left, each with a probability of 1/8.
    """
    pixels = _blurred_down(images, 0.7).astype(np.uint8).reshape(-1, 784).T.copy()
    order = [28 * row + column for row in range(27, 1, -1) for column in range(27, 1, -1)] * 2
    steps = np.array([0, 0, 0, 0, 0, 1, 28, 29])
    choices = random.integers(0, 8, (len(order), len(images)), np.uint8)
    every = np.arange(len(images))
    for pixel, choice in zip(order, choices, strict=True):
        other = pixel - steps[choice]
        swapped = pixels[other, every]
        pixels[other, every] = pixels[pixel]
        pixels[pixel] = swapped
    return _rounded(_blurred_down(pixels.T.reshape(images.shape), 0.7))


def motion_blur(images: Images, random: Random) -> Images:
    """Blur along a line in a direction of -45 to 45 degrees from the horizontal.

    Each pixel becomes a weighted mean of itself and the next 20 pixels in that direction. The
    weights are half of a Gaussian with a standard deviation of 3 pixels.
    """
    angle = np.radians(random.uniform(-45, 45, len(images)))
    blurred = np.zeros(images.shape, np.float32)
    for distance, weight in enumerate(_bell(np.arange(21), 3)):
        down, right = np.ceil(distance * np.array([np.sin(angle), np.cos(angle)]) - 0.5).astype(int)
        blurred += weight * _shifted(images, down, right, 20, "edge")
    return _rounded(blurred)


def shear(images: Images, random: Random) -> Images:
    """Shear by 0.4 radians to the left or to the right."""
    return _warped(images, random, [[[1, -math.sin(a)], [0, math.cos(a)]] for a in (-0.4, 0.4)])


def scale(images: Images, random: Random) -> Images:
    """Scale to 0.7 of the size, around the center."""
    return _warped(images, random, [[[1 / 0.7, 0], [0, 1 / 0.7]]])


def rotate(images: Images, random: Random) -> Images:
    """Rotate by 0.4 radians in either direction."""
    turns = [[[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in (-0.4, 0.4)]
    return _warped(images, random, turns)


def brightness(images: Images, random: Random) -> Images:
    """Add 127.5 gray levels to each pixel."""
    return _rounded(images + np.float32(127.5))


def translate(images: Images, random: Random) -> Images:
    """Shift by 3 pixels along each axis, in either direction."""
    down, right = random.choice([-3, 3], (2, len(images)))
    return _shifted(images, down, right, 3, "constant")


def stripe(images: Images, random: Random) -> Images:
    """Invert the 7 columns at the left and the 7 columns at the right."""
    columns = np.arange(28)
    return np.where((columns < 7) | (columns >= 21), 255 - images, images)


def fog(images: Images, random: Random) -> Images:
    """Mix one part of the image with three parts of a plasma fractal.

    The fractal has 256 x 256 pixels, from 0 to 255, of which 28 x 28 pixels at a corner are used.
    Its amplitude decreases by a factor of 1.4^2 whenever its resolution doubles.
    """
    heights = np.zeros((len(images), 1, 1), np.float32)
    for level in range(6):
        heights = _refined(heights, 1.4 ** (-2 * level), random)
    # The range of every fourth row and column is that of all pixels, to 0.1%.
    low, high = heights.min((1, 2), keepdims=True), heights.max((1, 2), keepdims=True)
    corner = _refined_corner(heights, (1.4**-12, 1.4**-14), random)
    haze = (corner - low) / (high - low)
    white = images.max((1, 2), keepdims=True) / np.float32(255)  # 1 in almost all images
    return _rounded((images + 3 * 255 * haze) * white / (white + 3))


def spatter(images: Images, random: Random) -> Images:
    """Cover parts of the image with mud of gray level 63.

    The blots are the positive part of Gaussian noise that is blurred by 1 pixel. A blur by 1.5
    pixels makes their edges soft, and a threshold of 0.8 removes what is thin.
    """
    blots = _blurred(random.standard_normal(images.shape, np.float32), 1) > 0
    mud = _blurred(blots, 1.5)
    mud[mud < 0.8] = 0
    return _rounded(images * (1 - mud) + 63 * mud)


def dotted_line(images: Images, random: Random) -> Images:
    """Draw a straight white line from the left to the right, in dots and gaps of 2 pixels."""
    rows = random.integers(0, 27, (len(images), 2))
    dots = np.arange(28) // 2 % 2
    return _rounded(images + _lines(np.array([[0, 27]]), rows) * dots)


def zigzag(images: Images, random: Random) -> Images:
    """Draw a white zigzag line from column 2 to column 25.

    It turns 2 pixels beside a straight line, every 4 pixels. The straight line rises or falls by at
    most 5 pixels.
    """
    first = random.integers(0, 27, (len(images), 1))
    fall = random.integers(-5, 5, (len(images), 1))
    length = np.sqrt(23**2 + fall**2)
    # The corners, in pixels along the straight line and beside it.
    corners = np.array([[0, 2, 6, 10, 14, 18, 22], [0, 2, -2, 2, -2, 2, -2]])
    along, beside = np.repeat(corners[:, None], len(images), 1)
    along, beside = np.hstack([along, length]), np.hstack([beside, -1 / (length - 20)])
    columns = 2 + (23 * along - fall * beside) / length
    rows = first + (fall * along + 23 * beside) / length
    return _rounded(images + _lines(columns, rows))


def canny_edges(images: Images, random: Random) -> Images:
    """Replace the image by its edges, white on black, from Canny's edge detector.

    The detector blurs with a Gaussian of 1 pixel and computes gradients with Sobel's operator. The
    gradient of an edge is at least 3.2 gray levels per pixel everywhere and 6.4 somewhere.
    """
    smooth = np.pad(_blurred(images, 1), [(0, 0), (1, 1), (1, 1)], "edge")
    across = smooth[:, :, 2:] - smooth[:, :, :-2]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    down = smooth[:, 2:] - smooth[:, :-2]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    strength = np.sqrt(across * across + down * down)
    # The operator's weights make the gradient 8 times as large as the difference of two pixels.
    weak = _maxima(strength, across, down) & (strength >= 0.1 * 255)
    # The outermost pixels are not maxima, so no edge connects two images of the stack.
    count, edges = cv2.connectedComponents(weak.reshape(-1, 28).astype(np.uint8), connectivity=8)
    edges = edges.reshape(images.shape)
    white = np.zeros(count, np.uint8)
    white[edges[weak & (strength >= 0.2 * 255)]] = 255
    return white[edges]


def _maxima(strength: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Find the pixels whose gradient is not smaller than its neighbors in its own direction.

    The gradients of the two neighbors are interpolated between pixels.

    Args:
        strength: The length of the gradient at each pixel, float32 (N, 28, 28).
        across: The gradient to the right, float32 (N, 28, 28).
        down: The gradient to the bottom, float32 (N, 28, 28).

    Returns:
        bool (N, 28, 28). The outermost pixels are False.
    """
    inside = np.pad(np.ones((26, 26), bool), 1)
    at = np.flatnonzero(inside & (strength > 0))
    x, y, strengths = across.ravel()[at], down.ravel()[at], strength.ravel()
    is_steep = np.abs(y) >= np.abs(x)
    straight = np.where(is_steep, 28, 1)
    diagonal = np.where(x * y >= 0, 29, np.where(is_steep, 27, -27))
    share = np.minimum(np.abs(x), np.abs(y)) / np.maximum(np.abs(x), np.abs(y))
    maximum = np.ones(len(at), bool)
    for side in (-1, 1):
        neighbor = strengths[at + side * straight] * (1 - share)
        neighbor += strengths[at + side * diagonal] * share
        maximum &= strengths[at] >= neighbor
    maxima = np.zeros(strength.shape, bool)
    maxima.ravel()[at] = maximum
    return maxima


def _rounded(values: np.ndarray) -> Images:
    """Round gray levels to uint8; values below 0 or above 255 become 0 or 255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _bell(positions: np.ndarray, deviation: float) -> np.ndarray:
    """Return the weights of a Gaussian at the positions, float32, with the sum 1."""
    weights = np.exp(-(positions**2) / (2 * deviation**2))
    return (weights / weights.sum()).astype(np.float32)


def _blurred(images: np.ndarray, deviation: float) -> np.ndarray:
    """Apply a Gaussian blur in both directions; see `_blurred_down`."""
    blurred = _blurred_down(images, deviation).swapaxes(1, 2)
    return _blurred_down(blurred, deviation).swapaxes(1, 2)


def _blurred_down(images: np.ndarray, deviation: float) -> np.ndarray:
    """Apply a Gaussian blur along the columns; outside an image, its border continues.

    Args:
        images: Numbers (N, 28, 28).
        deviation: The standard deviation of the Gaussian in pixels. The Gaussian is cut at four
            standard deviations.

    Returns:
        float32 (N, 28, 28).
    """
    radius = round(4 * deviation)
    padded = np.pad(images, [(0, 0), (radius, radius), (0, 0)], "edge")
    blurred = np.zeros(images.shape, np.float32)
    for top, weight in enumerate(_bell(np.arange(-radius, radius + 1), deviation)):
        blurred += weight * padded[:, top : top + 28]
    return blurred


def _shifted(
    images: Images,
    down: np.ndarray,
    right: np.ndarray,
    limit: int,
    outside: Literal["constant", "edge"],
) -> Images:
    """Let each image start at another pixel.

    Args:
        images: uint8 (N, 28, 28).
        down: The row of the image that becomes its first row, int (N,).
        right: The column of the image that becomes its first column, int (N,).
        limit: The largest absolute value of `down` and `right`.
        outside: Whether the pixels beyond an image are black or continue its border.

    Returns:
        uint8 (N, 28, 28).
    """
    padded = np.pad(images, [(0, 0), (limit, limit), (limit, limit)], outside)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (28, 28), (1, 2))
    return windows[np.arange(len(images)), limit + down, limit + right]


def _warped(images: Images, random: Random, maps: list[list[list[float]]]) -> Images:
    """Apply one of the linear maps to each image.

    Args:
        images: uint8 (N, 28, 28).
        random: The source of the choice between the maps.
        maps: The maps, as `_resampled` takes them.

    Returns:
        uint8 (N, 28, 28).
    """
    choices = random.integers(0, len(maps), len(images))
    warped = np.empty_like(images)
    for number, matrix in enumerate(maps):
        warped[choices == number] = _resampled(images[choices == number], matrix)
    return warped


def _resampled(images: Images, matrix: list[list[float]]) -> Images:
    """Apply a linear map, with bilinear interpolation; points outside an image are black.

    OpenCV's function would give other bits on a processor without fused multiply-add.

    Args:
        images: uint8 (N, 28, 28).
        matrix: The map (2, 2) from a point of the result to a point of the image. A point has a
            column and a row, from the center.

    Returns:
        uint8 (N, 28, 28).
    """
    rows, columns = np.indices((28, 28)) - CENTER
    x, y = ((a * columns + b * rows + CENTER).clip(-1, 28) for a, b in matrix)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    padded = np.pad(images, [(0, 0), (1, 2), (1, 2)])
    resampled = np.zeros(images.shape, np.float32)
    for column in (left, left + 1):
        for row in (top, top + 1):
            weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            resampled += weight.astype(np.float32) * padded[:, 1 + row, 1 + column]
    return _rounded(resampled)


def _refined(heights: np.ndarray, amplitude: float, random: Random) -> np.ndarray:
    """Double the resolution of a plasma fractal by the diamond-square algorithm.

    Each new point is the mean of its four neighbors plus a uniform random number. Points at
    opposite borders are neighbors.

    Args:
        heights: float32 (N, size, size).
        amplitude: The largest absolute value of the random numbers.
        random: The source of the random numbers.

    Returns:
        float32 (N, 2 * size, 2 * size).
    """

    def varied(total: np.ndarray) -> np.ndarray:
        number = random.random(total.shape, np.float32)
        return total * np.float32(0.25) + np.float32(amplitude) * (2 * number - 1)

    count, size, _ = heights.shape
    refined = np.empty((count, 2 * size, 2 * size), np.float32)
    pairs = heights + np.roll(heights, -1, 1)
    centers = varied(pairs + np.roll(pairs, -1, 2))
    rows = heights + np.roll(heights, -1, 2) + centers + np.roll(centers, 1, 1)
    columns = heights + np.roll(heights, -1, 1) + centers + np.roll(centers, 1, 2)
    refined[:, ::2, ::2], refined[:, 1::2, 1::2] = heights, centers
    refined[:, ::2, 1::2], refined[:, 1::2, ::2] = varied(rows), varied(columns)
    return refined


def _refined_corner(
    heights: np.ndarray, amplitudes: tuple[float, float], random: Random
) -> np.ndarray:
    """Double the resolution of a plasma fractal twice, but only at its corner.

    Args:
        heights: float32 (N, size, size); `size` is at least 10.
        amplitudes: The amplitude of each doubling; see `_refined`.
        random: The source of the random numbers.

    Returns:
        float32 (N, 28, 28).
    """
    # The corner has 7 points on each side. Points at the borders of this part get wrong neighbors,
    # so it has one more point before the corner and two more points after it.
    part = np.roll(heights, 1, (1, 2))[:, :10, :10]
    for amplitude in amplitudes:
        part = _refined(part, amplitude, random)
    return part[:, 4:32, 4:32]


def _lines(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Draw a white line through given points; the column of the last point stays free.

    The line fades with the logarithm of the vertical distance and ends at 1.45 pixels.

    Args:
        columns: The columns of the points in ascending order, (N, points) or (1, points).
        rows: The rows of the points, (N, points).

    Returns:
        Gray levels, float64 (N, 28, 28).
    """
    at = np.arange(28)
    drawn = np.zeros((len(rows), 28, 28))
    for end in range(1, rows.shape[1]):
        left, right = columns[:, end - 1, None, None], columns[:, end, None, None]
        first, last = rows[:, end - 1, None, None], rows[:, end, None, None]
        line = first + (last - first) / (right - left) * (at - left)
        distance = np.abs(at[:, None] - line)
        gray = 1 + np.log(1 - np.minimum(distance, 2) / 2.3)
        drawn += gray.clip(0) * ((at >= np.floor(left)) & (at < np.ceil(right)))
    return 255 * drawn.clip(0, 1)


CORRUPTIONS: dict[str, Callable[[Images, Random], Images]] = {
    corrupt.__name__: corrupt
    for corrupt in (
        shot_noise,
        impulse_noise,
        glass_blur,
        motion_blur,
        shear,
        scale,
        rotate,
        brightness,
        translate,
        stripe,
        fog,
        spatter,
        dotted_line,
        zigzag,
        canny_edges,
    )
}
