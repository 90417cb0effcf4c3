import cv2
import numpy as np
import pytest

from stages.common import drawings

SHAPES = {
    shape.__name__: shape
    for kinds in (drawings.SHAPES, drawings.SCRIBBLES)
    for split in kinds.values()
    for shape in split
}


def randoms(count):
    return np.random.default_rng(0).spawn(count)


@pytest.mark.parametrize("name", SHAPES)
def test_drawing_fits_into_its_picture(name):
    for random in randoms(20):
        picture = drawings.draw(SHAPES[name], random)
        assert picture.shape == (drawings.SIZE, drawings.SIZE)
        assert 0.003 < (picture > 127).mean() < 0.5
        assert not picture[[0, -1]].any()
        assert not picture[:, [0, -1]].any()


@pytest.mark.parametrize("name", SHAPES)
def test_drawings_of_a_shape_differ(name):
    one, other = (drawings.draw(SHAPES[name], random) for random in randoms(2))
    assert (one != other).any()


def test_some_shapes_are_filled():
    hearts = [drawings.draw(drawings._heart, random) for random in randoms(20)]
    middle = drawings.SIZE // 2
    filled = [bool(heart[middle, middle]) for heart in hearts]
    assert {True, False} == set(filled)


def test_spiral_is_clearer_than_a_six_or_a_nine():
    """A line from its center to its border crosses the pen more than twice."""
    for random in randoms(20):
        (spiral,) = drawings._spiral(random)
        angles = np.unwrap(np.arctan2(spiral[:, 1], spiral[:, 0]))
        assert abs(angles[-1] - angles[0]) > 2 * 2 * np.pi


def test_dots_are_apart():
    for random in randoms(20):
        picture = drawings.draw(drawings._dots, random)
        count, _ = cv2.connectedComponents((picture > 127).astype(np.uint8))
        assert 3 <= count - 1 <= 6


def test_splits_share_no_shape():
    for kinds in (drawings.SHAPES, drawings.SCRIBBLES):
        assert not {*kinds["training"]} & {*kinds["testing"]}


def test_blank_picture_is_drawn_again():
    pictures = [np.zeros((50, 50), np.uint8), np.zeros((50, 50), np.uint8)]
    pictures[1][20:30, 10:40] = 255
    image = drawings.normalized(lambda _: pictures.pop(0), np.random.default_rng(0))
    assert image.any()
    assert pictures == []
