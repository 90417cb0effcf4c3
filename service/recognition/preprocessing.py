"""Extract digits from pictures, and normalize them to images like MNIST's.

MNIST's digits were scaled to fit 20 x 20 pixels, and placed in 28 x 28 pixels so that their center
of mass is in the middle (LeCun et al., "Gradient-based learning applied to document recognition",
1998). This module does the same, after it has separated the ink from the background.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

SIDE = 28  # pixels: the side of an image
BOX = 20  # pixels: the longer side of the digit in an image
WORK = 192  # pixels: the longer side of the resized picture in which the module finds a digit
STROKE = 2.2  # pixels: the minimum stroke width in the box, about as wide as MNIST's strokes
# Fractions of the ink's median contrast: up to FAINT is background, and from SOLID on is full ink.
FAINT, SOLID = 0.4, 0.8
MAX_STROKE = 0.5  # the maximum width of a stroke, as a fraction of the longer side
USUAL_STROKE = 0.2  # the maximum width of nearly all strokes, as a fraction of the shorter side
# The middle of an area is farther from its edge than this fraction of the usual maximum width.
MIN_MIDDLE = 0.15
# An area is a shadow if the strokes have at least `MIN_STRONGER` times the contrast of its middle,
# or the opposite one, and the middle has at least `MIN_SHADOW` times the area of the strokes.
# Measured: in 99 of 100 bold digits of one pen, the ratio of the contrasts is at most 1.2. In
# digits with darker parts, it may be higher.
MIN_STRONGER, MIN_SHADOW = 1.3, 0.1
# Added to gray levels before a logarithm. Without it, the lighter ends of black strokes would be
# lost.
LOG_OFFSET = 60
# Pixels: the minimum longer side of a picture that may show shadows. In smaller pictures, the soft
# sides of the strokes look like shadows.
MIN_SHADED = 12
MIN_SHEET = 0.2  # the minimum area of a sheet, as a fraction of the picture
# How far the outline of a sheet may be from a quadrilateral, as a fraction of its perimeter.
MAX_DEVIATION = 0.04
# The minimum area of a sheet and of its quadrilateral, as fractions of the sheet's convex hull.
# Measured: at least 0.92 in drawn pictures of sheets from several sides, less than 0.88 in digits.
MIN_FILLED = 0.9
MIN_WRITTEN = 0.002  # the minimum area of what is written on a sheet, as a fraction of the sheet
# The maximum standard deviation of the paper, as a fraction of the difference between the tones. A
# shadow around a digit varies more, because the darker digit belongs to the same tone.
MAX_UNEVEN = 0.2
# A sheet touches a side of the picture if it covers more than this fraction of the side. An area
# that touches three sides may be a part of the paper, outside of a shadow.
MIN_CONTACT = 0.2
# The minimum difference between the mean contrasts of ink and background, in units of the sum of
# their standard deviations. Measured: 1.4 to 1.6 in noise of any strength, and at least 1.8, mostly
# 2.5 to 3.3, in pictures of digits.
MIN_SEPARATION = 1.6
MIN_CONTRAST = 8  # of 255: the minimum mean contrast of the ink, after the picture is smoothed
# The minimum of the same measure on the gray levels, from which one threshold for the whole picture
# separates two tones. Measured: 2.75 to 5.7 on binary digits that fill the picture, 1.7 to 3.1 on
# photographs of such digits, and 1.4 to 1.5 on a blurred photograph in uneven light.
TWO_TONES = 2.2
# Below this ratio between the areas of two tones, weighted by their widths, either may be the ink.
# Measured: 0.2 to 4 times as much background as ink in bold digits that fill the picture (from the
# 1st to the 90th percentile), and at least 9 times in 99% of MNIST's images, which have a margin.
SIMILAR_AREAS = 6
# The tone at the corners is the background only if its largest width is at least this fraction of
# the other tone's.
MIN_WIDTH = 0.8
MAX_PIECES = 40  # the maximum number of pieces, such as dots, in one digit; more are noise
MIN_PIECE = 0.04  # a smaller piece, as a fraction of the area of the largest one, is dirt
# The minimum size of a digit inside the picture, as a fraction of the size of all ink.
MIN_INSIDE = 0.25
MIDDLE = 0.25  # where the middle of the picture begins, as a fraction of each side
# The width of the margin in which the picture may show what surrounds the paper, as a fraction of
# each side.
EDGE = 0.1
MIN_LINE = 0.7  # the minimum length of a printed line, as a fraction of the picture's side
# The maximum thickness of a printed line, as a fraction of the picture's longer side.
MAX_LINE = 0.08
# The maximum length of a gap in a printed line, and the minimum length of the ink in a line with
# gaps, as fractions of the picture's side and of the line.
MAX_GAP, MIN_INKED = 0.15, 0.6
MAX_ANGLE = 15  # degrees: by how much horizontal lines may be turned
# The picture is not turned if a row or a column has at least this fraction of the ink of the
# longest line, relative to the picture's side. Measured on lines of 3 pixels: at least 0.99 if they
# are turned by up to 1 degree, at most 0.71 by 2 degrees or more. On lines of 8 pixels: 0.81 at 3
# degrees.
MIN_LEVEL = 0.8
# Lines of at least this length, as a fraction of the longest line, decide about the angle.
MIN_ALIKE = 0.98
# How far a printed line must extend beyond the digit at both ends, as a fraction of the picture's
# side along the line.
# The stem of a 4 or of a 1 may be as long and straight, but ends near the ends of other strokes.
MIN_BEYOND = 0.05
# In a number, a horizontal line is also printed if it extends this far beyond one end of a digit,
# as a fraction of the digit's height. Then the digit may be the first or the last one.
MIN_FAR = 1.25
# A horizontal line is a stroke of the digit if the digit has at least `MIN_SPAN` of the picture's
# height, and the line at least `MIN_THICKNESS` of the width of the digit's other strokes. A line
# with gaps may be several strokes, unless it is thinner.
MIN_SPAN, MIN_THICKNESS = 0.9, 0.5
MIN_PART = 0.25  # the minimum area of a part of the digit, as a fraction of the largest part
TILT = 5  # pixels: how far a line may rise or fall over `MIN_LINE`, about 2 degrees
# MNIST's own form. Pixels below `DARK` are black, apart from the traces of JPEG. Measured: at least
# 95% of the border is black in MNIST's 70,000 images, and 55% in Fashion-MNIST.
DARK = bytes(range(16))
MIN_DARK = 0.5  # the minimum fraction of black pixels at the border
# The ink has lighter pixels. Measured: the lightest has at least 254 in all 70,000 images.
DIM = bytes(range(200))
# MNIST's digits have a longer side of 19 or 20 pixels, and their center of mass is at most 1 pixel
# from the middle. Other data sets of this form fill the image (Fashion-MNIST) or have the middle of
# the digit's box there (EMNIST). An image that is far from all of these is a drawing.
MIN_SIDE, MAX_SIDE = 16, 24  # pixels: the longer side of the digit
MAX_SHIFT = 2  # pixels: the distance of either center from the middle, in each direction


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


@dataclass(frozen=True)
class Line:
    """A straight, thin line, perhaps printed. Positions are in pixels."""

    axis: int  # 0 if it is horizontal, 1 if it is vertical
    mask: np.ndarray  # its pixels without crossing strokes, bool, of the picture's size
    soft: np.ndarray  # the same with its soft edges
    thickness: int  # in pixels
    first: int  # its first column if it is horizontal, its first row if it is vertical
    last: int
    has_gaps: bool


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
    ink = without_lines(find_ink(gray, WORK))
    return to_image(ink, _inside(pieces_of(ink, MAX_PIECES)))


def is_mnist(gray: np.ndarray) -> bool:
    """Return whether a picture has MNIST's own form: 28 x 28 pixels, a light digit on black.

    Args:
        gray: The picture, uint8 (height, width).
    """
    if gray.shape != (SIDE, SIDE):
        return False
    pixels = gray.tobytes()  # counting bytes takes a tenth of NumPy's time
    corners = pixels[0] + pixels[SIDE - 1] + pixels[-SIDE] + pixels[-1]
    border = pixels[:SIDE] + pixels[-SIDE:] + pixels[::SIDE] + pixels[SIDE - 1 :: SIDE]
    is_black = len(border.translate(None, DARK)) <= (1 - MIN_DARK) * len(border)
    is_light = len(pixels.translate(None, DIM)) > 0
    return corners < 255 and is_black and is_light and _is_in_place(gray)


def _is_in_place(gray: np.ndarray) -> bool:
    """Return whether the digit of a picture of MNIST's size is about where MNIST has it."""
    left, top, width, height = cv2.boundingRect(gray)
    longer = max(width, height)
    if longer > MAX_SIDE:
        return True
    if longer < MIN_SIDE:
        return False
    if _is_central(left + (width - 1) / 2, top + (height - 1) / 2):
        return True
    moments = cv2.moments(gray)
    return _is_central(moments["m10"] / moments["m00"], moments["m01"] / moments["m00"])


