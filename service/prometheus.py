"""`GET /metrics`, for Prometheus: of all workers together, whichever answers.

The workers share files in the folder that the environment's PROMETHEUS_MULTIPROC_DIR names, which
has to be set before this module is imported. Without it the figures are of this process alone.
"""

import os
from functools import cache
from pathlib import Path
from wsgiref.types import WSGIEnvironment

import numpy as np
from flask import Flask, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

ROUTE = "service.route"  # in the environment of a request, if it has found one
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Anybody can make up others, and each would be a series for ever.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

REQUESTS = Counter("mnist_requests_total", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram(
    "mnist_request_seconds",
    "From the last byte of a request to its answer, with the time in the queue.",
    ["route"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
IN_FLIGHT = Gauge(
    "mnist_requests_in_flight",
    "Requests begun and not yet answered.",
    multiprocess_mode="livesum",
)
IMAGES = Counter("mnist_images_total", "Images recognised.", ["label"])
IMAGES_OF = [IMAGES.labels(label) for label in range(10)]
CONFIDENCE = Histogram(
    "mnist_confidence_ratio",
    "Probability of the label that was answered: lower than usual means unusual pictures.",
    buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
)
BATCH = Histogram(
    "mnist_request_images",
    "Images of one request.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
MODEL = Gauge(
    "mnist_model_info",
    "1 for the artifact that is served, 0 for one that was.",
    ["version"],
    multiprocess_mode="livemax",
)
REFUSED = Gauge(
    "mnist_model_refused",
    "1 while dvc.lock pins an artifact that cannot be served, and an older one is instead.",
    multiprocess_mode="livemax",
)


def observe(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Count what was recognised for one request."""
    for label in labels.tolist():
        IMAGES_OF[label].inc()
    for confidence in probabilities.max(1).tolist():
        CONFIDENCE.observe(confidence)
    BATCH.observe(len(labels))


def init_app(app: Flask) -> None:
    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(_registry()), content_type=CONTENT_TYPE_LATEST)


def count(environ: WSGIEnvironment, status: int, took: float) -> None:
    """Count a request that took so many seconds."""
    method = environ["REQUEST_METHOD"]
    requests, duration = _of(
        method if method in METHODS else "other", environ.get(ROUTE, "none"), status
    )
    requests.inc()
    duration.observe(took)


@cache  # finding them takes longer than counting
def _of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(method, route, status), SECONDS.labels(route)


def _registry() -> CollectorRegistry:
    if FOLDER not in os.environ:
        return REGISTRY
    for file in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        worker = int(file.stem.rpartition("_")[2])
        try:
            os.kill(worker, 0)  # no signal, only whether one could be sent
        except OSError:  # it is gone, or its number is another user's process by now
            file.unlink(missing_ok=True)  # another worker may be answering the same question
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry
