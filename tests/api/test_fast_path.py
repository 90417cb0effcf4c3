"""The fast path answers the most common request without Flask, and exactly as Flask does."""

from io import BytesIO

import pytest
import requests

from service.api.fast_path import MAX_BODY, with_fast_path
from service.served_model import Model
from tests.conftest import in_process

TOKEN = "x" * 32


@pytest.fixture(scope="module")
def model(artifact):
    return Model(artifact.path / "data/model", artifact.version, artifact.sha256, "litert")


@pytest.fixture
def picture(png_files):
    return png_files[0].read_bytes()


def form(*parts):
    """Return the body and the content type of a form as `requests` sends it."""
    request = requests.Request("POST", "http://localhost", files=parts).prepare()
    return request.body, request.headers["Content-Type"]


def call(model, body, content_type, token=None, **others):
    """Return the response of the fast path or None, and the body that it passes to Flask."""
    passed = []

    def application(environ, start_response):
        passed.append(environ["wsgi.input"].read())
        return []

    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/recognize",
        "QUERY_STRING": "",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
    }
    chunks = with_fast_path(application, model, token)(environ | others, lambda *_: passed.append)
    return b"".join(chunks) or None, b"".join(passed)


def test_the_most_common_request_never_reaches_flask(model, picture):
    answer, passed = call(model, *form(("image", ("a.png", picture))))
    assert answer.startswith(b'{"filename":"a.png","labels":[')
    assert not passed
    answer, passed = call(model, picture, "image/png")
    assert answer.startswith(b'{"filename":null,"labels":[')
    assert not passed


@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "PUT"},
        {"PATH_INFO": "/other"},
        {"QUERY_STRING": "probabilities=true"},
        {"QUERY_STRING": "min_confidence=0.9"},
        {"CONTENT_TYPE": "image/jpeg"},
        {"CONTENT_TYPE": "multipart/form-data"},
        {"CONTENT_LENGTH": ""},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"token": TOKEN},
        {"token": TOKEN, "HTTP_AUTHORIZATION": "Bearer another"},
    ],
)
def test_any_other_request_reaches_flask_unchanged(model, picture, environ):
    assert call(model, picture, "image/png", **environ) == (None, picture)


def test_a_large_body_or_another_form_or_an_invalid_picture_reaches_flask_unchanged(model, picture):
    whole, whole_type = form(("image", ("a.png", picture)))
    boundary = whole_type.rpartition("=")[2]
    damaged = picture[:60] + b"\0" + picture[61:]
    for body, content_type in [
        form(("image", ("a.png", picture)), ("image", ("b.png", picture))),
        form(("other", ("a.png", picture))),
        form(("image", ("a.png", damaged))),
        form(("image", ("a.png", b""))),
        (whole[:-9], whole_type),
        # Flask rejects this boundary, because it contains "=" and is not quoted.
        (whole.replace(boundary.encode(), b"a=b"), whole_type.replace(boundary, "a=b")),
        (picture + bytes(MAX_BODY), "image/png"),
        (damaged, "image/png"),
    ]:
        assert call(model, body, content_type) == (None, body)


def test_the_token_admits_a_request(model, picture):
    credentials = {"token": TOKEN, "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    assert call(model, picture, "image/png", **credentials)[0]


@pytest.mark.parametrize(
    "name",
    [
        *("104.png", " a b.png ", "folder/a.png", "C:a.png", "a;b=c.png", "'a'.png", "a\\b.png"),
        *('"a".png', "100%.png", "%22.png", "ä.png", "九.png", "a\tb.png"),
    ],
)
def test_the_response_equals_the_response_of_flask(client, png_files, name):
    for file in png_files[:3]:
        fast, *others = (
            client.post(
                f"/recognize{query}",
                files={"image": (name, file.read_bytes(), "image/png")},
                headers={"X-Request-Id": "one"},
            )
            for query in ("", "?digits=one", "?min_confidence=0")
        )
        assert fast.status_code == 200
        fast.headers.pop("Date", None)  # the requests may arrive in different seconds
        for slow in others:
            assert fast.content == slow.content
            slow.headers.pop("Date", None)
            assert fast.headers == slow.headers


def test_an_error_of_the_engine_is_answered_logged_and_counted_like_any_other(
    artifact, picture, monkeypatch, caplog
):
    def fail(*_):
        raise RuntimeError("the engine failed")

    monkeypatch.setattr(Model, "recognize", fail)
    client = in_process(artifact, cors_origin="*")
    answer = client.post("/recognize", files={"image": picture})
    assert answer.status_code == 500
    assert answer.json()["error"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "the engine failed" in caplog.text
    counted = f'route="/recognize",status="500",version="{artifact.version}"}} 1.0'
    assert counted in client.get("/metrics").text
