"""Draw lines with a pen: shapes and scribbles for `non_digits`, and digits for `drawn_digits`.

A drawing is a list of lines in a square from -1 to 1, with y downward. Each function draws its
lines with random proportions. The network is tested on kinds of shapes and scribbles that it was
not trained on.

No shape or scribble here could be taken for a digit: there is no circle or oval (0), no single
stroke (1), no infinity sign or hourglass (8), and no wave or zigzag of fewer than four bends (2,
5, 7).
"""

from collections.abc import Callable

import cv2
import numpy as np

from service.recognition import preprocessing

SIZE = 128  # pixels: the width and height of a picture
SUBPIXELS = 4  # bits of the fraction of a pixel, for OpenCV
# Pixels: the largest radius of a filled shape. A wider one would be background to the service.
FILLED_RADIUS = 26

Random = np.random.Generator
Lines = list[np.ndarray]  # points (N, 2) of each line, x and y
Shape = Callable[[Random], Lines]


def draw(shape: Shape, random: Random) -> np.ndarray:
    """Draw a shape with a pen of random width.

    Args:
        shape: The function that draws the lines.
        random: The source of the lines, the width, the size and small shifts of the points.

    Returns:
        The picture, uint8 (SIZE, SIZE), white ink on black.
    """
    filled = shape is _disc or (shape in FILLABLE and random.random() < 0.5)
    radius = random.uniform(20, FILLED_RADIUS) if filled else random.uniform(32, 42)
    width = round(radius * random.uniform(0.08, 0.16 if shape in DENSE else 0.36))
    picture = np.zeros((SIZE, SIZE), np.uint8)
    for line in shape(random):
        moved = line + random.normal(0, 0.02, line.shape)
        pixels = np.rint((SIZE / 2 + radius * moved) * (1 << SUBPIXELS)).astype(np.int32)
        if filled:
            cv2.fillPoly(picture, [pixels], 255, cv2.LINE_AA, SUBPIXELS)
        cv2.polylines(picture, [pixels], False, 255, max(width, 3), cv2.LINE_AA, SUBPIXELS)
    return picture


def distorted(picture: np.ndarray, random: Random) -> np.ndarray:
    """Turn, slant, stretch and bend a picture a little, as if a hand had drawn it.

    Args:
        picture: The picture, uint8 (height, width), black at its borders.
        random: The source of the distortion.

    Returns:
        A picture of the same size.
    """
    height, width = picture.shape
    angle, slant = random.uniform(-0.2, 0.2, 2)
    x, y = random.uniform(0.9, 1.15, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[x, slant], [0, y]])
    bends = random.normal(0, 0.02 * min(height, width), (4, 4, 2))
    bend = cv2.resize(bends, (width, height), interpolation=cv2.INTER_CUBIC)
    columns = np.arange(width) - width / 2
    rows = np.arange(height)[:, np.newaxis] - height / 2
    source_x = columns * matrix[0, 0] + rows * matrix[0, 1] + bend[..., 0] + width / 2
    source_y = columns * matrix[1, 0] + rows * matrix[1, 1] + bend[..., 1] + height / 2
    return cv2.remap(
        picture, source_x.astype(np.float32), source_y.astype(np.float32), cv2.INTER_LINEAR
    )


def normalized(draw: Callable[[Random], np.ndarray], random: Random) -> np.ndarray:
    """Draw pictures until the service finds ink in one.

    Args:
        draw: The function that draws a picture, uint8 (height, width).
        random: Its argument.

    Returns:
        The image that the network would receive, uint8 (28, 28).
    """
    while True:
        try:
            return preprocessing.extract_digit(draw(random))
        except preprocessing.BlankError:
            continue


def points(*positions: tuple[float, float]) -> np.ndarray:
    """Return positions, x and y, as a line (N, 2)."""
    return np.array(positions, float)


def _closed(*corners: tuple[float, float]) -> np.ndarray:
    return points(*corners, corners[0])