def _is_central(x: float, y: float) -> bool:
    return max(abs(x - (SIDE - 1) / 2), abs(y - (SIDE - 1) / 2)) <= MAX_SHIFT


def resized(gray: np.ndarray, longer: int) -> np.ndarray:
    """Resize a picture to `longer` pixels on its longer side: float32 (height, width)."""
    height, width = gray.shape
    factor = longer / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    if factor < 1:
        return cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.resize(gray.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)


def find_ink(picture: np.ndarray, longer: int) -> np.ndarray:
    """Return how much each pixel stands out from the background around it, from 0 to 1.

    Args:
        picture: The picture, uint8 (height, width).
        longer: The longer side of the result, in pixels.

    Returns:
        The ink, float32 (height, width) after `resized`.

    Raises:
        BlankError: No ink stands out.
    """
    gray = resized(picture, longer)
    smooth = _smoothed(gray)
    light = _light_tone(smooth)
    if light is not None and (sheet := _sheet(light, smooth)) is not None:
        gray = np.where(sheet, gray, np.median(gray[sheet]))
        smooth = _smoothed(gray)
        light = _light_tone(smooth)
    contrast = None if light is None else _contrast_of_tones(smooth, light)
    if contrast is None:
        contrast = _local_contrast(smooth, _is_light(gray), round(MAX_STROKE * max(gray.shape)))
    ink = _to_ink(contrast)
    # A shadow may be as narrow as a bold stroke. Then only narrower strokes are the ink.
    if ink is None or (max(picture.shape) >= MIN_SHADED and _may_have_shadow(ink, smooth)):
        usual = round(USUAL_STROKE * min(gray.shape)) | 1  # an odd kernel has a center
        strokes = _to_ink(_local_contrast(smooth, _is_light(gray), usual))
        if ink is None or (strokes is not None and _has_shadow(ink, strokes, smooth)):
            ink = strokes
    if ink is None:
        raise BlankError
    return ink


