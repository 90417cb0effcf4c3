"""Collect metrics for Prometheus over all workers, whichever worker answers the scrape.

The workers share files in the folder that the environment variable PROMETHEUS_MULTIPROC_DIR names.
Without this variable, the metrics cover this process alone.
"""

import os
from functools import cache
from pathlib import Path
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

ROUTE = "service.route"  # key in a request's WSGI environ: the pattern of its route
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# A client can invent methods, and each would create a new time series.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """The metrics of this process."""

    def __init__(self) -> None:
        # prometheus_client 0.26 reads PROMETHEUS_MULTIPROC_DIR only when it is imported, before the
        # service sets it (https://github.com/prometheus/client_python/issues/886).
        # Without the identifier, each change of a value takes a system call.
        process = os.getpid()
        values.ValueClass = (
            values.MultiProcessValue(lambda: process) if FOLDER in os.environ else values.MutexValue
        )
        self.requests = Counter(
            "mnist_requests_total",
            "Requests answered.",
            ["method", "route", "status"],
        )
        self.seconds = Histogram(
            "mnist_request_seconds",
            "Seconds from the last byte of a request to its response, including the queue.",
            ["route"],
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )
        self.in_flight = Gauge(
            "mnist_requests_in_flight",
            "Requests that have begun and have no response yet.",
            multiprocess_mode="livesum",
        )
        self.images = Counter("mnist_images_total", "Images recognized.", ["label"])
        self.confidence = Histogram(
            "mnist_confidence_ratio",
            "Probability of the predicted label. Lower values than usual mean unusual pictures.",
            buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
        )
        self.batch = Histogram(
            "mnist_request_images",
            "Images in a request.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        )
        self.model = Gauge(
            "mnist_model_info",
            "1 for the artifact in service, 0 for an earlier artifact. The label sha256 is empty "
            "if the artifact is pinned by MD5 only.",
            ["version", "sha256"],
            multiprocess_mode="livemax",
        )
        self.refused = Gauge(
            "mnist_model_refused",
            "1 while the service keeps an older artifact because it cannot serve the pinned one.",
            multiprocess_mode="livemax",
        )
        # Looking up the counter of a label takes longer than incrementing it.
        self.images_of = [self.images.labels(label) for label in range(10)]


@cache
def current() -> Metrics:
    """Return the metrics of this process, and create them on the first call."""
    return Metrics()


def observe(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Count the images of one request.

    Args:
        labels: The predicted labels, int64 (N,).
        probabilities: The probabilities of the ten labels, float32 (N, 10).
    """
    metrics = current()
    for label in labels.tolist():
        metrics.images_of[label].inc()
    for confidence in probabilities.max(1).tolist():
        metrics.confidence.observe(confidence)
    metrics.batch.observe(len(labels))


def count(environ: WSGIEnvironment, status: int, duration: float) -> None:
    """Count a request.

    Args:
        environ: The WSGI environ of the request.
        status: The HTTP status of the response.
        duration: The seconds from the arrival of the request to its response.
    """
    method = environ["REQUEST_METHOD"]
    requests, seconds = _series(
        method if method in METHODS else "other", environ.get(ROUTE, "none"), status
    )
    requests.inc()
    seconds.observe(duration)


def exposition() -> bytes:
    """Return the metrics of all workers in the Prometheus text format."""
    return generate_latest(_registry())


@cache
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    metrics = current()
    return metrics.requests.labels(method, route, status), metrics.seconds.labels(route)


def _registry() -> CollectorRegistry:
    if FOLDER not in os.environ:
        current()
        return REGISTRY
    for file in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        worker = int(file.stem.rpartition("_")[2])
        try:
            os.kill(worker, 0)  # signal 0 only checks that the process exists
        except OSError:  # the worker has ended, or its process id now belongs to another user
            file.unlink(missing_ok=True)  # another worker may remove the file at the same time
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry
