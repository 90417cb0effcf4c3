"""Metrics of predicted probabilities against true labels.

In this module, `probabilities` is a float array (N, 10) whose rows sum to 1; `labels` and
`predictions` are integer arrays (N,) of labels 0 to 9.
"""

from dataclasses import dataclass

import numpy as np


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of images whose most probable label is the true label."""
    return float(np.mean(probabilities.argmax(1) == labels))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative logarithm of the true label's probability, in nats.

    Probabilities below the smallest normal float32 number count as that number, so the result is
    finite.
    """
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def precision(predictions: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the precision of each label: the fraction of its predictions that are correct.

    The precision of a label that is never predicted is 0.
    """
    return _per_label(predictions == labels, predictions)


def recall(predictions: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the recall of each label: the fraction of its images that are predicted correctly.

    The recall of a label without images is 0.
    """
    return _per_label(predictions == labels, labels)


@dataclass(frozen=True)
class Bin:
    """Images of similar confidence.

    Attributes:
        confidence: The mean confidence of the images, 0 to 1.
        accuracy: The fraction of the images that are predicted correctly.
        images: The number of images.
    """

    confidence: float
    accuracy: float
    images: int


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> list[Bin]:
    """Group the images by confidence into bins of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, plot such bins in figure 1; the
    default of 15 bins is theirs.

    Returns:
        The bins in order of confidence, without the empty bins.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Bin(float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum()))
        for inside in (bin_of == number for number in range(bins))
        if inside.any()
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the images of each bin.

    This is equation 3 of Guo et al., 2017.
    """
    total = sum(one.images for one in bins)
    return sum(abs(one.confidence - one.accuracy) * one.images for one in bins) / total


def _per_label(correct: np.ndarray, labels: np.ndarray) -> list[float]:
    hits = np.bincount(labels[correct], minlength=10)
    return (hits / np.bincount(labels, minlength=10).clip(1)).tolist()
