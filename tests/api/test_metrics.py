"""`GET /metrics`; what it counts is tested with `service.metrics`."""

from prometheus_client import CONTENT_TYPE_LATEST


def test_it_answers_in_the_text_format_of_prometheus(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPE_LATEST
    assert "# TYPE mnist_requests_total counter" in answer.text
