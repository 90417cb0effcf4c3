import numpy as np
import pytest

from service.recognition import preprocessing
from stages import drawn_digits
from stages.common import idx, params, paths
from stages.drawn_digits import DIGITS, draw, make
from tests.conftest import PROJECT


def test_each_digit_is_drawn_equally_often():
    images, labels = make(300, 1)
    assert images.shape == (300, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [30] * 10


def test_the_seed_determines_the_images():
    one, same, other = (make(20, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any(axis=(1, 2)).all()


def test_images_are_normalized_as_by_the_service():
    for image in make(100, 1)[0]:
        rows, columns = np.nonzero(image)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert preprocessing.BOX - 1 <= longer <= preprocessing.BOX
        assert image.max() > 200


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_has_many_styles_and_rarely_touches_the_border(digit):
    pictures = [draw(DIGITS[digit], random) for random in np.random.default_rng(0).spawn(40)]
    assert len({picture.tobytes() for picture in pictures}) == 40
    at_the_border = [picture[[0, -1]].any() or picture[:, [0, -1]].any() for picture in pictures]
    assert np.mean(at_the_border) < 0.1


def test_upstrokes_of_ones_are_steep():
    for random in np.random.default_rng(0).spawn(200):
        line = drawn_digits._one(random)[0]
        (left, low), (right, high) = line[0], line[-2]
        if low > high:  # there is an upstroke
            assert np.degrees(np.arctan2(low - high, right - left)) > 29


def test_stage_writes_the_training_images(tmp_path, monkeypatch):
    chosen = params.load(PROJECT / "params.yaml")
    small = params.DrawnDigits(training=20, seed=1)
    data = chosen.data.model_copy(update={"drawn_digits": small})
    monkeypatch.setattr(params, "load", lambda: chosen.model_copy(update={"data": data}))
    monkeypatch.chdir(tmp_path)
    paths.DATA.mkdir()
    drawn_digits.main()
    images, labels = idx.load(paths.DRAWN_DIGITS, "training")
    np.testing.assert_array_equal(images, make(20, 1)[0])
    assert labels.tolist() == [*range(10)] * 2