def _polar(radii: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return points (N, 2) at distances from the center and angles from the top, in radians."""
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _circle(radius: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Return a circle around a point."""
    return _polar(np.full(30, radius), np.linspace(0, 2 * np.pi, 30)) + np.array([x, y])


def _rotation(angle: float) -> np.ndarray:
    """Return the matrix (2, 2) that turns the rows of points (N, 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def spline(knots: np.ndarray, steps: int = 12) -> np.ndarray:
    """Return a smooth line through points (N, 2): a Catmull-Rom spline."""
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    a, b, c, d = (padded[n : len(padded) - 3 + n, np.newaxis] for n in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[:, np.newaxis]
    curve = b + t * ((c - a) + t * ((2 * a - 5 * b + 4 * c - d) + t * (3 * (b - c) + d - a))) / 2
    return np.concatenate([curve.reshape(-1, 2), knots[-1:]])


def _heart(random: Random) -> Lines:
    t = np.linspace(0, 2 * np.pi, 40)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 15
    return [np.stack([random.uniform(0.85, 1.15) * x, y], axis=1)]


def _star(random: Random) -> Lines:
    tips = int(random.integers(5, 8))
    radii = np.where(np.arange(2 * tips + 1) % 2, random.uniform(0.35, 0.5), 1)
    return [_polar(radii, np.arange(2 * tips + 1) * np.pi / tips)]


def _pentagram(random: Random) -> Lines:
    """Draw a star of five tips with one line that crosses itself."""
    return [_polar(np.ones(6), np.arange(6) * 4 * np.pi / 5)]


def _triangle(random: Random) -> Lines:
    upright = random.choice([-1, 1])
    half, top = random.uniform(0.75, 1.0), random.uniform(-0.3, 0.3)
    return [_closed((top, -0.85 * upright), (half, 0.75 * upright), (-half, 0.75 * upright))]


def _square(random: Random) -> Lines:
    x, y = random.uniform(0.7, 0.95, 2)
    return [_closed((-x, -y), (x, -y), (x, y), (-x, y))]


def _cross(random: Random) -> Lines:
    x, y = random.uniform(0.65, 0.95, 2)
    return [points((-x, -y), (x, y)), points((x, -y), (-x, y))]


def _plus(random: Random) -> Lines:
    x, y = random.uniform(0.75, 1.0, 2)
    return [points((-x, 0), (x, 0)), points((0, -y), (0, y))]


def _check_mark(random: Random) -> Lines:
    left, bottom = random.uniform(-0.95, -0.8), random.uniform(0.6, 0.8)
    return [points((left, random.uniform(-0.1, 0.1)), (-0.3, bottom), (0.95, -0.75))]


def _cloud(random: Random) -> Lines:
    """Draw bumps above a flat bottom."""
    angles = np.linspace(0, 2 * np.pi, 80)
    bumps = np.abs(np.sin(random.uniform(2.8, 3.7) * (angles - np.pi)))
    outline = _polar(random.uniform(0.5, 0.6) + 0.45 * bumps, angles)
    return [np.stack([outline[:, 0], (0.7 * outline[:, 1]).clip(max=0.3)], axis=1)]


def _wave(random: Random) -> Lines:
    """Draw one to three waves above each other."""
    rows = int(random.integers(1, 4))
    x = np.linspace(-1, 1, 60)
    y = random.uniform(0.12, 0.25) * np.sin(random.uniform(2.6, 4) * np.pi * x)
    return [np.stack([x, y + row], axis=1) for row in np.linspace(-0.6, 0.6, rows)]


def _zigzag(random: Random) -> Lines:
    bends = int(random.integers(5, 9))
    y = np.where(np.arange(bends) % 2, 1, -1) * random.uniform(0.25, 0.6)
    return [np.stack([np.linspace(-1, 1, bends), y], axis=1)]


def _asterisk(random: Random) -> Lines:
    """Draw three or four lines that cross in the middle."""
    angles = np.arange(n := int(random.integers(3, 5))) * np.pi / n
    return [_polar(np.array([1.0, -1.0]), np.full(2, angle)) for angle in angles]


def _grid(random: Random) -> Lines:
    inner = random.uniform(0.25, 0.4)
    places = [-inner, inner] if random.random() < 0.6 else [-0.6, 0.0, 0.6]
    across = [points((-1, place), (1, place)) for place in places]
    return across + [points((place, -1), (place, 1)) for place in places]


def _dots(random: Random) -> Lines:
    """Draw three to six dots in a triangle or a ring, never in a row."""
    count = int(random.integers(3, 7))
    places = _polar(random.uniform(0.6, 1, count), np.arange(count) * 2 * np.pi / count)
    return [place + random.uniform(-0.04, 0.04, (2, 2)) for place in places]


def _blot(random: Random) -> Lines:
    """Draw a spot of ink with spikes."""
    spikes = int(random.integers(5, 9))
    radii = np.where(np.arange(2 * spikes) % 2, 0.45, 1) * random.uniform(0.7, 1, 2 * spikes)
    knots = _polar(radii, np.arange(2 * spikes) * np.pi / spikes)
    return [spline(np.concatenate([knots, knots[:1]]), 6)]


def _flower(random: Random) -> Lines:
    petals = int(random.integers(4, 7))
    angles = np.linspace(0, 2 * np.pi, 100)
    return [_polar(0.6 + random.uniform(0.3, 0.4) * np.cos(petals * angles), angles)]


def _envelope(random: Random) -> Lines:
    height = random.uniform(0.55, 0.7)
    corners = (-1, -height), (1, -height), (1, height), (-1, height)
    return [_closed(*corners), points((-1, -height), (0, 0.15), (1, -height))]


def _stairs(random: Random) -> Lines:
    """Draw three steps up or down; more would look like one slanted stroke."""
    places = np.linspace(-0.9, 0.9, 4)
    x, y = places.repeat(2)[1:], -places.repeat(2)[:-1]
    return [np.stack([random.choice([-1, 1]) * x, y], axis=1)]


def _bars(random: Random) -> Lines:
    """Draw three or four horizontal lines."""
    width = random.uniform(0.75, 1)
    places = np.linspace(-0.75, 0.75, int(random.integers(3, 5)))
    return [points((-width, place), (width, place)) for place in places]


def _arrow(random: Random) -> Lines:
    head, turn = random.uniform(0.4, 0.65), _rotation(random.integers(0, 8) * np.pi / 4)
    shaft = points((-1, 0), (1, 0))
    barbs = points((1 - head, -head), (1, 0), (1 - head, head))
    return [line @ turn for line in (shaft, barbs)]


def _smiley(random: Random) -> Lines:
    around = np.linspace(0, 2 * np.pi, 40)
    mouth = np.linspace(0.65 * np.pi, 1.35 * np.pi, 12)
    x = random.uniform(0.3, 0.4)
    eyes = [points((side, -0.5), (side, -0.1)) for side in (-x, x)]
    return [_polar(np.ones(40), around), _polar(np.full(12, 0.55), mouth), *eyes]


def _spiral(random: Random) -> Lines:
    """Draw a spiral of more than two turns; a shorter one would be a 6 or a 9."""
    turns = random.uniform(2.1, 2.7)
    t = np.linspace(0.02, 1, 80)
    return [
        _polar(t, random.uniform(0, 2 * np.pi) + random.choice([-1, 1]) * turns * 2 * np.pi * t)
    ]


def _house(random: Random) -> Lines:
    wall, eaves = random.uniform(0.6, 0.8), random.uniform(-0.3, 0.0)
    outline = _closed((-wall, 0.9), (-wall, eaves), (0, -1), (wall, eaves), (wall, 0.9))
    door = points((-0.2, 0.9), (-0.2, 0.35), (0.2, 0.35), (0.2, 0.9))
    return [outline, points((-wall, eaves), (wall, eaves)), door]


def _tree(random: Random) -> Lines:
    width = random.uniform(0.6, 0.8)
    levels = [
        _closed((0, top), (width * size, top + 0.7), (-width * size, top + 0.7))
        for top, size in ((-1, 0.75), (-0.45, 1.0))
    ]
    return [*levels, points((0, 0.25), (0, 1))]


def _stick_figure(random: Random) -> Lines:
    head = _polar(np.full(16, 0.25), np.linspace(0, 2 * np.pi, 16)) + np.array([0, -0.75])
    arms, feet = random.uniform(-0.4, 0.1), random.uniform(0.4, 0.6)
    return [
        head,
        points((0, -0.5), (0, 0.3)),
        points((-0.65, arms), (0, -0.2), (0.65, arms)),
        points((-feet, 1), (0, 0.3), (feet, 1)),
    ]


def _umbrella(random: Random) -> Lines:
    dome = _polar(np.full(20, 0.95), np.linspace(-np.pi / 2, np.pi / 2, 20))
    hook = points((0, -0.9), (0, 0.75), (0.15, 0.95), (0.35, 0.85))
    scallops = [
        _polar(np.full(9, 0.32), np.linspace(-np.pi / 2, np.pi / 2, 9)) + np.array([x, 0])
        for x in (-0.63, 0.0, 0.63)
    ]
    return [dome, *scallops, hook]


def _tangle(random: Random) -> Lines:
    """Draw a smooth line that crosses the middle many times, in all directions."""
    count = int(random.integers(8, 13))
    directions = np.cumsum(random.uniform(0.7 * np.pi, 0.98 * np.pi, count))
    return [spline(_polar(random.uniform(0.3, 1, count), directions))]


def _strokes(random: Random) -> Lines:
    """Draw five to seven strokes, straight or bent, at random places in all directions."""
    lines = []
    for turn in np.linspace(0, np.pi, int(random.integers(5, 8)), endpoint=False):
        center, angle = random.uniform(-0.6, 0.6, 2), turn + random.uniform(-0.3, 0.3)
        half = random.uniform(0.35, 0.8) * np.array([np.cos(angle), np.sin(angle)])
        knots = np.stack([center - half, center + random.normal(0, 0.15, 2), center + half])
        lines.append(spline(knots))
    return lines


def _loops(random: Random) -> Lines:
    """Draw loops from left to right, as when trying a pen."""
    loops = int(random.integers(3, 6))
    t = np.linspace(0, 2 * np.pi * loops, 16 * loops)
    radius, slant = random.uniform(0.4, 0.65), random.uniform(-0.3, 0.6)
    y = radius * np.sin(t)
    x = np.linspace(-0.7, 0.7, len(t)) + 0.5 * radius * np.cos(t) - slant * y
    return [np.stack([x, y], axis=1)]


def _hatching(random: Random) -> Lines:
    """Draw one line back and forth, as when crossing something out."""
    turns = int(random.integers(6, 9))
    x = np.where(np.arange(turns) % 2, 1, -1) * random.uniform(0.6, 1, turns)
    y = np.linspace(-0.7, 0.7, turns) + random.normal(0, 0.08, turns)
    return [spline(np.stack([x, y], axis=1) @ _rotation(random.uniform(-0.8, 0.8)), 6)]


def _disc(random: Random) -> Lines:
    """Draw a round blot, which is always filled."""
    angles = np.linspace(0, 2 * np.pi, 30)
    return [_polar(np.ones(30), angles) * np.array([random.uniform(0.85, 1.0), 1])]


def _wheel(random: Random) -> Lines:
    """Draw a circle with two to four lines through its center."""
    angles = np.arange(n := int(random.integers(2, 5))) * np.pi / n + random.uniform(0, np.pi)
    spokes = [_polar(np.array([1.0, -1.0]), np.full(2, angle)) for angle in angles]
    return [_circle(1), *spokes]


def _target(random: Random) -> Lines:
    """Draw circles around each other."""
    return [_circle(radius) for radius in np.linspace(1, random.uniform(0.25, 0.4), 3)]


def _clock(random: Random) -> Lines:
    """Draw a circle with two hands."""
    first = random.uniform(0, 2 * np.pi)
    angles = first + np.array([0, random.uniform(0.5, 1.5) * np.pi])
    minute, hour = _polar(np.array([0.75, 0.5]), angles)
    return [_circle(1), np.stack([minute, np.zeros(2), hour])]


def _sun(random: Random) -> Lines:
    """Draw a circle with rays."""
    angles = np.arange(n := int(random.integers(6, 10))) * 2 * np.pi / n
    return [_circle(0.5), *(_polar(np.array([0.65, 1.0]), np.full(2, angle)) for angle in angles)]


def _crown(random: Random) -> Lines:
    x, y, middle = 0.9, random.uniform(0.5, 0.7), random.uniform(0.0, 0.3)
    return [_closed((-x, y), (-x, -y), (-0.45, middle), (0, -y), (0.45, middle), (x, -y), (x, y))]


def _ladder(random: Random) -> Lines:
    x, count = random.uniform(0.35, 0.5), int(random.integers(3, 6))
    rungs = [points((-x, y), (x, y)) for y in np.linspace(-0.7, 0.7, count)]
    return [points((-x, -1), (-x, 1)), points((x, -1), (x, 1)), *rungs]


def _boat(random: Random) -> Lines:
    y, width = random.uniform(0.3, 0.45), random.uniform(0.8, 1.0)
    hull = _closed((-width, y), (width, y), (0.55 * width, 0.95), (-0.55 * width, 0.95))
    sail = _closed((0, -1), (0, y - 0.1), (random.choice([-1, 1]) * 0.7, y - 0.1))
    return [hull, sail]


def _fish(random: Random) -> Lines:
    body = _circle(1) * np.array([0.65, random.uniform(0.35, 0.5)]) - np.array([0.3, 0])
    tail = points((0.3, 0), (1, -0.45), (1, 0.45), (0.3, 0))
    side = random.choice([-1, 1])
    return [line * np.array([side, 1]) for line in (body, tail)]


def _cup(random: Random) -> Lines:
    top, bottom = random.uniform(0.6, 0.7), random.uniform(0.4, 0.6)
    body = _closed((-top, -0.7), (top, -0.7), (bottom, 0.8), (-bottom, 0.8))
    handle = _polar(np.full(12, 0.4), np.linspace(0, np.pi, 12)) + np.array([top - 0.1, -0.1])
    return [body, handle]


def _eye(random: Random) -> Lines:
    x, bulge = np.linspace(-1, 1, 20), random.uniform(0.45, 0.65)
    lid = np.stack([x, bulge * (1 - x**2)], axis=1)
    return [lid, lid * np.array([1, -1]), _circle(random.uniform(0.2, 0.3))]


def _car(random: Random) -> Lines:
    roof = random.uniform(0.3, 0.5)
    front = (roof, -0.6), (0.6, -0.1), (1, 0), (1, 0.3)
    body = _closed((-1, 0.3), (-1, -0.1), (-0.6, -0.15), (-roof, -0.6), *front)
    return [body, _circle(0.22, -0.55, 0.4), _circle(0.22, 0.55, 0.4)]


def _brackets(random: Random) -> Lines:
    """Draw a pair of brackets, pointed or square."""
    outer, inner = random.uniform(0.85, 1), random.uniform(0.4, 0.6)
    corners = [(-outer, 0)] if random.random() < 0.5 else [(-outer, -0.9), (-outer, 0.9)]
    line = points((-inner, -0.9), *corners, (-inner, 0.9))
    return [line, line * np.array([-1, 1])]


def _figures(random: Random) -> Lines:
    """Draw three or four circles, squares, triangles, crosses, lines and arcs in random places."""
    arc = _polar(np.ones(15), np.linspace(0, random.uniform(0.6, 1.4) * np.pi, 15))
    line = points((-1.2, 0), (1.2, 0))
    kinds = [[_circle(1)], _square(random), _triangle(random), _cross(random), [line], [arc]]
    lines = []
    for kind in random.integers(len(kinds), size=int(random.integers(3, 5))):
        center, radius = random.uniform(-0.55, 0.55, 2), random.uniform(0.25, 0.55)
        turn = _rotation(random.uniform(0, 2 * np.pi))
        lines += [radius * part @ turn + center for part in kinds[kind]]
    return lines


SHAPES: dict[str, list[Shape]] = {
    "training": [
        _heart,
        _star,
        _pentagram,
        _triangle,
        _square,
        _cross,
        _plus,
        _check_mark,
        _cloud,
        _wave,
        _zigzag,
        _asterisk,
        _grid,
        _dots,
        _blot,
        _flower,
        _envelope,
        _stairs,
        _bars,
        _disc,
        _wheel,
        _target,
        _clock,
        _sun,
        _crown,
        _ladder,
        _boat,
        _fish,
        _cup,
        _eye,
        _car,
        _brackets,
    ],
    "testing": [_arrow, _smiley, _spiral, _house, _tree, _stick_figure, _umbrella],
}
SCRIBBLES: dict[str, list[Shape]] = {
    "training": [_tangle, _strokes, _figures],
    "testing": [_loops, _hatching],
}
# These shapes are as clear if they are filled.
FILLABLE = {_heart, _star, _triangle, _square, _cloud, _blot, _flower}
# A wide pen would merge the lines of these shapes.
DENSE = {_wave, _bars, _smiley, _spiral, _house, _stick_figure, _umbrella}
DENSE |= {_wheel, _target, _sun, _ladder, _car, _tangle, _strokes, _figures, _loops, _hatching}
