"""Draw digits in the handwriting styles of several countries, for training.

    dvc repro drawn_digits

MNIST's writers are from the USA. In other countries, many people write a 1 with an upstroke or a
foot, cross the 7, leave the 4 open, and write a 9 like a g or a 2 with a loop. The stage draws
digits in all these styles, with lines of random proportions.

The stage reads `data.drawn_digits` in params.yaml. It writes the training images and their labels
to `data/drawn_digits/`, in two IDX files with the names of MNIST's. It normalizes each picture with
the code of the service, so an image is what the network receives for such a picture.

A function draws one digit in about a square from -1 to 1, with y downward, as the functions of
`stages.common.drawings` do.
"""

from functools import partial

import numpy as np

from stages.common import drawings, idx, params, paths
from stages.common.drawings import Lines, Random, Shape, points, spline
from stages.common.idx import Split
from stages.common.outputs import atomic_directory


def make(count: int, seed: int) -> Split:
    """Draw `count` digits, from 0 to 9 in turn. Equal arguments give equal images.

    Returns:
        The images, uint8 (count, 28, 28), and the labels, uint8 (count,).
    """
    labels = (np.arange(count) % 10).astype(np.uint8)
    randoms = np.random.default_rng(seed).spawn(count)
    images = [
        drawings.normalized(partial(draw, DIGITS[label]), random)
        for label, random in zip(labels, randoms, strict=True)
    ]
    return np.stack(images), labels


def draw(digit: Shape, random: Random) -> np.ndarray:
    """Draw a digit with a pen of random width, as wide and as slanted as a hand might write it.

    Args:
        digit: The function that draws the lines.
        random: The source of all choices.

    Returns:
        The picture, uint8 (height, width), white ink on black.
    """
    narrowest = 0.85 if digit is _seven else 0.65  # a narrow 7 would be a 1
    widest = 1.05 if random.random() < 0.7 else 1.35  # scans are often stretched to a square
    width, slant = random.uniform(narrowest, widest), random.uniform(-0.15, 0.4)
    # The width of the pen does not depend on the size, so a smaller digit is bolder.
    matrix = random.uniform(0.6, 1) * np.array([[width, 0], [-slant, 1]])
    return drawings.distorted(
        drawings.draw(lambda own: [line @ matrix for line in digit(own)], random), random
    )


def _arc(x: float, y: float, width: float, height: float, start: float, end: float) -> np.ndarray:
    """Return points on the ellipse around (x, y) with the radii `width` and `height`.

    The angles `start` and `end` are in degrees: 0 is right, 90 is down.
    """
    angles = np.radians(np.linspace(start, end, max(4, round(abs(end - start) / 12))))
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def _zero(random: Random) -> Lines:
    """Draw an oval, closed or with a gap. It may end inside. A wide one may have a slash."""
    start, turn = random.uniform(-150, 0), random.choice([-1, 1])
    width, end = random.uniform(0.35, 0.95), start + turn * random.uniform(325, 425)
    oval = _arc(0, 0, width, 1, start, end)
    inward = np.linspace(0, 1, len(oval)) ** 2 * random.uniform(0, 0.35)
    lines = [oval * (1 - inward[:, np.newaxis])]
    if width > 0.6 and random.random() < 0.15:
        x, y = random.uniform((0.3, 0.5), (0.8, 1.1))
        lines.append(points((-x, y), (x, -y)))
    return lines


