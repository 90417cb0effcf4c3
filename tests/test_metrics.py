import numpy as np
import pytest

from stages import metrics

LABELS = np.array([0, 1, 1, 2])
PROBABILITIES = np.zeros((4, 10), np.float32)
PROBABILITIES[range(4), [0, 1, 2, 2]] = [0.9, 0.6, 0.7, 0.8]
PROBABILITIES[range(4), [9, 9, 1, 9]] = [0.1, 0.4, 0.3, 0.2]
PREDICTIONS = PROBABILITIES.argmax(1)


def test_accuracy():
    assert metrics.accuracy(PROBABILITIES, LABELS) == 0.75


def test_cross_entropy():
    expected = -np.log([0.9, 0.6, 0.3, 0.8]).mean()
    assert metrics.cross_entropy(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_cross_entropy_of_an_impossible_label_is_large_and_finite():
    certain = np.eye(10, dtype=np.float32)[[3]]
    assert 80 < metrics.cross_entropy(certain, np.array([4])) < 100


def test_precision_and_recall_are_per_digit_and_0_where_undefined():
    precision, recall = metrics.precision(PREDICTIONS, LABELS), metrics.recall(PREDICTIONS, LABELS)
    assert [precision["0"], precision["1"], precision["2"], precision["3"]] == [1, 1, 0.5, 0]
    assert [recall["0"], recall["1"], recall["2"], recall["3"]] == [1, 0.5, 1, 0]
    assert set(precision) == set(recall) == {str(digit) for digit in range(10)}


def test_expected_calibration_error_weighs_each_bin_s_gap_by_its_images():
    # One image in each of the bins that hold 0.9, 0.6, 0.7 and 0.8.
    expected = (abs(1 - 0.9) + abs(1 - 0.6) + abs(0 - 0.7) + abs(1 - 0.8)) / 4
    assert metrics.expected_calibration_error(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_certainty_that_is_right_is_perfectly_calibrated():
    assert metrics.expected_calibration_error(np.eye(10), np.arange(10)) == 0
