"""How good probabilities are, against the true labels. Arrays in, plain numbers out.

Everywhere `probabilities` is float (N, 10), each row summing to 1, and `labels` integer (N,).
"""

import numpy as np


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of images whose most probable label is the true one."""
    return float(np.mean(probabilities.argmax(1) == labels))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm of the true label's probability, in nats."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def precision(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Per digit: of the images called so, the fraction that are. 0 where none is called so."""
    return _per_digit(predictions == labels, predictions)


def recall(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Per digit: of the images that are one, the fraction called so. 0 where there is none."""
    return _per_digit(predictions == labels, labels)


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their images.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3, with its 15 bins.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, weights=confidence - correct, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def _per_digit(correct: np.ndarray, group: np.ndarray) -> dict[str, float]:
    hits = np.bincount(group[correct], minlength=10)
    return {
        str(digit): float(h / max(n, 1))
        for digit, (h, n) in enumerate(zip(hits, np.bincount(group, minlength=10), strict=True))
    }