def _one(random: Random) -> Lines:
    """Draw a plain stroke, or one with an upstroke or a loop, perhaps with a foot."""
    lean = random.uniform(-0.1, 0.25)
    top, bottom = np.array([lean, -1]), np.array([-lean, 1])
    if random.random() < 0.15:
        return [spline(np.stack([top, [random.normal(0, 0.06), 0], bottom]))]
    # A flatter upstroke would be the bar of a 7. (The angle is the one before the slant.)
    length, angle = random.uniform(0.2, 1.15), np.radians(random.uniform(30, 68))
    if random.random() < 0.3:  # from near the bottom
        length, angle = random.uniform(1.2, 1.9), np.radians(random.uniform(52, 75))
    start = top + length * np.array([-np.cos(angle), np.sin(angle)])
    middle = (start + top) / 2 + random.normal(0, 0.05, 2) + random.uniform(0, 0.06)
    if length > 1.2 and random.random() < 0.3:  # like an l
        turn = top + np.array([random.uniform(0.05, 0.2), 0])
        down = turn + np.array([-0.25, 0.2])
        lines = [spline(np.stack([start, middle, turn, down, bottom]), 6)]
    else:
        lines = [_joined(spline(np.stack([start, middle, top]), 6), bottom[np.newaxis])]
    if length < 1.2 and random.random() < 0.35:  # a long upstroke and a foot would be a triangle
        left, right = random.uniform(0.2, 0.7, 2)
        tilt = random.normal(0, 0.05)
        lines.append(points((bottom[0] - left, 1 + tilt), (bottom[0] + right, 1 - tilt)))
    return lines


def _two(random: Random) -> Lines:
    """Draw a 2 with a pointed or looped corner, or like a z."""
    width, height = random.uniform(0.5, 0.8), random.uniform(0.4, 0.55)
    style = random.random()
    if style < 0.1:
        tilt, base = random.normal(0, 0.06, 2)
        right = width * random.uniform(0.9, 1.2)
        return [points((-width, tilt - 1), (width, -1), (-width, 1), (right, base + 1))]
    y = height - 1
    head = _arc(0, y, width, height, random.uniform(-200, -140), random.uniform(10, 60))
    if style < 0.45:
        radius, high = random.uniform(0.12, 0.25, 2)
        x = -width * random.uniform(0.6, 0.9)
        loop = _arc(x, 1 - high, radius, high, 60, random.uniform(260, 340))
        end = width * random.uniform(1, 1.4), 1 - random.uniform(0.05, 0.3)
        tail = points((random.uniform(0.2, 0.5), 1 - random.uniform(0, 0.12)), end)
        return [spline(_joined(head, loop, tail), 4)]
    corner = points((-width * random.uniform(0.8, 1.1), 1))
    before = corner + np.array([random.uniform(0.1, 0.4), -random.uniform(0.15, 0.4)])
    middle, right = random.normal(0, 0.07, 2)
    base = _joined(corner, points((0, 1 + middle), (width * random.uniform(0.8, 1.3), 1 + right)))
    return [_joined(spline(_joined(head, before, corner), 4), spline(base, 5))]


def _three(random: Random) -> Lines:
    """Draw a 3 with a round or a flat top."""
    radius, width = random.uniform(0.38, 0.5), random.uniform(0.5, 0.75)
    middle = 2 * radius - 1
    wide, start, end = width * random.uniform(0.95, 1.3), *random.uniform((-95, 110), (-70, 165))
    bowl = _arc(0, middle + 1 - radius, wide, 1 - radius, start, end)
    notch = points((random.uniform(-0.25, 0.15), middle))
    if random.random() < 0.35:
        left, right = width * random.uniform(0.8, 1.1, 2)
        top = points((-left, random.normal(-1, 0.06)), (right, -1))
    else:
        top = _arc(0, radius - 1, width, radius, *random.uniform((-170, 60), (-130, 95)))
    return [_joined(top, notch, bowl)]


