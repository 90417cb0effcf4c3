"""`GET /metrics`: return the metrics for Prometheus."""

from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service import metrics


def init_app(app: Flask) -> None:
    """Add the route `/metrics` to an application."""

    @app.get("/metrics")
    def exposition() -> Response:
        return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
