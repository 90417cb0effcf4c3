"""What all answers have in common."""

import pytest

import service


@pytest.mark.parametrize("path", ["/", "/healthz", "/docs/", "/metrics", "/no", "/recognize"])
def test_every_answer_is_protected_and_names_no_software(client, path):
    answer = client.get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Server"] == "mnist"


def test_the_address_of_the_request_is_not_repeated(client):
    answer = client.get("/docs/", headers={"Host": "elsewhere.example"})
    assert "elsewhere" not in answer.text


def test_the_application_answers_under_any_server_with_the_version_that_the_lock_pins(artifact):
    application = service.create_app(artifact.path / "dvc.lock")
    answer = application.test_client().get("/healthz")
    assert answer.headers["X-Model-Version"] == artifact.version