def _four(random: Random) -> Lines:
    """Draw a closed 4 in one or two strokes, or an open one."""
    bar, tilt = random.uniform(0.05, 0.5), random.normal(0, 0.06)
    x, foot = random.uniform(0.15, 0.5), random.uniform(-0.15, 0.1)
    left, right = -random.uniform(0.6, 0.9), x + random.uniform(0.1, 0.5)
    stem_end = x + foot, 1.0
    if random.random() < 0.4:
        top = x + random.uniform(-0.15, 0.1)
        angle = [(top, -1.0), (left, bar), (right, bar + tilt)]
        if random.random() < 0.5:
            return [points(stem_end, *angle)]
        return [points(*angle), points((top, random.uniform(-1.1, -0.7)), stem_end)]
    start = left + random.uniform(0, 0.45), random.uniform(-1, -0.7)
    if random.random() < 0.4:
        side = (start[0] + left) / 2 - 0.05, (bar - 1) / 2
        near, end = (x, bar - random.uniform(0, 0.15)), (right, bar - random.uniform(-0.05, 0.3))
        cup = spline(points(start, side, (left + 0.15, bar), near, end), 6)
    else:
        cup = points(start, (left, bar), (right, bar + tilt))
    top = random.uniform(-1, -0.25) if random.random() < 0.7 else random.uniform(-0.25, bar - 0.1)
    return [cup, points((x - foot / 2, top), stem_end)]


def _five(random: Random) -> Lines:
    """Draw a 5 in one or two strokes, or like an s."""
    width, radius = random.uniform(0.45, 0.75), random.uniform(0.5, 0.65)
    x, right = -width * random.uniform(0.75, 1.05), width * random.uniform(0.7, 1.3)
    start, end = random.uniform((-140, 110), (-105, 165))
    bowl = _arc(0, 1 - radius, width * random.uniform(1, 1.25), radius, start, end)
    knee = 1 - 2 * radius
    neck = points((x + random.uniform(0, 0.15), -1), (x, knee + random.uniform(-0.05, 0.2)))
    style, tilt = random.random(), random.normal(0, 0.09)
    if style < 0.5:
        bar = points((neck[0, 0] + random.uniform(-0.15, 0.15), -1 - tilt), (right, -1 + tilt))
        return [_joined(neck, bowl), bar]
    if style < 0.7:
        curve = points((right, -1), (0, -1), (x, -0.75), (0.8 * x, knee + 0.1))
        return [spline(_joined(curve, bowl), 4)]
    return [_joined(points((right, -1 + tilt)), neck, bowl)]


def _six(random: Random) -> Lines:
    """Draw a 6 with a straight or a curled stem."""
    width, radius = random.uniform(0.5, 0.9), random.uniform(0.36, 0.55)
    y = 1 - radius
    if random.random() < 0.4:
        start = points((random.uniform(-0.1, 0.6), -1))
        bend = [-0.55 * width - random.uniform(0, 0.15), 0.55 * y - 0.05]
        stem = _joined(start, start * 0.45 + bend)
    else:
        wide = width + random.uniform(0.1, 0.5)
        stem = _arc(0, y, wide, y + 1, random.uniform(-80, -50), -165)
        stem[:, 0] += 0.03 - width - stem[-1, 0]
    end = random.uniform(-260, -180) if random.random() < 0.8 else -175
    return [spline(_joined(stem, _arc(0, y, width, radius, 180, end)), 4)]


def _seven(random: Random) -> Lines:
    """Draw a 7, perhaps crossed, with a serif, or with a wavy bar."""
    width, y = random.uniform(0.45, 0.8), -1 + random.uniform(-0.12, 0.12)
    corner = points((width, -1))
    foot = points((width - random.uniform(0.45, 1.3), 1))
    bar = points((-width, y))
    style = random.random()
    if style < 0.35:
        bar = _joined(points((random.normal(-width, 0.06), y + random.uniform(0.15, 0.45))), bar)
    elif style < 0.55:
        down, up = random.uniform(0, 0.12, 2)
        bar = points((-width, y + 0.1), (-0.4 * width, y - down), (0.3 * width, y + up))
    if random.random() < 0.5:
        bow = (corner + foot) / 2 - random.uniform(0, (0.3, 0.2))
        stem = spline(_joined(corner, bow, foot), 6)
    else:
        stem = _joined(corner, foot)
    lines = [_joined(bar, stem)]
    if random.random() < 0.5:
        height, half = random.uniform(0.4, 0.65), random.uniform(0.2, 0.7)
        x, y = ((1 - height) * corner + height * foot)[0] + [random.normal(0, 0.06), 0]
        tilt = half * random.uniform(-0.15, 0.3)
        lines.append(points((x - half, y + tilt), (x + half, y - tilt)))
    return lines


