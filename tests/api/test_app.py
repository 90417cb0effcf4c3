"""The headers that all responses share."""

import pytest

import service


@pytest.mark.parametrize("path", ["/", "/healthz", "/docs/", "/metrics", "/no", "/recognize"])
def test_every_response_has_the_security_headers_and_hides_the_software(client, path):
    answer = client.get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Server"] == "mnist"


def test_a_page_does_not_repeat_the_host_header(client):
    answer = client.get("/docs/", headers={"Host": "elsewhere.example"})
    assert "elsewhere" not in answer.text


def test_the_application_without_our_server_names_the_pinned_version(artifact):
    application = service.create_app(artifact.path / "dvc.lock")
    answer = application.test_client().get("/healthz")
    assert answer.headers["X-Model-Version"] == artifact.version
