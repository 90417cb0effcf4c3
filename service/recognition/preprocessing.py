"""Extract digits from pictures, and normalize them to images like MNIST's.

MNIST's digits were scaled to fit 20 x 20 pixels, and placed in 28 x 28 pixels so that their center
of mass is in the middle (LeCun et al., "Gradient-based learning applied to document recognition",
1998). This module does the same, after it has separated the ink from the background.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 28  # pixels: the side of an image
BOX = 20  # pixels: the longer side of the digit in an image
WORK = 192  # pixels: the longer side of the resized picture in which one digit is searched
WORK_MANY = 640  # pixels: the same for several digits
STROKE = 2.2  # pixels: the minimum stroke width in the box, about as wide as MNIST's strokes
# Fractions of the ink's median contrast: at most FAINT is background, at least SOLID is full ink.
FAINT, SOLID = 0.4, 0.8
MAX_STROKE = 0.5  # of the longer side: anything wider is not a stroke
# The minimum difference between the mean contrasts of ink and background, in units of the sum of
# their standard deviations. Measured: 1.4 to 1.6 in noise of any strength, and at least 1.8, mostly
# 2.5 to 3.3, in pictures of digits.
MIN_SEPARATION = 1.6
MIN_CONTRAST = 25  # of 255: the minimum mean contrast of the ink
MAX_PIECES = 6  # of ink in a picture of one digit; more pieces are noise
MAX_PIECES_MANY = 100  # the same for several digits
MIN_PIECE = 0.04  # of the area of the largest piece of ink; smaller pieces are dirt


Box = tuple[int, int, int, int]  # left, top, width, height in pixels


class BlankError(Exception):
    """A picture has no ink."""


@dataclass(frozen=True)
class Piece:
    """A connected piece of ink. Positions and sizes are in pixels."""

    mask: np.ndarray  # bool, of the picture's size
    left: int
    top: int
    width: int
    height: int


def extract_digit(gray: np.ndarray) -> np.ndarray:
    """Crop, scale and center the digit of a picture.

    Args:
        gray: The picture, uint8 (height, width). Either the ink or the background may be the darker
            one.

    Returns:
        The image, uint8 (28, 28), white ink on black.

    Raises:
        BlankError: The picture is blank, or no ink stands out from its noise.
    """
    ink = _ink(_resized(gray, WORK))
    return _to_image(ink, _pieces(ink, MAX_PIECES))


def extract_digits(gray: np.ndarray) -> tuple[np.ndarray, list[Box]]:
    """Crop, scale and center the digits of a picture. The digits must not touch.

    Args:
        gray: The picture, as in `extract_digit`.

    Returns:
        The images of the digits from left to right, uint8 (N, 28, 28), and the box of each digit in
        pixels of the picture.

    Raises:
        BlankError: The picture is blank, or no ink stands out from its noise.
    """
    ink = _ink(_resized(gray, WORK_MANY))
    factor = max(gray.shape) / max(ink.shape)
    digits = _grouped(_pieces(ink, MAX_PIECES_MANY))
    boxes = [tuple(round(factor * length) for length in _box(pieces)) for pieces in digits]
    return np.stack([_to_image(ink, pieces) for pieces in digits]), boxes


def is_mnist(gray: np.ndarray) -> bool:
    """Return whether a picture has MNIST's own form: 28 x 28 pixels with dark corners.

    Args:
        gray: The picture, uint8 (height, width).
    """
    if gray.shape != (SIDE, SIDE):
        return False
    last = SIDE - 1
    corners = (gray.item(y, x) for y in (0, last) for x in (0, last))
    return sum(corners) < 2 * 255


def require_ink(image: np.ndarray) -> np.ndarray:
    """Return an image of MNIST's own form unchanged if it has ink.

    Args:
        image: The image, uint8 (28, 28), white ink on black.

    Returns:
        The same array.

    Raises:
        BlankError: The image is blank.
    """
    if image.max() < MIN_CONTRAST:
        raise BlankError
    return image


def _resized(gray: np.ndarray, longer: int) -> np.ndarray:
    """Resize a picture to `longer` pixels on its longer side: float32 (height, width)."""
    height, width = gray.shape
    factor = longer / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    if factor < 1:
        return cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.resize(gray.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)


def _ink(gray: np.ndarray) -> np.ndarray:
    """Return how much each pixel stands out from the background around it, from 0 to 1.

    Args:
        gray: The resized picture, float32 (height, width).

    Returns:
        The ink, float32 (height, width).

    Raises:
        BlankError: No ink stands out.
    """
    # The black-hat transform subtracts the picture from its morphological closing, which estimates
    # the background under dark ink: it fills whatever is narrower than the kernel, and keeps uneven
    # lighting and the edges of shadows. The top-hat transform does the same for light ink.
    smooth = cv2.GaussianBlur(gray, (0, 0), 1.0)
    kernel_side = round(MAX_STROKE * max(gray.shape))
    padded = cv2.copyMakeBorder(smooth, *(kernel_side,) * 4, cv2.BORDER_REPLICATE)
    transform = cv2.MORPH_TOPHAT if _is_light(gray) else cv2.MORPH_BLACKHAT
    contrast = cv2.morphologyEx(padded, transform, np.ones((kernel_side, kernel_side), np.uint8))
    contrast = contrast[kernel_side:-kernel_side, kernel_side:-kernel_side].clip(0, 255)
    threshold, _ = cv2.threshold(
        contrast.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    inked, bare = contrast[contrast > threshold], contrast[contrast <= threshold]
    if not inked.size or inked.mean() < MIN_CONTRAST:
        raise BlankError
    if inked.mean() - bare.mean() < MIN_SEPARATION * (inked.std() + bare.std()):
        raise BlankError
    return np.clip((contrast / np.median(inked) - FAINT) / (SOLID - FAINT), 0, 1)


def _is_light(gray: np.ndarray) -> bool:
    """Return whether the ink is lighter than the background."""
    size = max(gray.shape[1] // 4, 1), max(gray.shape[0] // 4, 1)
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).clip(0, 255)
    background = cv2.medianBlur(small.astype(np.uint8), max(min(small.shape) // 2 * 2 - 1, 3))
    difference = small - background
    # The fourth power favors ink, which stands out more, over shadows, which have more pixels.
    return float((difference.clip(0) ** 4).sum()) > float(((-difference).clip(0) ** 4).sum())


def _pieces(ink: np.ndarray, max_pieces: int) -> list[Piece]:
    """Return the connected pieces of ink without dirt.

    Args:
        ink: The ink of the picture, float32 (height, width), 0 to 1.
        max_pieces: The maximum number of pieces.

    Raises:
        BlankError: The picture has no ink, or so many pieces that they are noise.
    """
    solid = (ink > 0.5).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count < 2:
        raise BlankError
    areas = statistics[:, cv2.CC_STAT_AREA]
    kept = [n for n in range(1, count) if areas[n] >= MIN_PIECE * areas[1:].max()]
    if len(kept) > max_pieces:
        raise BlankError
    return [Piece(labels == n, *map(int, statistics[n, :4])) for n in kept]


def _grouped(pieces: list[Piece]) -> list[list[Piece]]:
    """Group pieces that are above each other into digits; return the digits from left to right."""
    digits: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.left):
        if digits:
            left, _, width, _ = _box(digits[-1])
            shared = min(left + width, piece.left + piece.width) - piece.left
            if shared > 0.5 * min(width, piece.width):
                digits[-1].append(piece)
                continue
        digits.append([piece])
    return digits


def _box(pieces: list[Piece]) -> Box:
    left, top = min(p.left for p in pieces), min(p.top for p in pieces)
    right, bottom = max(p.left + p.width for p in pieces), max(p.top + p.height for p in pieces)
    return left, top, right - left, bottom - top


def _to_image(ink: np.ndarray, pieces: list[Piece]) -> np.ndarray:
    """Normalize one digit.

    Args:
        ink: The ink of the picture, float32 (height, width), 0 to 1.
        pieces: The pieces of the digit.

    Returns:
        The image, uint8 (28, 28).
    """
    left, top, width, height = _box(pieces)
    mask = np.logical_or.reduce([piece.mask for piece in pieces]).astype(np.uint8)
    # The dilation adds the soft edges of the strokes, which are not part of the mask.
    digit = (ink * cv2.dilate(mask, np.ones((5, 5), np.uint8)))[
        top : top + height, left : left + width
    ]
    # The average distance of a stroke's pixels to its edge is a quarter of its width.
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return _centered(_scaled(digit, 4 * float(distance[mask > 0].mean()) - 1))


def _scaled(digit: np.ndarray, stroke: float) -> np.ndarray:
    """Scale a digit to `BOX` pixels on its longer side, and thicken strokes that become too thin.

    Args:
        digit: The ink of the digit, float32 (height, width), 0 to 1.
        stroke: The width of its strokes in pixels.
    """
    factor = BOX / max(digit.shape)
    missing = round(STROKE / factor - stroke)
    if stroke * factor < STROKE and missing > 0:
        digit = cv2.copyMakeBorder(digit, *(missing // 2 + 1,) * 4, cv2.BORDER_CONSTANT, value=0)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (missing + 1, missing + 1))
        digit = cv2.dilate(digit, kernel)
        factor = BOX / max(digit.shape)
    height, width = digit.shape
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return cv2.resize(digit, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def _centered(digit: np.ndarray) -> np.ndarray:
    """Place a digit on black with its center of mass in the middle: uint8 (28, 28)."""
    rows, columns = np.indices(digit.shape)
    mass = float(digit.sum())
    if not mass:
        raise BlankError
    top = round((SIDE - 1) / 2 - float((rows * digit).sum()) / mass)
    left = round((SIDE - 1) / 2 - float((columns * digit).sum()) / mass)
    top, left = (
        min(max(offset, 0), SIDE - length)
        for offset, length in zip((top, left), digit.shape, strict=True)
    )
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = np.rint(digit * 255)
    return image
