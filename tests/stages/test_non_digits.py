import hashlib

import numpy as np
import pytest

from service.recognition import preprocessing
from stages import non_digits
from stages.common import idx, params, paths
from stages.common.runner import StageError
from stages.non_digits import KINDS, Glyphs, make
from tests.conftest import FONTS, PROJECT

CHOSEN = params.load(PROJECT / "params.yaml").data.non_digits
LATIN = "architects-daughter-latin-400-normal.woff"


@pytest.fixture(scope="module")
def glyphs():
    return [Glyphs.of(LATIN, (FONTS / LATIN).read_bytes())]


def test_images_have_the_chosen_shares(testing, glyphs):
    images, kinds = make("training", 40, CHOSEN, glyphs, testing[0])
    assert images.shape == (40, 28, 28)
    assert images.dtype == kinds.dtype == np.uint8
    assert np.bincount(kinds).tolist() == [17, 12, 5, 6]
    assert (kinds != np.sort(kinds)).any()  # any part of the images has all kinds


def test_share_of_zero_has_no_image(testing, glyphs):
    shares = params.Shares(letters=0.0, shapes=0.0, scribbles=1.0, numbers=0.0)
    chosen = CHOSEN.model_copy(update={"shares": shares})
    _, kinds = make("testing", 5, chosen, glyphs, testing[0])
    assert {KINDS[kind] for kind in kinds} == {"scribbles"}


def test_equal_arguments_give_equal_images(testing, glyphs):
    one, other = (make("training", 20, CHOSEN, glyphs, testing[0])[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("split", "seed"), [("training", 2), ("testing", 1)])
def test_other_splits_and_seeds_give_other_images(testing, glyphs, split, seed):
    one, _ = make("training", 20, CHOSEN, glyphs, testing[0])
    other, _ = make(split, 20, CHOSEN.model_copy(update={"seed": seed}), glyphs, testing[0])
    assert (one != other).any(axis=(1, 2)).all()


def test_images_are_normalized_as_by_the_service(testing, glyphs):
    images, _ = make("training", 60, CHOSEN, glyphs, testing[0])
    for image in images:
        rows, columns = np.nonzero(image)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert preprocessing.BOX - 1 <= longer <= preprocessing.BOX
        assert image.max() > 200


def test_numbers_are_wider_than_a_digit_and_ones_stay_apart():
    one = np.zeros((1, 28, 28), np.uint8)
    one[0, 4:24, 12:15] = 255
    for random in np.random.default_rng(0).spawn(50):
        picture = non_digits.number(random, one)
        columns = (picture > 127).any(axis=0).astype(int)
        assert (np.diff(columns) == 1).sum() in (2, 3)


def test_digits_may_fill_their_images_and_blank_images_are_left_out(glyphs):
    shares = params.Shares(letters=0.0, shapes=0.0, scribbles=0.0, numbers=1.0)
    digits = np.stack([np.full((28, 28), 0, np.uint8), np.eye(28, dtype=np.uint8) * 255])
    chosen = CHOSEN.model_copy(update={"shares": shares})
    images, _ = make("training", 20, chosen, glyphs, digits)
    assert images.any(axis=(1, 2)).all()


def test_no_clear_character_looks_like_a_digit():
    assert not {*non_digits.CLEAR} & {*"0123456789CcDOoQUuaeIiJjLl!|/\\()ZzYySs$GgbBqЭЧЮ"}


def test_font_without_a_clear_character_is_reported(monkeypatch):
    monkeypatch.setattr(non_digits, "CLEAR", "अ")
    with pytest.raises(StageError, match="woff has none of the characters"):
        Glyphs.of(LATIN, (FONTS / LATIN).read_bytes())


def test_stage_writes_four_idx_files(tmp_path, monkeypatch, testing):
    project(tmp_path, monkeypatch, testing)
    non_digits.main()
    for split, count in (("training", 20), ("testing", 10)):
        images, kinds = idx.load(paths.NON_DIGITS, split)
        assert images.shape == (count, 28, 28)
        assert kinds.max() < len(KINDS)
    assert sorted(file.name for file in paths.NON_DIGITS.iterdir()) == sorted(idx.NAMES)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"validation_size": 500}, "the training split has only 500 images"),
        ({"fonts": "/no/such/folder"}, "/no/such/folder: the folder does not exist"),
    ],
)
def test_failed_stage_writes_nothing(tmp_path, monkeypatch, testing, change, reason):
    project(tmp_path, monkeypatch, testing, **change)
    with pytest.raises(StageError, match=reason):
        non_digits.main()
    assert not paths.NON_DIGITS.exists()


def project(folder, monkeypatch, testing, validation_size=100, fonts=FONTS):
    """Fill a folder with what the stage reads, and go there."""
    chosen = params.load(PROJECT / "params.yaml")
    font = params.Font(
        package="", file=LATIN, sha256=hashlib.sha256((FONTS / LATIN).read_bytes()).hexdigest()
    )
    pinned = params.Fonts.model_construct(mirrors=[str(fonts)], training=[font], testing=[font])
    small = CHOSEN.model_copy(update={"training": 20, "testing": 10})
    data = chosen.data.model_copy(update={"fonts": pinned, "non_digits": small})
    train = chosen.train.model_copy(update={"validation_size": validation_size})
    small_params = chosen.model_copy(update={"data": data, "train": train})
    monkeypatch.setattr(params, "load", lambda: small_params)
    monkeypatch.chdir(folder)
    paths.IDX.mkdir(parents=True)
    for name, array in zip(idx.FILES["training"], testing, strict=True):
        (paths.IDX / name).write_bytes(idx.render(array))
