"""What one request may ask for: each limit as an option, and what is said beyond it."""

import io
import socket
from contextlib import ExitStack

import numpy as np
import pytest
import requests
from PIL import Image

from service.api.limits import Limits
from tests.conftest import running_server

RAW = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def strict(repository):
    """Limits of its own, all of them lower than the service's."""
    options = ["--max-body=20000", "--max-images=2", "--max-pixels=10000", "--timeout=1"]
    with running_server(repository.path, "--workers=1", *options) as started:
        yield started


def picture(side, ink=True):
    drawn = Image.new("L", (side, side), 255)
    if ink:
        drawn.paste(0, (side // 2, side // 4, side // 2 + max(1, side // 12), side * 3 // 4))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


def error_of(answer, status):
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    return answer.json()["error"]


def send(server, *contents):
    files = [("image", (f"{place}.png", content)) for place, content in enumerate(contents)]
    return requests.post(f"{server.url}/recognize", files=files, timeout=60)


def predict(server, instances):
    return requests.post(
        f"{server.url}/v1/models/mnist:predict", json={"instances": instances}, timeout=60
    )


def infer(server, shape, data):
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": data}
    return requests.post(
        f"{server.url}/v2/models/mnist/infer", json={"inputs": [tensor]}, timeout=60
    )


def test_what_is_within_them_is_answered(strict):
    assert len(send(strict, picture(100), picture(28)).json()["results"]) == 2


def test_bytes_of_a_request(strict):
    answer = requests.post(f"{strict.url}/recognize", bytes(20_001), headers=RAW, timeout=60)
    assert error_of(answer, 413) == "The body is too large; the most is 20,000 bytes."


def test_pixels_of_a_picture(strict):
    assert error_of(send(strict, picture(101)), 400) == (
        "The image has 101 x 101 pixels; the most is 10,000 in all."
    )


def test_pixels_of_all_pictures_together(repository):
    with running_server(repository.path, "--workers=1", "--max-pixels=10000") as server:
        assert send(server, *[picture(100)] * 4).ok
        assert error_of(send(server, *[picture(100)] * 5), 413) == (
            "The pictures have more than 40,000 pixels together."
        )


def test_files_of_a_request(strict):
    assert "more than 2 parts" in error_of(send(strict, *[picture(28)] * 3), 413)


def test_images_of_a_request_in_either_protocol(strict):
    images = np.zeros((3, 28, 28), int).tolist()
    for answer in (predict(strict, images), infer(strict, [3, 28, 28], images)):
        assert error_of(answer, 413) == "The request has 3 images; the most is 2."


def test_digits_of_a_picture(strict):
    page = Image.new("L", (100, 60), 255)
    for place in range(3):
        page.paste(0, (15 + place * 30, 10, 20 + place * 30, 50))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    answer = requests.post(
        f"{strict.url}/recognize?digits=many", buffer.getvalue(), headers=RAW, timeout=60
    )
    assert error_of(answer, 413) == "The request has 3 images; the most is 2."


@pytest.mark.slow
@pytest.mark.parametrize("head", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_time_for_a_body(strict, head):
    host, _, port = strict.url.removeprefix("http://").partition(":")
    lines = ["POST /recognize HTTP/1.1", "Host: x", "Content-Type: image/png", head]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            for _ in range(100)
        ]
        for client in clients:
            client.sendall("\r\n".join([*lines, "", "5", "12345"]).encode())
        for client in clients:
            told = b"".join(iter(lambda: client.recv(4096), b""))  # noqa: B023  # it ends each
            assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert b'{"error":"The body was not complete after 1 seconds; send it faster."}' in told


@pytest.mark.slow
def test_time_for_a_head(strict):
    host, _, port = strict.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"POST /recognize HTTP/1.1\r\nHost: x\r\n")
        client.recv(4096)  # whatever it is: the service ends it
        assert client.recv(4096) == b""


@pytest.mark.slow
def test_time_for_an_answer(repository):
    """Pictures that take a while each, and a service that has a second for all."""
    slow = picture(5000)
    options = ["--workers=1", "--timeout=1", "--max-pixels=80000000"]
    with running_server(repository.path, *options) as server:
        answer = send(server, *[slow] * 12)
        assert error_of(answer, 503) == (
            "The request took longer than 1 seconds; send fewer or smaller pictures."
        )
        assert send(server, picture(28)).ok


def test_the_defaults_are_those_of_the_documentation(server):
    assert (Limits.body, Limits.images, Limits.pixels) == (16 << 20, 1000, 25_000_000)
    assert (Limits.queue, Limits.seconds) == (512, 30)
    side = 5000  # at the limit
    assert send(server, picture(side)).ok
    assert "25,000,000" in error_of(send(server, picture(side + 1)), 400)
    images = np.zeros((1001, 28, 28), int)
    images[:, 10:20, 13:15] = 255
    assert len(predict(server, images[1:].tolist()).json()["predictions"]) == 1000
    assert "1,001 images; the most is 1,000" in error_of(predict(server, images.tolist()), 413)
