"""The usual request is answered without Flask, and just as Flask would answer it."""

from io import BytesIO

import pytest
import requests

from service.api.fast_path import SMALL, with_fast_path
from service.served_model import Model

TOKEN = "x" * 32


@pytest.fixture(scope="module")
def model(artifact):
    return Model(artifact.path / "data/model", artifact.version, "litert")


@pytest.fixture
def picture(png_files):
    return png_files[0].read_bytes()


def form(*parts):
    """A form as `requests` sends it, and its type."""
    made = requests.Request("POST", "http://localhost", files=parts).prepare()
    return made.body, made.headers["Content-Type"]


def take(model, body, content_type, token=None, **others):
    """What the shortcut answers, and the body that it leaves to the application."""
    read = []

    def application(environ, start_response):
        read.append(environ["wsgi.input"].read())
        return []

    given = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/recognize",
        "QUERY_STRING": "",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
    }
    chunks = with_fast_path(application, model, token)(given | others, lambda *_: read.append)
    return b"".join(chunks) or None, b"".join(read)


def test_the_usual_request_never_reaches_flask(model, picture):
    answer, left = take(model, *form(("image", ("a.png", picture))))
    assert answer.startswith(b'{"filename":"a.png","labels":[')
    assert not left
    answer, left = take(model, picture, "image/png")
    assert answer.startswith(b'{"filename":null,"labels":[')
    assert not left


@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "PUT"},
        {"PATH_INFO": "/recognise"},
        {"QUERY_STRING": "probabilities=true"},
        {"CONTENT_TYPE": "image/jpeg"},
        {"CONTENT_TYPE": "multipart/form-data"},
        {"CONTENT_LENGTH": ""},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"token": TOKEN},
        {"token": TOKEN, "HTTP_AUTHORIZATION": "Bearer another"},
    ],
)
def test_another_request_reaches_flask_as_it_came(model, picture, environ):
    assert take(model, picture, "image/png", **environ) == (None, picture)


def test_so_does_one_that_is_large_or_has_other_parts_or_no_good_picture(model, picture):
    cut, cut_type = form(("image", ("a.png", picture)))
    boundary = cut_type.rpartition("=")[2]
    damaged = picture[:60] + b"\0" + picture[61:]
    for body, content_type in [
        form(("image", ("a.png", picture)), ("image", ("b.png", picture))),
        form(("other", ("a.png", picture))),
        form(("image", ("a.png", damaged))),
        form(("image", ("a.png", b""))),
        (cut[:-9], cut_type),
        # Such a boundary has to be quoted, so Flask refuses it.
        (cut.replace(boundary.encode(), b"a=b"), cut_type.replace(boundary, "a=b")),
        (picture + bytes(SMALL), "image/png"),
        (damaged, "image/png"),
    ]:
        assert take(model, body, content_type) == (None, body)


def test_the_token_opens_it(model, picture):
    given = {"token": TOKEN, "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    assert take(model, picture, "image/png", **given)[0]


@pytest.mark.parametrize(
    "name",
    [
        *("104.png", " a b.png ", "folder/a.png", "C:a.png", "a;b=c.png", "'a'.png", "a\\b.png"),
        *('"a".png', "100%.png", "%22.png", "ä.png", "九.png", "a\tb.png"),
    ],
)
def test_the_answer_is_as_by_flask(client, png_files, name):
    for file in png_files[:3]:
        short, long = (
            client.post(
                f"/recognize{query}",
                files={"image": (name, file.read_bytes(), "image/png")},
                headers={"X-Request-Id": "one"},
            )
            for query in ("", "?digits=one")
        )
        assert short.status_code == 200
        assert short.content == long.content
        for answer in (short, long):
            answer.headers.pop("Date", None)  # the clock may have ticked between the two
        assert short.headers == long.headers
