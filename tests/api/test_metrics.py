"""`GET /metrics`. The tests of `service.metrics` cover the values."""

from prometheus_client import CONTENT_TYPE_LATEST


def test_metrics_have_the_text_format_of_prometheus(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPE_LATEST
    assert "# TYPE mnist_requests_total counter" in answer.text