def _eight(random: Random) -> Lines:
    """Draw an 8 as two circles, or in one stroke."""
    radius, width = random.uniform(0.38, 0.5), random.uniform(0.4, 0.65)
    wide, waist = width * random.uniform(1, 1.35), 2 * radius - 1
    if random.random() < 0.35:
        overlap, x = random.uniform(-0.04, 0.08), random.normal(0, 0.06)
        starts = random.uniform(-180, 180, 2)
        ends = starts + random.uniform(350, 390, 2)
        lower = radius, wide, 1 - radius + overlap
        return [
            _arc(x, radius - 1, width, radius + overlap, starts[0], ends[0]),
            _arc(0, *lower, starts[1], ends[1]),
        ]
    t = np.linspace(0, 2 * np.pi, 40) + random.uniform(-1.3, 0.8)
    is_upper, side = np.cos(t) > 0, random.choice([-1, 1], p=[0.75, 0.25])
    x = side * np.sin(2 * t) * np.where(is_upper, width, wide)
    y = waist - np.cos(t) * np.where(is_upper, 1 + waist, 1 - waist)
    gap = int(random.integers(0, 7))
    return [np.stack([x, y], axis=1)[: len(t) - gap]]


def _nine(random: Random) -> Lines:
    """Draw a 9 with a straight, a bent or a hooked stem, in one or two strokes, or like an S."""
    if random.random() < 0.06:
        return [spline(_s_with_a_ring(random), 6)]
    width, radius = random.uniform(0.45, 0.9), random.uniform(0.28, 0.5)
    y = radius - 1
    ring = _arc(0, y, width, radius, random.uniform(-60, 0), random.uniform(-380, -345))
    style = random.random()
    if style < 0.4:  # some lean so much that the stem crosses the ring
        lean = random.uniform(-0.45 if style < 0.28 else -1.3, 0.15)
        return [_joined(ring, points((width + lean, 1)))]
    if style < 0.7:  # like a g
        wide, high = random.uniform((0.4, 0.3), (0.9, 0.7))
        return [_joined(ring, _arc(width - wide, 1 - high, wide, high, 0, random.uniform(90, 170)))]
    end = width * random.uniform(0.3, 0.8), 1.0
    bend = points((width + random.uniform(-0.05, 0.1), 0.1), end)
    if style < 0.82:
        stem = _joined(points((width, random.uniform(-1, -0.7))), bend)
        return [_arc(0, y, width, radius, random.uniform(-20, 20), -360), spline(stem, 6)]
    return [_joined(ring[:-1], spline(_joined(ring[-1:], bend), 6))]


def _s_with_a_ring(random: Random) -> np.ndarray:
    """Return points of a 9 like an S whose upper end turns back to the middle."""
    right, y = random.uniform(0.6, 0.9), random.uniform(-0.2, 0.05)
    ring = points((random.uniform(-0.1, 0.2), y), (right, -0.7), (0.2, -1), (-0.6, -0.65))
    stem = points((0, y + 0.1), (random.uniform(0.4, 0.6), 0.5), (0.1, 0.9))
    return _joined(ring, stem, points((-random.uniform(0.2, 0.5), 1)))


DIGITS: list[Shape] = [
    _zero, _one, _two, _three, _four, _five, _six, _seven, _eight, _nine
]  # fmt: skip


def main() -> None:
    wanted = params.load().data.drawn_digits
    with atomic_directory(paths.DRAWN_DIGITS) as folder:
        images, labels = make(wanted.training, wanted.seed)
        idx.save(folder, {"training": (images, labels)})
        print(f"{len(labels):,} digits")