def _smoothed(gray: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(gray, (0, 0), 1.0).clip(0, 255)


def _light_tone(smooth: np.ndarray) -> np.ndarray | None:
    """Return which pixels are light, if the picture has two tones.

    Args:
        smooth: The smoothed picture, float32 (height, width), 0 to 255.

    Returns:
        uint8 (height, width), 0 or 1, or None if the picture has more tones than two.
    """
    _, light = cv2.threshold(smooth.astype(np.uint8), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    high, low = smooth[light > 0], smooth[light == 0]
    if not high.size or not low.size or _separation(high, low) < TWO_TONES:
        return None
    return light


def _sheet(light: np.ndarray, smooth: np.ndarray) -> np.ndarray | None:
    """Find a sheet of paper, or the inside of a box on a form, if the picture shows its edges.

    A sheet is a quadrilateral of one tone with something on it.

    Args:
        light: The result of `_light_tone`, uint8 (height, width).
        smooth: The smoothed picture, float32 (height, width), 0 to 255.

    Returns:
        The sheet with what is on it, without its soft edges, bool (height, width), or None.
    """
    for tone in (light, 1 - light):
        sides = tone[0], tone[-1], tone[:, 0], tone[:, -1]
        if sum(side.mean() > MIN_CONTACT for side in sides) > 2:
            continue
        outlines, _ = cv2.findContours(tone, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outline = max(outlines, key=cv2.contourArea)
        hull = cv2.convexHull(outline)
        tolerance = MAX_DEVIATION * cv2.arcLength(hull, closed=True)
        corners = cv2.approxPolyDP(hull, tolerance, closed=True)
        area = min(cv2.contourArea(outline), cv2.contourArea(corners))
        sheet = cv2.drawContours(np.zeros_like(tone), [outline], 0, 1, cv2.FILLED)
        written = sheet & ~tone
        paper, rest = smooth[tone > 0], smooth[tone == 0]
        if (
            len(corners) == 4
            and area >= max(MIN_FILLED * cv2.contourArea(hull), MIN_SHEET * tone.size)
            and written.sum() >= MIN_WRITTEN * area
            and _to_edge(written).max() <= USUAL_STROKE * _to_edge(sheet).max()
            and paper.std() <= MAX_UNEVEN * abs(paper.mean() - rest.mean())
        ):
            whole = cv2.fillConvexPoly(sheet, hull, 1)
            return cv2.erode(whole, np.ones((7, 7), np.uint8)) > 0
    return None


def _to_ink(contrast: np.ndarray) -> np.ndarray | None:
    """Scale the contrast to 0 for the background and 1 for the ink.

    Args:
        contrast: The contrast to the background, float32 (height, width), 0 to 255.

    Returns:
        The ink, float32 (height, width), 0 to 1, or None if no ink stands out.
    """
    threshold, _ = cv2.threshold(
        contrast.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    inked, bare = contrast[contrast > threshold], contrast[contrast <= threshold]
    if not inked.size or inked.mean() < MIN_CONTRAST:
        return None
    if _separation(inked, bare) < MIN_SEPARATION:
        return None
    return np.clip((contrast / np.median(inked) - FAINT) / (SOLID - FAINT), 0, 1)


def _to_edge(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel of a mask to the mask's edge, float32 (height, width).

    Args:
        mask: uint8 (height, width), 0 or 1. It continues beyond the edge of the picture.
    """
    return cv2.distanceTransform(mask, cv2.DIST_L2, 3)


def _middles(ink: np.ndarray) -> np.ndarray:
    """Return the middles of what may be wider than strokes, bool (height, width).

    Args:
        ink: The ink, float32 (height, width), 0 to 1.
    """
    distance = _to_edge((ink > 0.5).astype(np.uint8))
    return distance > MIN_MIDDLE * USUAL_STROKE * min(ink.shape)


def _may_have_shadow(ink: np.ndarray, smooth: np.ndarray) -> bool:
    """Return whether any pixel stands out more than the wide areas of the ink.

    Args:
        ink: The ink, float32 (height, width), 0 to 1.
        smooth: The smoothed picture, float32 (height, width), 0 to 255.
    """
    middles = _middles(ink)
    if not middles.any():
        return False
    background, middle = np.median(smooth[ink == 0]), np.median(smooth[middles])
    return any(_is_stronger(tone, middle, background) for tone in (smooth.min(), smooth.max()))


def _has_shadow(ink: np.ndarray, strokes: np.ndarray, smooth: np.ndarray) -> bool:
    """Return whether the strokes stand out more than the wide areas, which are then shadows.

    Args:
        ink: The ink, float32 (height, width), 0 to 1.
        strokes: The ink of strokes of the usual width only, in the same form.
        smooth: The smoothed picture, float32 (height, width), 0 to 255.
    """
    is_stroke = strokes > 0.5
    middles = _middles(ink) & ~is_stroke
    if middles.sum() < MIN_SHADOW * is_stroke.sum():
        return False
    areas = strokes == 1, middles, (ink == 0) & ~is_stroke
    return _is_stronger(*(np.median(smooth[area]) for area in areas))


def _is_stronger(stroke: float, middle: float, background: float) -> bool:
    """Return whether a stroke stands out more than a wide area, from their gray levels."""
    stroke, middle = stroke - background, middle - background
    if stroke * middle < 0:
        return abs(stroke) >= MIN_CONTRAST
    return abs(stroke) > MIN_STRONGER * abs(middle)


def _separation(inked: np.ndarray, bare: np.ndarray) -> float:
    """Return the difference of the means in units of the sum of the standard deviations."""
    return float((inked.mean() - bare.mean()) / (inked.std() + bare.std() + 1e-6))


def _contrast_of_tones(smooth: np.ndarray, light: np.ndarray) -> np.ndarray | None:
    """Return the contrast to the background's gray level in a picture of two tones.

    Ink that fills a large part of the picture, or touches its edge, needs no estimate of the
    background there.

    Args:
        smooth: The smoothed picture, float32 (height, width), 0 to 255.
        light: The result of `_light_tone`, uint8 (height, width).

    Returns:
        The contrast, float32 (height, width), or None if the ink is too wide for strokes.
    """
    # The background is the tone with more and wider areas: a stroke is narrow. The distances count
    # both.
    distances = [_to_edge(area) for area in (light, 1 - light)]
    sums = [float(part.sum()) for part in distances]
    widths = [float(part.max()) for part in distances]
    is_dark_ink = sums[0] > sums[1]
    # A bold digit that fills the picture may have as much ink as background. The tone of most
    # corners is then the background, unless all its areas are narrow, as in a box around a digit.
    corners = int(light[:: light.shape[0] - 1 or 1, :: light.shape[1] - 1 or 1].sum())
    corner = 0 if corners > 2 else 1  # position in `distances`
    if (
        max(sums) < SIMILAR_AREAS * min(sums)
        and corners != 2
        and widths[corner] >= MIN_WIDTH * widths[1 - corner]
    ):
        is_dark_ink = corner == 0
    if widths[is_dark_ink] > MAX_STROKE / 2 * max(smooth.shape):
        return None
    background = np.median(smooth[light == is_dark_ink])
    return (background - smooth if is_dark_ink else smooth - background).clip(0)


def _local_contrast(smooth: np.ndarray, is_light: bool, max_stroke: int) -> np.ndarray:
    """Return the contrast to the background around each pixel, float32 (height, width), 0 to 255.

    Args:
        smooth: The smoothed picture, float32 (height, width), 0 to 255.
        is_light: Whether the ink is lighter than the background.
        max_stroke: The maximum width of a stroke, in pixels.
    """
    # The black-hat transform subtracts the picture from its morphological closing, which estimates
    # the background under dark ink: it fills whatever is narrower than the kernel, and keeps uneven
    # lighting and the edges of shadows. The top-hat transform does the same for light ink.
    # A shadow divides the gray levels of paper and ink by the same number, and so their difference.
    # It changes the difference of their logarithms less: with the offset, half the light leaves
    # about three quarters of it. The factor gives a small difference to the median its value in
    # levels.
    unit = float(np.median(smooth)) + LOG_OFFSET
    logarithm = unit * np.log(smooth + LOG_OFFSET)
    padded = cv2.copyMakeBorder(logarithm, *(max_stroke,) * 4, cv2.BORDER_REPLICATE)
    transform = cv2.MORPH_TOPHAT if is_light else cv2.MORPH_BLACKHAT
    contrast = cv2.morphologyEx(padded, transform, np.ones((max_stroke, max_stroke), np.uint8))
    return contrast[max_stroke:-max_stroke, max_stroke:-max_stroke].clip(0, 255)


def _is_light(gray: np.ndarray) -> bool:
    """Return whether the ink is lighter than the background."""
    size = max(gray.shape[1] // 4, 1), max(gray.shape[0] // 4, 1)
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).clip(0, 255)
    # The frame of a box and the edge of a sheet are near the edge of the picture, so the inner part
    # decides, unless the ink is outside of it.
    down, right = (round(EDGE * length) for length in small.shape)
    inner = small[down : small.shape[0] - down, right : small.shape[1] - right]
    whole, part = _to_background(small), _to_background(inner)
    difference = part if np.abs(part).max() > 0.5 * np.abs(whole).max() else whole
    # The fourth power favors ink, which stands out more, over shadows, which have more pixels.
    return float((difference.clip(0) ** 4).sum()) > float(((-difference).clip(0) ** 4).sum())


def _to_background(gray: np.ndarray) -> np.ndarray:
    """Return the difference of each pixel to the median around it, float32 (height, width)."""
    side = max(min(gray.shape) // 2 * 2 - 1, 3)
    return gray - cv2.medianBlur(gray.astype(np.uint8), side)


def pieces_of(ink: np.ndarray, max_pieces: int) -> list[Piece]:
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


def without_lines(ink: np.ndarray, *, is_number: bool = False) -> np.ndarray:
    """Erase printed lines: of a box, of ruled or graph paper.

    A line is straight and thin, and spans most of the picture. It extends beyond the digit at both
    ends, or the digit lies between two parallel lines and touches neither. But if the digit is as
    high as the picture, a horizontal line about as thick as the strokes is one of them, such as the
    bar of a crossed 7. The lines may be turned by up to `MAX_ANGLE` degrees. Lines with gaps are
    erased if they are thinner than the strokes.

    Args:
        ink: The ink of the picture, float32 (height, width), 0 to 1.
        is_number: Whether the picture shows several digits. Then a horizontal line may end close to
            the first or the last digit. It may not have gaps, because strokes of several digits may
            look like a line with gaps.

    Returns:
        The ink without the lines, and without the small pieces where two lines meet. Strokes that
        cross a line are kept.
    """
    solid = (ink > 0.5).astype(np.uint8)
    angle = _angle_of_lines(solid)
    printed = _printed_lines(_turned(solid, angle), is_number=is_number).astype(np.uint8)
    kept = ink.copy()
    # A line that was cut off at the edge of the turned picture continues in its direction.
    kept[_turned(printed, -angle, cv2.BORDER_REPLICATE) > 0] = 0
    return kept


def _turned(mask: np.ndarray, angle: float, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """Turn a mask, uint8 (height, width), counterclockwise by an angle in degrees."""
    if not angle:
        return mask
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    return cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=border)


def _angle_of_lines(solid: np.ndarray) -> float:
    """Return by how many degrees to turn a picture so that its lines are horizontal.

    The Hough transform finds the longest lines that are nearly horizontal (Duda and Hart, "Use of
    the Hough transformation to detect lines and curves in pictures", 1972). In a thick line, it
    finds several that are about as long, so the function returns their median angle.

    Args:
        solid: The mask of the ink, uint8 (height, width), 0 or 1.

    Returns:
        From -`MAX_ANGLE` to `MAX_ANGLE`: 0 if there is no line, or if one that is about as long is
        horizontal or vertical.
    """
    lines = cv2.HoughLinesWithAccumulator(
        solid,
        rho=1,
        theta=np.radians(1),
        threshold=max(round(MIN_LINE * MIN_INKED * solid.shape[1]), 1),
        min_theta=np.radians(90 - MAX_ANGLE),
        max_theta=np.radians(90 + MAX_ANGLE + 0.5),  # OpenCV may leave out the end itself
    )
    if lines is None:
        return 0.0
    _, angles, lengths = lines.reshape(-1, 3).T
    if max(solid.mean(0).max(), solid.mean(1).max()) >= MIN_LEVEL * lengths[0] / solid.shape[1]:
        return 0.0
    return float(np.degrees(np.median(angles[lengths >= MIN_ALIKE * lengths[0]]))) - 90


def _printed_lines(solid: np.ndarray, *, is_number: bool) -> np.ndarray:
    """Return which pixels belong to printed lines, bool (height, width).

    Args:
        solid: The mask of the ink, uint8 (height, width), 0 or 1. Its lines are horizontal or
            vertical.
        is_number: Whether the picture shows several digits.
    """
    erased = np.zeros(solid.shape, bool)
    max_gap = 0 if is_number else MAX_GAP
    lines = [*_lines(solid, 0, max_gap), *_lines(solid, 1, max_gap)]
    if not lines:
        return erased
    rest = solid.copy()
    for line in lines:
        rest[line.mask] = 0
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(rest, connectivity=8)
    if count < 2:
        return erased
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    digit = Piece(labels == largest, *map(int, statistics[largest, :4]))
    if max(digit.width, digit.height) < MAX_LINE * max(solid.shape):
        return erased
    sides = [_side(line, digit) for line in lines]
    opposite = {(line.axis, -side) for line, side in zip(lines, sides, strict=True) if side}
    is_high = _height_of_parts(statistics[1:]) >= MIN_SPAN * solid.shape[0]
    thick = MIN_THICKNESS * _stroke_width(digit.mask.astype(np.uint8))
    printed = [
        line
        for line, side in zip(lines, sides, strict=True)
        if (
            _extends_beyond(line, digit)
            or (is_number and _extends_far(line, digit))
            or (line.axis, side) in opposite
        )
        and (line.thickness < thick or not (line.has_gaps or (line.axis == 0 and is_high)))
    ]
    for line in printed:
        erased |= line.soft & (rest == 0)
    for corner in _corners(printed, labels) - {largest}:
        erased |= labels == corner
    return erased


def _height_of_parts(statistics: np.ndarray) -> int:
    """Return the height of the larger pieces of ink together, in pixels.

    Args:
        statistics: OpenCV's statistics of the pieces, int32 (N, 5).
    """
    areas = statistics[:, cv2.CC_STAT_AREA]
    parts = statistics[areas >= MIN_PART * areas.max()]
    tops = parts[:, cv2.CC_STAT_TOP]
    return int((tops + parts[:, cv2.CC_STAT_HEIGHT]).max() - tops.min())


def _side(line: Line, digit: Piece) -> int:
    """Return -1 if a line lies above the digit or to its left, 1 if on the other side.

    Returns:
        0 if the line touches the digit, or is neither on one side nor on the other.
    """
    across = np.flatnonzero(line.mask.any(1 - line.axis))
    start, length = ((digit.top, digit.height), (digit.left, digit.width))[line.axis]
    if (line.soft & digit.mask).any():
        return 0
    return int(across[0] >= start + length) - int(across[-1] < start)


def _extends_beyond(line: Line, digit: Piece) -> bool:
    """Return whether a line extends beyond the digit at both ends."""
    return min(_beyond(line, digit)) >= MIN_BEYOND * line.mask.shape[1 - line.axis]


def _extends_far(line: Line, digit: Piece) -> bool:
    """Return whether a horizontal line extends far beyond the digit at one end."""
    return line.axis == 0 and max(_beyond(line, digit)) >= MIN_FAR * digit.height


def _beyond(line: Line, digit: Piece) -> tuple[int, int]:
    """Return by how many pixels a line extends beyond the digit at each end."""
    start, length = ((digit.left, digit.width), (digit.top, digit.height))[line.axis]
    return start - line.first, line.last + 1 - start - length


def _corners(lines: list[Line], labels: np.ndarray) -> set[int]:
    """Return the labels of the pieces of ink that touch a horizontal and a vertical line.

    Args:
        lines: The lines.
        labels: The number of the piece at each pixel, int32 (height, width). 0 is no piece.
    """
    touched: tuple[set[int], set[int]] = (set(), set())
    for line in lines:
        touched[line.axis].update(labels[line.soft].tolist())
    return touched[0] & touched[1] - {0}


def _lines(solid: np.ndarray, axis: int, max_gap: float) -> list[Line]:
    """Find the lines of one direction.

    Args:
        solid: The mask of the ink, uint8 (height, width), 0 or 1.
        axis: 0 for horizontal lines, 1 for vertical lines.
        max_gap: The maximum length of a gap in a line, as a fraction of the picture's side.
    """
    if axis:
        turned = _lines(np.ascontiguousarray(solid.T), 0, max_gap)
        return [replace(line, axis=1, mask=line.mask.T, soft=line.soft.T) for line in turned]
    found: list[Line] = []
    for gap in sorted({0.0, max_gap}):
        count, labels = cv2.connectedComponents(_long_runs(solid, gap), connectivity=8)
        for n in range(1, count):
            part = (labels == n) & (solid > 0)
            columns = part.sum(0)
            along = np.flatnonzero(columns)
            thickness = int(np.median(columns[along])) if along.size else 0
            if not 0 < thickness <= MAX_LINE * max(solid.shape):
                continue
            if gap and (
                along.size < MIN_INKED * (along[-1] + 1 - along[0])
                or any((line.soft & part).any() for line in found)
            ):
                continue
            part &= _opened(solid, (thickness + TILT, 1)) == 0  # without crossing strokes
            if part.any():
                soft = cv2.dilate(part.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
                ends = int(along[0]), int(along[-1])
                found.append(Line(0, part, soft, thickness, *ends, has_gaps=gap > 0))
    return found


def _long_runs(solid: np.ndarray, max_gap: float) -> np.ndarray:
    """Return the runs of ink along the rows that are as long as a line, uint8 (height, width).

    Args:
        solid: The mask of the ink, uint8 (height, width), 0 or 1.
        max_gap: The maximum length of a gap in a run, as a fraction of the width.
    """
    width = solid.shape[1]
    length = max(round(MIN_LINE * width), 1)
    if max_gap:  # only flat ink, without the strokes that would fill gaps
        solid = solid & ~_opened(solid, (round(MAX_LINE * max(solid.shape)) + TILT, 1))
    near = cv2.dilate(solid, np.ones((TILT, 1), np.uint8))
    if near.sum(1).max() < (MIN_INKED if max_gap else 1) * length:  # no row has enough ink
        return np.zeros_like(solid)
    if max_gap:
        bridge = np.ones((1, max(round(max_gap * width), 1)), np.uint8)
        near = cv2.morphologyEx(near, cv2.MORPH_CLOSE, bridge)
    return _opened(near, (1, length))


def _opened(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the parts of a mask into which a box of (height, width) pixels fits."""
    kernel = np.ones(size, np.uint8)
    return cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )


def _inside(pieces: list[Piece]) -> list[Piece]:
    """Return the pieces that do not touch the edge of the picture, if they form a digit.

    A digit either lies inside the picture or fills it. If a digit lies inside, pieces at the edge
    belong to something else, such as a box, a spiral or the table under the sheet. If one of them
    surrounds the others, and has more ink in the middle of the picture, it is a part of the digit.
    """
    inside = [piece for piece in pieces if not _touches_edge(piece)]
    if not inside or max(box_of(inside)[2:]) < MIN_INSIDE * max(box_of(pieces)[2:]):
        return pieces
    area = sum(int(piece.mask.sum()) for piece in inside)
    surrounding = [
        piece
        for piece in pieces
        if _touches_edge(piece) and box_of([piece]) == box_of([piece, *inside])
    ]
    return pieces if any(_central_area(piece) > area for piece in surrounding) else inside


def _touches_edge(piece: Piece) -> bool:
    height, width = piece.mask.shape
    right, bottom = piece.left + piece.width, piece.top + piece.height
    return piece.left == 0 or piece.top == 0 or right == width or bottom == height


def _central_area(piece: Piece) -> int:
    """Return the number of pixels of a piece in the middle of the picture."""
    down, right = (round(MIDDLE * length) for length in piece.mask.shape)
    return int(piece.mask[down : -down or None, right : -right or None].sum())


def box_of(pieces: list[Piece]) -> Box:
    """Return the box around some pieces."""
    left, top = min(p.left for p in pieces), min(p.top for p in pieces)
    right, bottom = max(p.left + p.width for p in pieces), max(p.top + p.height for p in pieces)
    return left, top, right - left, bottom - top


def to_image(ink: np.ndarray, pieces: list[Piece]) -> np.ndarray:
    """Normalize one digit.

    Args:
        ink: The ink of the picture, float32 (height, width), 0 to 1.
        pieces: The pieces of the digit.

    Returns:
        The image, uint8 (28, 28).
    """
    left, top, width, height = box_of(pieces)
    place = slice(top, top + height), slice(left, left + width)
    mask = np.logical_or.reduce([piece.mask[place] for piece in pieces]).astype(np.uint8)
    # The dilation adds the soft edges of the strokes, which are not part of the mask.
    digit = ink[place] * cv2.dilate(mask, np.ones((5, 5), np.uint8))
    return _centered(_scaled(digit, _stroke_width(mask)))


def _stroke_width(mask: np.ndarray) -> float:
    """Return the average width of the strokes in a mask, uint8 (height, width), in pixels."""
    # The average distance of a stroke's pixels to its edge is a quarter of its width.
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return 4 * float(_to_edge(padded)[padded > 0].mean()) - 1


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
