"""How good probabilities are, against the true labels. Arrays in, plain numbers out.

Everywhere `probabilities` is float (N, 10), each row summing to 1, and `labels` integer (N,).
"""

from dataclasses import dataclass

import numpy as np


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of images whose most probable label is the true one."""
    return float(np.mean(probabilities.argmax(1) == labels))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm of the true label's probability, in nats."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def precision(predictions: np.ndarray, labels: np.ndarray) -> list[float]:
    """Per label: of the images called so, the fraction that are. 0 where none is called so."""
    return _per_label(predictions == labels, predictions)


def recall(predictions: np.ndarray, labels: np.ndarray) -> list[float]:
    """Per label: of the images that have it, the fraction called so. 0 where none has it."""
    return _per_label(predictions == labels, labels)


@dataclass(frozen=True)
class Bin:
    """Images of about equal confidence."""

    confidence: float  # its mean
    accuracy: float
    images: int


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> list[Bin]:
    """Images by their confidence, in bins of equal width; those without images are left out.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, figure 1, with its 15 bins.
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
    """Mean gap between confidence and accuracy, weighted by the images (equation 3 there)."""
    total = sum(one.images for one in bins)
    return sum(abs(one.confidence - one.accuracy) * one.images for one in bins) / total


def _per_label(correct: np.ndarray, labels: np.ndarray) -> list[float]:
    hits = np.bincount(labels[correct], minlength=10)
    return (hits / np.bincount(labels, minlength=10).clip(1)).tolist()
