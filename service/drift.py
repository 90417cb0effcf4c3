"""Drift: how far the images that the service recognizes now are from the test split.

Each worker remembers the features of its latest images. Once a second, it writes how many of them
are in each bin to the files that the workers share. The worker that answers a scrape adds up the
counts of all workers, and compares the sums with the counts on the test split.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from itertools import repeat
from threading import Lock
from typing import Any

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric

from service.recognition.distributions import Distributions, features, stability_index

# The sliding window of a worker: its latest images, none of which is older than SECONDS.
IMAGES = 1000
SECONDS = 3600
# Measuring this many images at once takes a tenth of the time of measuring them one by one.
AT_ONCE = 64
# The metrics that contain the counts. A scrape shows the drift instead.
WINDOW, REFERENCE = "mnist_drift_window", "mnist_drift_reference"


class Window:
    """The latest images that this worker recognized with one version of the model."""

    def __init__(
        self,
        reference: Distributions,
        in_window: Callable[[str, int], Any],
        in_reference: Callable[[str, int], Any],
    ) -> None:
        """Create all series, and set those of the reference.

        Args:
            reference: The distributions on the test split.
            in_window: A function from a feature and the number of a bin to a series of `WINDOW`.
            in_reference: The same for `REFERENCE`.
        """
        self._lock = Lock()
        # Images, labels and probabilities of the requests that are not measured yet.
        self._new: list[tuple[np.ndarray, ...]] = []
        self._waiting = 0  # the number of their images
        self._latest: deque[tuple[float, ...]] = deque(maxlen=IMAGES)  # time and features
        self._reference = reference
        self._series: list[list[Any]] = []
        for feature, distribution in vars(reference).items():
            for number, count in enumerate(distribution.counts):
                in_reference(feature, number).set(count)
            numbers = range(len(distribution.counts))
            self._series.append([in_window(feature, number) for number in numbers])

    def add(self, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Remember the images of one request; see `features` for the arguments."""
        with self._lock:
            self._new.append((images, labels, probabilities))
            self._waiting += len(images)
            if self._waiting >= AT_ONCE:
                self._measure()

    def _measure(self) -> None:
        if self._new:
            found = features(*map(np.concatenate, zip(*self._new, strict=True)))
            self._latest.extend(zip(repeat(time.monotonic()), *found))
            self._new, self._waiting = [], 0

    def publish(self) -> None:
        """Write to the series how many images are in each bin."""
        with self._lock:
            self._measure()
            latest = np.array(self._latest).reshape(-1, 1 + len(self._series))
        columns = latest[latest[:, 0] > time.monotonic() - SECONDS].T[1:]
        distributions = vars(self._reference).values()
        for distribution, values, series in zip(distributions, columns, self._series, strict=True):
            for each, count in zip(series, distribution.count(values), strict=True):
                each.set(count)


class Drift:
    """A collector that shows the drift instead of the counts that it is computed from."""

    def __init__(self, collector: Any) -> None:
        """Wrap the collector that collects `WINDOW` and `REFERENCE` among other metrics."""
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the wrapped collector except the counts, and those of the drift."""
        counts: dict[str, Any] = {name: defaultdict(dict) for name in (WINDOW, REFERENCE)}
        for family in self._collector.collect():
            if family.name not in counts:
                yield family
                continue
            for sample in family.samples:
                version, feature, number = (sample.labels[k] for k in ("version", "feature", "bin"))
                counts[family.name][version, feature][number] = sample.value
        index = GaugeMetricFamily(
            "mnist_drift_index",
            "Population stability index: how far confidence, label and ink of the latest images "
            "are from those of the test split. Below 0.1 is close, above 0.25 far.",
            labels=["version", "feature"],
        )
        images = GaugeMetricFamily(
            "mnist_drift_images", "Images that the index covers.", labels=["version"]
        )
        totals = {}
        for (version, feature), window in counts[WINDOW].items():
            totals[version] = sum(window.values())
            if totals[version]:
                bins = counts[REFERENCE][version, feature].items()
                found = [window[number] for number, _ in bins]
                value = stability_index([count for _, count in bins], found)
                index.add_metric([version, feature], value)
        for version, total in totals.items():
            images.add_metric([version], total)
        yield from (index, images)
