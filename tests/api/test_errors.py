import pytest
from flask import Flask

from service.api import errors
from service.recognition.images import ImageError


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/missing", 404, "The path /missing does not exist; POST a picture to /recognize."),
        ("POST", "/missing", 404, "The path /missing does not exist"),
        ("GET", "/recognize", 405, "GET is not allowed at /recognize; use OPTIONS, POST."),
        ("DELETE", "/healthz", 405, "DELETE is not allowed at /healthz; use GET, HEAD, OPTIONS."),
    ],
)
def test_unknown_paths_and_methods_return_404_and_405(
    client, artifact, method, path, status, sentence
):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert answer.headers["X-Model-Version"] == artifact.version
    if status == 405:
        assert answer.headers["Allow"]


def test_a_path_without_its_trailing_slash_is_redirected(client):
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert answer.url == f"{client.url}/docs/"


@pytest.fixture
def failing():
    """Return a function that creates a client of an application that raises a chosen error."""
    application = Flask(__name__)
    errors.init_app(application)

    def client(error):
        @application.get("/")
        def fail():
            raise error

        return application.test_client()

    return client


def test_a_bug_returns_one_sentence_and_logs_the_traceback(failing, caplog):
    answer = failing(KeyError("a secret")).get("/")
    assert answer.status_code == 500
    assert answer.json == {"error": errors.FAILED}
    assert "KeyError: 'a secret'" in caplog.text


def test_a_long_sentence_is_truncated(failing):
    answer = failing(ImageError("x" * 5000)).get("/")
    assert answer.status_code == 400
    assert answer.json == {"error": "x" * errors.LONGEST + "..."}
