import numpy as np
import pytest

from stages.common.runner import StageError
from stages.evaluate import TILE, evaluate, gallery, on_handwriting, unsure

LABELS = np.array([0, 1, 2, 3, 4], np.uint8)
PROBABILITIES = np.eye(10, dtype=np.float32)[[0, 1, 2, 3, 9]] * 0.8 + 0.02
CORRUPTED = {
    "fog": np.tile(np.eye(10, dtype=np.float32)[0] * 0.5 + 0.05, (5, 1)),
    "scale": PROBABILITIES,
}
CLASSES = list("abcdefghij")
IMAGES = np.zeros((5, 28, 28), np.uint8)


def test_figures_count_errors_and_leave_out_rejected_labels():
    figures = evaluate(PROBABILITIES, LABELS, CLASSES, rejected=[0, 4], corrupted=CORRUPTED)
    assert figures["accuracy"] == 0.8
    assert figures["errors"] == 1
    assert figures["accuracy_without_rejected_labels"] == 1


def test_figures_summarize_the_robustness():
    figures = evaluate(PROBABILITIES, LABELS, CLASSES, rejected=[], corrupted=CORRUPTED)
    assert figures["expected_calibration_error"] == pytest.approx(0.02)  # 0.82 for 0.8
    assert figures["robustness"] == {"fog": 0.2, "scale": 0.8}
    assert figures["robustness_mean"] == 0.5
    assert figures["robustness_lowest"] == 0.2
    # One label in five is 0, but the confidence in 0 is 0.55.
    assert figures["robustness_calibration_error"] == pytest.approx((0.35 + 0.02) / 2)


def test_a_picture_without_a_digit_is_an_error():
    images = np.full((5, 28, 28), 255, np.uint8)
    assert on_handwriting(images, LABELS, PROBABILITIES)["accuracy"] == 0.8
    images[:2] = 0
    figures = on_handwriting(images, LABELS, PROBABILITIES)
    assert figures["accuracy"] == pytest.approx(0.4)
    assert figures["unsure"] == 0
    assert figures["expected_calibration_error"] == pytest.approx(0.02)


def test_a_confidence_below_a_half_is_unsure():
    confidences = np.array([0.49, 0.5, 0.1, 0.9], np.float32)
    assert unsure(np.outer(confidences, np.eye(10)[3])) == 0.5


def test_rejected_label_outside_the_split_is_an_error():
    with pytest.raises(StageError, match="contains 5, but the last index of the test split is 4"):
        evaluate(PROBABILITIES, LABELS, CLASSES, rejected=[5], corrupted={})


def test_gallery_has_one_tile_per_mistake():
    assert gallery(IMAGES, LABELS, PROBABILITIES, CLASSES).size == TILE
    wrong = np.roll(PROBABILITIES, 3, axis=1)
    assert gallery(IMAGES, LABELS, wrong, CLASSES).size == (5 * TILE[0], TILE[1])


def test_gallery_has_a_maximum_size():
    wrong = np.tile(np.eye(10, dtype=np.float32)[[1]], (100, 1))
    picture = gallery(np.zeros((100, 28, 28), np.uint8), np.zeros(100, np.uint8), wrong, CLASSES)
    assert picture.size == (8 * TILE[0], 4 * TILE[1])


def test_gallery_starts_with_the_most_confident_mistake():
    images = np.stack([np.full((28, 28), shade, np.uint8) for shade in (50, 200)])
    probabilities = np.full((2, 10), 0.01, np.float32)
    probabilities[:, 1] = [0.6, 0.9]
    picture = np.asarray(gallery(images, np.array([0, 0], np.uint8), probabilities, CLASSES))
    middle = TILE[0] // 2
    assert (picture[60, middle], picture[60, TILE[0] + middle]) == (200, 50)


def test_gallery_without_mistakes_shows_a_message():
    picture = gallery(IMAGES[:4], LABELS[:4], PROBABILITIES[:4], CLASSES)
    assert picture.size == TILE
    assert np.asarray(picture).min() < 128  # the text of the message
