"""How confidence, label and amount of ink are distributed over images, and how far that changes.

`evaluate` counts the images of the test split in bins, `export` puts these distributions into the
artifact, and the service counts the images that it recognizes in the same bins. The population
stability index tells how far apart two distributions are. By a rule of thumb, they are the same if
the index is below 0.1, and very different if it is above 0.25 (N. Siddiqi, Credit Risk Scorecards,
Wiley, 2006).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

BINS = 10  # of confidence and of ink, at the deciles of the test split
# Added to each count. Without it, an empty bin would make the index infinite.
PRIOR = 0.5


class Features(NamedTuple):
    """The three figures of each image that the bins count."""

    confidence: list[float]  # the probability of the predicted label
    label: list[int]  # the predicted label
    ink: list[int]  # the sum of the gray values of the pixels


@dataclass(frozen=True)
class Distribution:
    """The number of images in each bin of a feature."""

    edges: list[float]  # between the bins, in ascending order; each belongs to the bin above it
    counts: list[int]  # one more than there are edges

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.counts)} bins cannot have {len(self.edges)} edges")

    def count(self, values: Sequence[float]) -> list[int]:
        """Return how many of the values fall into each of these bins."""
        return _count(values, self.edges)


@dataclass(frozen=True)
class Distributions:
    """The distribution of each of the `Features`."""

    confidence: Distribution
    label: Distribution
    ink: Distribution


def features(images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> Features:
    """Return the features of images.

    Args:
        images: The images that the network received, uint8 (N, 28, 28).
        labels: The predicted labels, integers (N,).
        probabilities: The probabilities of the ten labels, float32 (N, 10).
    """
    ink = images.reshape(len(images), -1).sum(1)  # faster than a sum over two axes
    return Features(probabilities.max(1).tolist(), labels.tolist(), ink.tolist())


def measure(found: Features) -> Distributions:
    """Return the distributions of the features of images, with bins that suit these images."""
    return Distributions(
        confidence=_counted(found.confidence, _deciles(found.confidence)),
        label=_counted(found.label, list(range(1, 10))),
        ink=_counted(found.ink, _deciles(found.ink)),
    )


def parse(content: dict[str, Any]) -> Distributions:
    """Return the distributions that `dataclasses.asdict` has made a dictionary of.

    Raises:
        TypeError: A field is missing or unknown.
        ValueError: The number of bins does not match the number of edges.
    """
    return Distributions(**{name: Distribution(**fields) for name, fields in content.items()})


def stability_index(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the population stability index of two distributions over the same bins.

    It is the sum of (q - p) * ln(q / p), where p and q are the shares of a bin.

    Args:
        expected: The number of images in each bin on the test split.
        actual: The number of images in each bin now.
    """
    p, q = (
        (np.asarray(each) + PRIOR) / (sum(each) + PRIOR * len(each)) for each in (expected, actual)
    )
    return float(((q - p) * np.log(q / p)).sum())


def _deciles(values: Sequence[float]) -> list[float]:
    """Return the distinct deciles. They are values themselves, so that all digits are exact."""
    return np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="nearest")).tolist()


def _counted(values: Sequence[float], edges: list[float]) -> Distribution:
    return Distribution(edges, _count(values, edges))


def _count(values: Sequence[float], edges: list[float]) -> list[int]:
    return np.bincount(np.digitize(values, edges), minlength=len(edges) + 1).tolist()
