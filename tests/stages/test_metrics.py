import numpy as np
import pytest

from stages.common import metrics

LABELS = np.array([0, 1, 1, 2])
PROBABILITIES = np.zeros((4, 10), np.float32)
PROBABILITIES[range(4), [0, 1, 2, 2]] = [0.9, 0.6, 0.7, 0.8]
PROBABILITIES[range(4), [9, 9, 1, 9]] = [0.1, 0.4, 0.3, 0.2]
PREDICTIONS = PROBABILITIES.argmax(1)


def test_accuracy_is_the_fraction_of_correct_predictions():
    assert metrics.accuracy(PROBABILITIES, LABELS) == 0.75


def test_cross_entropy_is_the_mean_over_images():
    expected = -np.log([0.9, 0.6, 0.3, 0.8]).mean()
    assert metrics.cross_entropy(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_cross_entropy_of_an_impossible_label_is_large_and_finite():
    certain = np.eye(10, dtype=np.float32)[[3]]
    assert 80 < metrics.cross_entropy(certain, np.array([4])) < 100


def test_precision_and_recall_are_0_where_undefined():
    assert metrics.precision(PREDICTIONS, LABELS) == [1, 1, 0.5] + [0] * 7
    assert metrics.recall(PREDICTIONS, LABELS) == [1, 0.5, 1] + [0] * 7


def test_expected_calibration_error_weights_bins_by_images():
    # The confidences 0.9, 0.6, 0.7 and 0.8 fall into four different bins.
    bins = metrics.calibration_bins(PROBABILITIES, LABELS)
    assert [one.images for one in bins] == [1, 1, 1, 1]
    assert [one.accuracy for one in bins] == [1, 0, 1, 1]
    expected = (abs(1 - 0.9) + abs(1 - 0.6) + abs(0 - 0.7) + abs(1 - 0.8)) / 4
    assert metrics.expected_calibration_error(bins) == pytest.approx(expected)


def test_calibration_bins_average_their_images():
    probabilities = np.tile(PROBABILITIES[:1], (4, 1))
    (one,) = metrics.calibration_bins(probabilities, np.array([0, 0, 0, 5]))
    assert one.confidence == pytest.approx(0.9)
    assert (one.accuracy, one.images) == (0.75, 4)


def test_correct_certain_predictions_have_no_calibration_error():
    bins = metrics.calibration_bins(np.eye(10), np.arange(10))
    assert metrics.expected_calibration_error(bins) == 0
