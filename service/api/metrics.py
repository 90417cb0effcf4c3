"""`GET /metrics`, for Prometheus."""

from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service import metrics


def init_app(app: Flask) -> None:
    @app.get("/metrics")
    def exposition() -> Response:
        return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
