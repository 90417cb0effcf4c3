"""From any picture of one digit to an image as MNIST has them.

MNIST's digits were cut out, scaled until they fitted 20 x 20 pixels, and laid by their centre of
mass on the middle of 28 x 28 (LeCun et al., "Gradient-based learning applied to document
recognition", 1998). The same is done here, after the ink has been told from the paper.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SIDE, BOX = 28, 20  # pixels: the image, and the longer side of the digit in it
WORK, WORK_MANY = 192, 640  # pixels: the longer side at which one digit is looked for, or many
STROKE = 2.2  # pixels: width of a pen's stroke in the box, about what MNIST's pens left
FAINT, SOLID = 0.4, 0.8  # of the contrast of the ink: less is paper, more is all ink
REACH = 0.5  # of the longer side: what is wider is no stroke
# Ink and paper differ by more than so many times their standard deviations. Measured: 1.4 to 1.6
# in noise of any strength, 1.8 and mostly 2.5 to 3.3 in pictures of digits.
DISTINCT = 1.6
CONTRAST = 25  # of 255, from paper to ink: less is no ink
PIECES = 6, 100  # most pieces of ink in a picture of one digit, or of many: more are noise
SPECK = 0.04  # of the area of the largest piece of ink: smaller pieces are dirt


Box = tuple[int, int, int, int]  # left, top, width, height in pixels


class BlankError(Exception):
    """There is nothing on the paper."""


@dataclass(frozen=True)
class Piece:
    """A connected piece of ink."""

    mask: np.ndarray  # bool, of the picture's size
    left: int
    top: int
    width: int
    height: int


def image_of(grey: np.ndarray) -> np.ndarray:
    """Cut out, scale and centre the digit of a picture.

    Args:
        grey: uint8 (height, width), dark ink on light paper or the other way round.

    Returns:
        uint8 (28, 28), white ink on black.

    Raises:
        BlankError: the picture is blank, or nothing on it stands out from its noise.
    """
    found = _ink(_resized(grey, WORK))
    return _drawn(found, _pieces(found, PIECES[0]))


def images_of(grey: np.ndarray) -> tuple[np.ndarray, list[Box]]:
    """The same for a picture of several digits that do not touch, from left to right.

    Returns:
        uint8 (N, 28, 28), and the box of each digit in the picture.
    """
    found = _ink(_resized(grey, WORK_MANY))
    factor = max(grey.shape) / max(found.shape)
    digits = _grouped(_pieces(found, PIECES[1]))
    boxes = [tuple(round(factor * length) for length in _box(pieces)) for pieces in digits]
    return np.stack([_drawn(found, pieces) for pieces in digits]), boxes


def is_mnist(grey: np.ndarray) -> bool:
    """Whether a picture is of MNIST's own kind: 28 x 28 pixels, dark at its corners."""
    if grey.shape != (SIDE, SIDE):
        return False
    last = SIDE - 1
    corners = (grey.item(y, x) for y in (0, last) for x in (0, last))
    return sum(corners) < 2 * 255


def checked(image: np.ndarray) -> np.ndarray:
    """An image of MNIST's own kind, unchanged. Raises BlankError if it is blank."""
    if image.max() < CONTRAST:
        raise BlankError
    return image


def _resized(grey: np.ndarray, longer: int) -> np.ndarray:
    """The picture with its longer side `longer` pixels, in floating point."""
    height, width = grey.shape
    factor = longer / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    if factor < 1:
        return cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)


