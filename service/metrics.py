"""The metrics of the service, for Prometheus: of all workers together, whichever answers.

The workers share files in the folder that PROMETHEUS_MULTIPROC_DIR names. Without this environment
variable the metrics are of this process alone.
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

ROUTE = "service.route"  # in the environ of a request that matches a route: its pattern
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# A client can make up other methods, and each would be a new time series.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """The metrics of this process."""

    def __init__(self) -> None:
        # prometheus_client chooses when it is imported; by now the folder may be there.
        values.ValueClass = values.get_value_class()
        self.requests = Counter(
            "mnist_requests_total",
            "Requests answered.",
            ["method", "route", "status"],
        )
        self.seconds = Histogram(
            "mnist_request_seconds",
            "From the last byte of a request to its answer, with the time in the queue.",
            ["route"],
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )
        self.in_flight = Gauge(
            "mnist_requests_in_flight",
            "Requests begun and not yet answered.",
            multiprocess_mode="livesum",
        )
        self.images = Counter("mnist_images_total", "Images recognized.", ["label"])
        self.confidence = Histogram(
            "mnist_confidence_ratio",
            "Probability of the label that was answered: lower than usual means unusual pictures.",
            buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
        )
        self.batch = Histogram(
            "mnist_request_images",
            "Images of one request.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        )
        self.model = Gauge(
            "mnist_model_info",
            "1 for the artifact that is served, 0 for one that was.",
            ["version"],
            multiprocess_mode="livemax",
        )
        self.refused = Gauge(
            "mnist_model_refused",
            "1 while dvc.lock pins an artifact that cannot be served, and an older one is instead.",
            multiprocess_mode="livemax",
        )
        # To find the metric of a label takes longer than to count.
        self.images_of = [self.images.labels(label) for label in range(10)]


@cache
def current() -> Metrics:
    """The metrics of this process, made on the first call."""
    return Metrics()


def observe(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Count the images of one request.

    Args:
        labels: int64 (N,).
        probabilities: float32 (N, 10).
    """
    metrics = current()
    for label in labels.tolist():
        metrics.images_of[label].inc()
    for confidence in probabilities.max(1).tolist():
        metrics.confidence.observe(confidence)
    metrics.batch.observe(len(labels))


def count(environ: WSGIEnvironment, status: int, took: float) -> None:
    """Count a request that took so many seconds."""
    method = environ["REQUEST_METHOD"]
    requests, duration = _of(
        method if method in METHODS else "other", environ.get(ROUTE, "none"), status
    )
    requests.inc()
    duration.observe(took)


def exposition() -> bytes:
    """The metrics of all workers, in the text format of Prometheus."""
    return generate_latest(_registry())


@cache
def _of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    metrics = current()
    return metrics.requests.labels(method, route, status), metrics.seconds.labels(route)


def _registry() -> CollectorRegistry:
    if FOLDER not in os.environ:
        current()
        return REGISTRY
    for file in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        worker = int(file.stem.rpartition("_")[2])
        try:
            os.kill(worker, 0)  # sends no signal; fails if it could not be sent
        except OSError:  # the worker has ended, or another user's process has its number
            file.unlink(missing_ok=True)  # another worker may remove it at the same time
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry
