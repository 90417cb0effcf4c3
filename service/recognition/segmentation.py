"""Read the digits of a number, which may touch.

The ink is cut into more parts than there are digits. The network then reads each part, and each row
of neighboring parts. The digits are those parts and rows that together cover the ink, and that the
network is surest of. This is heuristic over-segmentation (LeCun et al., "Gradient-based learning
applied to document recognition", 1998, section VII).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from service.recognition import images, preprocessing
from service.recognition.preprocessing import Box, Piece

LONGER_SIDE = 640  # pixels: the longer side of the resized picture
MAX_PIECES = 100  # the maximum number of pieces of ink in a picture; more are noise
# Lengths are fractions of the usual height of a digit in the picture.
MIN_HEIGHT = 0.4  # a lower piece is a period, a comma or a dash, or belongs to a digit above it
MIN_WIDTH = 0.6  # a narrower piece is one digit at most, and is not cut
MAX_WIDTH = 1.3  # a wider row of parts is more than one digit
MAX_GAP = 0.15  # parts with a wider gap between them belong to different digits
MIN_DISTANCE = 0.25  # the minimum distance between two cuts
MAX_INK = 0.5  # the maximum length of a cut through ink
MAX_PARTS = 5  # the maximum number of parts of one digit
SLANT = 0.5  # the cost of a step of one pixel to the side, in pixels of ink
# Costs are negative logarithms of a probability, like those of the network.
CUT_COST = 2.0  # the cost of a cut through ink, because most digits do not touch
# The cost of a digit that is lower than `LOW`, because the digits of a number have similar heights.
LOW_COST = 3.0
LOW = 0.6


@dataclass(frozen=True)
class Candidates:
    """Images that may be the digits of a picture.

    Attributes:
        images: The images, uint8 (N, 28, 28).
        boxes: The box of each image, in pixels of the picture.
        spans: For each image, the index of its first part and the index after its last part.
        costs: How unlikely each image is as a digit by its size and its cuts.
    """

    images: np.ndarray
    boxes: list[Box]
    spans: list[tuple[int, int]]
    costs: list[float]

    def choose(self, probabilities: np.ndarray) -> list[int]:
        """Choose the images that cover all parts, each part once, with the highest confidence.

        Args:
            probabilities: The probabilities of the labels of each image, float32 (N, 10).

        Returns:
            The indices of the digits, from left to right.
        """
        costs = np.array(self.costs) - np.log(probabilities.max(1))
        # For each number of parts from the left: the lowest total cost, and the images for it.
        best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
        for number, (start, end) in sorted(enumerate(self.spans), key=lambda item: item[1]):
            cost = best[start][0] + float(costs[number])
            if end not in best or cost < best[end][0]:
                best[end] = cost, [*best[start][1], number]
        return best[max(best)][1]


def decode(content: bytes, max_pixels: int = images.MAX_PIXELS) -> Candidates:
    """Decode a picture of a number, and find what may be its digits.

    Args:
        content: The file, in one of `images.FORMATS`.
        max_pixels: The maximum number of pixels. It is checked before the pixels are decoded.

    Raises:
        ImageError: The picture cannot be decoded, as in `images.decode`.
        NoInkError: The picture has no ink.
    """
    try:
        return find(images.decode_gray(content, max_pixels))
    except preprocessing.BlankError as error:
        raise images.NoInkError(images.NO_INK) from error


def find(gray: np.ndarray) -> Candidates:
    """Find what may be the digits of a picture.

    Args:
        gray: The picture, uint8 (height, width). Either the ink or the background may be the darker
            one.

    Raises:
        BlankError: The picture is blank, or no ink stands out from its noise.
    """
    ink = preprocessing.without_lines(preprocessing.find_ink(gray, LONGER_SIDE), is_number=True)
    factor = max(gray.shape) / max(ink.shape)
    pieces = preprocessing.pieces_of(ink, MAX_PIECES)
    height = _usual_height(pieces)
    cut = [_cut(piece, height) for piece in _grouped(pieces, height)]
    parts = [part for row in cut for part in row]
    uncut = {0, *np.cumsum([len(row) for row in cut]).tolist()}  # parts that start a piece of ink
    found, boxes, spans, costs = [], [], [], []
    for start in range(len(parts)):
        for end in range(start + 1, min(start + MAX_PARTS, len(parts)) + 1):
            row = parts[start:end]
            if len(row) > 1 and not _may_be_one(row, height):
                break
            found.append(preprocessing.to_image(ink, row))
            box = preprocessing.box_of(row)
            boxes.append(tuple(round(factor * length) for length in box))
            spans.append((start, end))
            costs.append(CUT_COST * (start not in uncut) + LOW_COST * (box[3] < LOW * height))
    return Candidates(np.stack(found), boxes, spans, costs)


def _usual_height(pieces: list[Piece]) -> float:
    """Return the median height of the pieces, weighted by their heights."""
    heights = np.sort([piece.height for piece in pieces])
    return float(heights[np.searchsorted(np.cumsum(heights), heights.sum() / 2)])


def _grouped(pieces: list[Piece], height: float) -> list[Piece]:
    """Join each low piece with the digit above or below it, and leave out the other low pieces.

    Returns:
        The digits from left to right. Those that touch are one piece.
    """
    digits = [piece for piece in pieces if piece.height >= MIN_HEIGHT * height]
    for low in (piece for piece in pieces if piece.height < MIN_HEIGHT * height):
        shared = [
            min(low.left + low.width, digit.left + digit.width) - max(low.left, digit.left)
            for digit in digits
        ]
        nearest = int(np.argmax(shared))
        if shared[nearest] > 0.5 * low.width:
            digits[nearest] = _joined([digits[nearest], low])
    return sorted(digits, key=lambda digit: digit.left + digit.width / 2)


def _joined(pieces: list[Piece]) -> Piece:
    mask = np.logical_or.reduce([piece.mask for piece in pieces])
    return Piece(mask, *preprocessing.box_of(pieces))


def _cut(piece: Piece, height: float) -> list[Piece]:
    """Cut a piece of ink wherever a short cut from the top to the bottom is possible.

    Returns:
        The parts from left to right.
    """
    if piece.width < MIN_WIDTH * height:
        return [piece]
    crop = piece.mask[piece.top : piece.top + piece.height, piece.left : piece.left + piece.width]
    lengths, paths = _shortest_cuts(crop)
    middles = paths.mean(0)
    margin = MIN_DISTANCE * height
    chosen: list[int] = []
    for column in np.argsort(lengths, kind="stable"):
        middle = middles[column]
        if lengths[column] > MAX_INK * height:
            break
        if margin <= middle <= piece.width - margin and all(
            abs(middle - middles[other]) >= margin for other in chosen
        ):
            chosen.append(int(column))
    side = sum((np.arange(piece.width) >= paths[:, [column]]).astype(int) for column in chosen)
    parts = []
    for number in range(len(chosen) + 1):
        mask = np.zeros_like(piece.mask)
        inner = crop & (side == number)
        left, top, width, part_height = cv2.boundingRect(inner.astype(np.uint8))
        if width:
            box = piece.left + left, piece.top + top, width, part_height
            mask[piece.top : piece.top + piece.height, piece.left : piece.left + piece.width] = (
                inner
            )
            parts.append(Piece(mask, *box))
    return parts


def _shortest_cuts(ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the cut through the least ink that ends at each column of the lowest row.

    A cut goes down row by row, straight or to the column beside. Dynamic programming finds it.

    Args:
        ink: bool (height, width).

    Returns:
        The length of each cut, float64 (width,), and its column in each row, int64 (height, width).
    """
    height, width = ink.shape
    columns = np.arange(width)
    total = ink[0].astype(float)
    steps = np.zeros((height, width), int)
    for row in range(1, height):
        beside = np.pad(total, 1, constant_values=np.inf)
        choices = np.stack([beside[1:-1], beside[:-2] + SLANT, beside[2:] + SLANT])
        best = choices.argmin(0)
        steps[row] = np.array([0, -1, 1])[best]
        total = choices[best, columns] + ink[row]
    paths = np.empty((height, width), int)
    paths[-1] = columns
    for row in range(height - 1, 0, -1):
        paths[row - 1] = paths[row] + steps[row, paths[row]]
    return total, paths


def _may_be_one(parts: list[Piece], height: float) -> bool:
    """Return whether neighboring parts are near enough to each other to be one digit."""
    before, last = preprocessing.box_of(parts[:-1]), parts[-1]
    gap = last.left - (before[0] + before[2])
    return gap <= MAX_GAP * height and preprocessing.box_of(parts)[2] <= MAX_WIDTH * height