def _ink(grey: np.ndarray) -> np.ndarray:
    """How much each pixel stands out from the paper around it: float32, 0 to 1."""
    # Morphological closing is the paper below dark ink: it fills what is narrower than its square,
    # and leaves the light as it falls, with the edges of shadows. Opening is that of light ink.
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    reach = round(REACH * max(grey.shape))
    wide = cv2.copyMakeBorder(smooth, *(reach,) * 4, cv2.BORDER_REPLICATE)
    way = cv2.MORPH_TOPHAT if _is_light(grey) else cv2.MORPH_BLACKHAT
    contrast = cv2.morphologyEx(wide, way, np.ones((reach, reach), np.uint8))
    contrast = contrast[reach:-reach, reach:-reach].clip(0, 255)
    threshold, _ = cv2.threshold(
        contrast.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    inked, bare = contrast[contrast > threshold], contrast[contrast <= threshold]
    if not inked.size or inked.mean() < CONTRAST:
        raise BlankError
    if inked.mean() - bare.mean() < DISTINCT * (inked.std() + bare.std()):
        raise BlankError
    return np.clip((contrast / np.median(inked) - FAINT) / (SOLID - FAINT), 0, 1)


def _is_light(grey: np.ndarray) -> bool:
    """Whether the ink is lighter than the paper."""
    size = max(grey.shape[1] // 4, 1), max(grey.shape[0] // 4, 1)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).clip(0, 255)
    most = cv2.medianBlur(small.astype(np.uint8), max(min(small.shape) // 2 * 2 - 1, 3))
    difference = small - most
    # The fourth power, because ink stands out by more than shadows, which have more pixels.
    return float((difference.clip(0) ** 4).sum()) > float(((-difference).clip(0) ** 4).sum())


def _pieces(ink: np.ndarray, most: int) -> list[Piece]:
    """The connected pieces of ink, without dirt."""
    solid = (ink > 0.5).astype(np.uint8)
    count, labels, figures, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count < 2:
        raise BlankError
    areas = figures[:, cv2.CC_STAT_AREA]
    kept = [n for n in range(1, count) if areas[n] >= SPECK * areas[1:].max()]
    if len(kept) > most:
        raise BlankError
    return [Piece(labels == n, *map(int, figures[n, :4])) for n in kept]


def _grouped(pieces: list[Piece]) -> list[list[Piece]]:
    """Pieces above each other make one digit; the digits from left to right."""
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


def _drawn(ink: np.ndarray, pieces: list[Piece]) -> np.ndarray:
    """One digit as an image."""
    left, top, width, height = _box(pieces)
    mask = np.logical_or.reduce([piece.mask for piece in pieces]).astype(np.uint8)
    # The soft edge of a stroke belongs to it.
    digit = (ink * cv2.dilate(mask, np.ones((5, 5), np.uint8)))[
        top : top + height, left : left + width
    ]
    # Across a stroke the distance to its edge is a quarter of its width on average.
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return _centred(_scaled(digit, 4 * float(distance[mask > 0].mean()) - 1))


def _scaled(digit: np.ndarray, width: float) -> np.ndarray:
    """The digit with its longer side `BOX` pixels, and strokes that are not too thin."""
    factor = BOX / max(digit.shape)
    missing = round(STROKE / factor - width)
    if width * factor < STROKE and missing > 0:
        digit = cv2.copyMakeBorder(digit, *(missing // 2 + 1,) * 4, cv2.BORDER_CONSTANT, value=0)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (missing + 1, missing + 1))
        digit = cv2.dilate(digit, kernel)
        factor = BOX / max(digit.shape)
    height, wide = digit.shape
    size = max(round(wide * factor), 1), max(round(height * factor), 1)
    return cv2.resize(digit, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def _centred(digit: np.ndarray) -> np.ndarray:
    """The digit on black, its centre of mass in the middle."""
    rows, columns = np.indices(digit.shape)
    mass = float(digit.sum())
    if not mass:
        raise BlankError
    top = round((SIDE - 1) / 2 - float((rows * digit).sum()) / mass)
    left = round((SIDE - 1) / 2 - float((columns * digit).sum()) / mass)
    top, left = (
        min(max(place, 0), SIDE - length)
        for place, length in zip((top, left), digit.shape, strict=True)
    )
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = np.rint(digit * 255)
    return image
