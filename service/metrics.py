"""Collect metrics for Prometheus over all workers, whichever worker answers the scrape.

The workers share files in the folder that the environment variable PROMETHEUS_MULTIPROC_DIR names.
Without this variable, the metrics cover this process alone.

Most metrics have the version of the model as a label. Only the series of the version in service and
of the one before it are kept, because each version would add about a hundred.
"""

import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any
from wsgiref.types import WSGIEnvironment

import numpy as np
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)

from service import drift
from service.recognition.distributions import Distributions

ROUTE = "service.route"  # key in a request's WSGI environ: the pattern of its route
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# A client can invent methods, and each would create a new time series.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# Prometheus does not count the increase with which a new series begins. Therefore these requests
# (method, route and status) have a series from the start.
EXPECTED = [("POST", "/recognize", status) for status in (200, 500, 503)]
FEEDBACK = ("kept", "refused", "too_many", "full", "failed")  # what became of a correction
SHADOW = "shadow"  # stands in the names of files for the process id of a trial
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
VERSIONS = 2  # versions of the model whose series are kept
OF_A_VERSION = re.compile(r".+_([0-9a-f]{32})_(\d+)\.db")  # a file with the series of one version


class Metrics:
    """The metrics of this process."""

    def __init__(self) -> None:
        self._creation = Lock()
        self.versions: dict[str, Version] = {}  # the one in service is the last
        self._removed: list[Version] = []  # by the last call of `serve`
        self._values = values.ValueClass = _values(str(os.getpid()))
        self.requests = Counter(
            "mnist_requests_total",
            "Requests answered.",
            ["version", "method", "route", "status"],
        )
        self.seconds = Histogram(
            "mnist_request_seconds",
            "Seconds from the last byte of a request to its response, including the queue.",
            ["version", "route"],
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )
        self.in_flight = 0  # requests that have begun and have no response yet; see `publish`
        self._in_flight = Gauge(
            "mnist_requests_in_flight",
            "Requests that have begun and have no response yet, counted once a second.",
            multiprocess_mode="livesum",
        )
        self.images = Counter("mnist_images_total", "Images recognized.", ["version", "label"])
        self.confidence = Histogram(
            "mnist_confidence_ratio",
            "Probability of the predicted label. Lower values than usual mean unusual pictures.",
            ["version"],
            buckets=CONFIDENCES,
        )
        self.batch = Histogram(
            "mnist_request_images",
            "Images in a request.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        )
        self.model = Gauge(
            "mnist_model_info",
            "1 for the artifact in service, 0 for the one before. The label sha256 is empty if the "
            "artifact is pinned by MD5 only.",
            ["version", "sha256"],
            multiprocess_mode="livemax",
        )
        self.refused = Gauge(
            "mnist_model_refused",
            "1 while the service keeps an older artifact because it cannot serve the pinned one.",
            multiprocess_mode="livemax",
        )
        self._feedback = Counter(
            "mnist_feedback_total",
            "Corrections received with --feedback: kept, refused (invalid), too_many (in a "
            "minute), full (a limit is reached or the disk is full), or failed.",
            ["result"],
        )
        # `drift.Drift` shows the drift instead of these two.
        bins = ["version", "feature", "bin"]
        self.window = Gauge(drift.WINDOW, "", bins, multiprocess_mode="livesum")
        self.reference = Gauge(drift.REFERENCE, "", bins, multiprocess_mode="livemax")

    def serve(self, version: str, sha256: str, reference: Distributions | None) -> None:
        """Keep the series of a version and of the one before, and remove all others.

        Args:
            version: The version that this process serves from now on.
            sha256: The SHA-256 of the artifact's manifest, or an empty string.
            reference: The distributions on the test split, or None if the artifact has none.
        """
        for before in self.versions.values():
            before.info.set(0)
        new = self.versions.pop(version, None) or Version(self, version, reference)
        new.info = new.series(self.model, sha256)
        new.info.set(1)
        self.versions[version] = new
        # A request may still count for a removed version, so close its files one swap later.
        for old in self._removed:
            old.close()
        self._removed = [self.versions.pop(name) for name in list(self.versions)[:-VERSIONS]]
        for old in self._removed:
            old.remove()
        # A worker that has replaced a dead one does not know the version before.
        if FOLDER in os.environ and len(self.versions) == VERSIONS:
            self._remove_files()

    def _remove_files(self) -> None:
        """Remove the files of other versions: those of this process and of dead ones."""
        for file in Path(os.environ[FOLDER]).iterdir():
            match = OF_A_VERSION.fullmatch(file.name)
            if match and match[1] not in self.versions:
                worker = int(match[2])
                if worker == os.getpid() or not _is_alive(worker):
                    file.unlink(missing_ok=True)

    def publish(self) -> None:
        """Share the figures that change too often to write them at each request.

        These are the number of requests in flight, and the features of the latest images, from
        which the workers compute the drift.
        """
        self._in_flight.set(self.in_flight)
        for version in self.versions.values():
            if version.window:
                version.window.publish()

    def feedback(self) -> dict[str, Counter]:
        """Return the counter of the corrections of each result."""
        return {result: self.create(self._values, self._feedback, result) for result in FEEDBACK}

    def create(self, kind: Any, metric: Any, *labels: object) -> Any:
        """Return a series of a metric, whose value is of this kind."""
        with self._creation:
            values.ValueClass = kind
            return metric.labels(*labels)


class Version:
    """The series of one version of the model."""

    def __init__(self, metrics: Metrics, version: str, reference: Distributions | None) -> None:
        self._metrics = metrics
        self._version = version
        self._values = _values(f"{version}_{os.getpid()}")
        self._created: set[tuple[Any, tuple[object, ...]]] = set()
        # Looking up a series takes longer than incrementing it.
        self.images = [self.series(metrics.images, label) for label in range(10)]
        self.confidence = self.series(metrics.confidence)
        self.request = cache(self._request)
        for request in EXPECTED:
            self.request(*request)
        self.info: Gauge
        self.window: drift.Window | None = None
        if reference:
            series = partial(self.series, metrics.window), partial(self.series, metrics.reference)
            self.window = drift.Window(reference, *series)

    def series(self, metric: Any, *labels: object) -> Any:
        """Return a series of a metric, from the labels beside the version."""
        self._created.add((metric, labels))
        return self._metrics.create(self._values, metric, self._version, *labels)

    def _request(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        metrics = self._metrics
        return self.series(metrics.requests, method, route, status), self.series(
            metrics.seconds, route
        )

    def remove(self) -> None:
        """Remove all series of this version."""
        for metric, labels in list(self._created):
            metric.remove(self._version, *labels)

    def close(self) -> None:
        """Close the files of this version."""
        if FOLDER in os.environ:
            self._values.close_all_files()


class Shadow:
    """The metrics of a trial (`service.shadow`). They last until the next trial."""

    def __init__(self, versions: list[str]) -> None:
        """Create the series of two versions: the one in service, and the new one."""
        if FOLDER in os.environ:
            for file in Path(os.environ[FOLDER]).glob(f"*_{SHADOW}.db"):  # of the trial before
                file.unlink()
        values.ValueClass = _values(SHADOW)
        images = Counter(
            "mnist_shadow_images_total",
            "Images on which a trial has compared the new artifact with the one in service.",
            ["version"],
        )
        disagreements = Counter(
            "mnist_shadow_disagreements_total",
            "Images for which the new artifact predicts another label than the one in service.",
            ["version"],
        )
        confidence = Histogram(
            "mnist_shadow_confidence_ratio",
            "Probability of the predicted label in a trial, for each of the two artifacts.",
            ["version"],
            buckets=CONFIDENCES,
        )
        seconds = Histogram(
            "mnist_shadow_seconds",
            "Seconds to recognize an image in a trial, for each of the two artifacts.",
            ["version"],
            buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
        )
        *_, new = versions
        self._images, self._disagreements = images.labels(new), disagreements.labels(new)
        self._confidence = [confidence.labels(version) for version in versions]
        self._seconds = [seconds.labels(version) for version in versions]

    def add(self, disagree: bool, confidences: Iterable[float], seconds: Iterable[float]) -> None:
        """Count an image, with what each of the two artifacts gave."""
        self._images.inc()
        self._disagreements.inc(disagree)
        for series, confidence in zip(self._confidence, confidences, strict=True):
            series.observe(confidence)
        for series, duration in zip(self._seconds, seconds, strict=True):
            series.observe(duration)


def _values(name: str) -> Any:
    """Return a class of values. If the workers share files, the name is a part of theirs."""
    # prometheus_client 0.26 reads PROMETHEUS_MULTIPROC_DIR only when it is imported, before the
    # service sets it (https://github.com/prometheus/client_python/issues/886). By default, it also
    # asks for the process id at each change of a value, which takes a system call.
    return values.MultiProcessValue(lambda: name) if FOLDER in os.environ else values.MutexValue


@cache
def current() -> Metrics:
    """Return the metrics of this process, and create them on the first call."""
    return Metrics()


def observe(
    version: str, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> None:
    """Count the images of one request.

    Args:
        version: The version of the model that recognized them.
        images: The images, uint8 (N, 28, 28).
        labels: The predicted labels, int64 (N,).
        probabilities: The probabilities of the ten labels, float32 (N, 10).
    """
    metrics = current()
    metrics.batch.observe(len(labels))
    if series := metrics.versions.get(version):  # else, two other versions came during the request
        for label, row in zip(labels.tolist(), probabilities, strict=True):
            series.images[label].inc()
            series.confidence.observe(float(row[label]))
        if series.window:
            series.window.add(images, labels, probabilities)


def count(environ: WSGIEnvironment, version: str, status: int, duration: float) -> None:
    """Count a request.

    Args:
        environ: The WSGI environ of the request.
        version: The version of the model that answered.
        status: The HTTP status of the response.
        duration: The seconds from the arrival of the request to its response.
    """
    method = environ["REQUEST_METHOD"]
    if series := current().versions.get(version):
        requests, seconds = series.request(
            method if method in METHODS else "other", environ.get(ROUTE, "none"), status
        )
        requests.inc()
        seconds.observe(duration)


def exposition() -> bytes:
    """Return the metrics of all workers in the Prometheus text format."""
    current().publish()
    while True:
        # Another worker has just removed a file, or has created one that is still empty.
        with suppress(FileNotFoundError, struct.error):
            return generate_latest(drift.Drift(_registry()))


def _is_alive(worker: int) -> bool:
    try:
        os.kill(worker, 0)  # signal 0 only checks that the process exists
    except OSError:  # the worker has ended, or its process id now belongs to another user
        return False
    return True


def _registry() -> CollectorRegistry:
    if FOLDER not in os.environ:
        return REGISTRY
    for file in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        if not _is_alive(int(file.stem.rpartition("_")[2])):
            file.unlink(missing_ok=True)  # another worker may remove the file at the same time
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry
