"""Each limit is an option, and a request beyond it gets an error with the limit."""

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
    """Yield a server whose limits are all lower than the defaults."""
    options = ["--max-body=20000", "--max-images=2", "--max-pixels=10000", "--timeout=1"]
    with running_server(repository.path, "--workers=1", *options) as server:
        yield server


def picture(side, ink=True):
    canvas = Image.new("L", (side, side), 255)
    if ink:
        canvas.paste(0, (side // 2, side // 4, side // 2 + max(1, side // 12), side * 3 // 4))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def error_of(answer, status):
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    return answer.json()["error"]


def send(server, *contents):
    files = [("image", (f"{index}.png", content)) for index, content in enumerate(contents)]
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


def test_a_request_within_the_limits_succeeds(strict):
    assert len(send(strict, picture(100), picture(28)).json()["results"]) == 2


def test_limit_of_bytes_per_request(strict):
    answer = requests.post(f"{strict.url}/recognize", bytes(20_001), headers=RAW, timeout=60)
    assert error_of(answer, 413) == "The body is too large; the limit is 20,000 bytes."


def test_limit_of_pixels_per_picture(strict):
    assert error_of(send(strict, picture(101)), 400) == (
        "The picture has 101 x 101 pixels; the limit is 10,000 in total."
    )


def test_limit_of_total_pixels_per_request(repository):
    with running_server(repository.path, "--workers=1", "--max-pixels=10000") as server:
        assert send(server, *[picture(100)] * 4).ok
        assert error_of(send(server, *[picture(100)] * 5), 413) == (
            "The pictures have more than 40,000 pixels in total."
        )


def test_limit_of_files_per_request(strict):
    assert "more than 2 parts" in error_of(send(strict, *[picture(28)] * 3), 413)


def test_limit_of_images_per_request_in_both_protocols(strict):
    images = np.zeros((3, 28, 28), int).tolist()
    for answer in (predict(strict, images), infer(strict, [3, 28, 28], images)):
        assert error_of(answer, 413) == "The request has 3 images; the limit is 2."


def test_limit_of_digits_per_picture(strict):
    page = Image.new("L", (100, 60), 255)
    for index in range(3):
        page.paste(0, (15 + index * 30, 10, 20 + index * 30, 50))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    answer = requests.post(
        f"{strict.url}/recognize?digits=many", buffer.getvalue(), headers=RAW, timeout=60
    )
    assert error_of(answer, 413) == "The request has 3 images; the limit is 2."


@pytest.mark.slow
@pytest.mark.parametrize("head", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_limit_of_time_to_receive_a_body(strict, head):
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
            # The loop exhausts the iterator before `client` changes.
            response = b"".join(iter(lambda: client.recv(4096), b""))  # noqa: B023
            assert response.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert (
                b'{"error":"The body was not complete after 1 seconds; send it faster."}'
                in response
            )


@pytest.mark.slow
def test_limit_of_time_to_receive_a_head(strict):
    host, _, port = strict.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"POST /recognize HTTP/1.1\r\nHost: x\r\n")
        client.recv(4096)  # a response or the end of the connection
        assert client.recv(4096) == b""


@pytest.mark.slow
def test_limit_of_time_to_answer(repository):
    """All pictures together take longer than the one second that the service allows."""
    content = picture(500)
    options = ["--workers=1", "--timeout=1", "--max-pixels=80000000"]
    with running_server(repository.path, *options) as server:
        answer = send(server, *[content] * 1000)
        assert error_of(answer, 503) == (
            "The request took longer than 1 seconds; send fewer or smaller pictures."
        )
        assert send(server, picture(28)).ok


def test_the_defaults_are_the_documented_ones(server):
    assert (Limits.body, Limits.images, Limits.pixels) == (16 << 20, 1000, 25_000_000)
    assert (Limits.queue, Limits.seconds) == (512, 30)
    side = 5000  # at the limit
    assert send(server, picture(side)).ok
    assert "25,000,000" in error_of(send(server, picture(side + 1)), 400)
    images = np.zeros((1001, 28, 28), int)
    images[:, 10:20, 13:15] = 255
    assert len(predict(server, images[1:].tolist()).json()["predictions"]) == 1000
    assert "1,001 images; the limit is 1,000" in error_of(predict(server, images.tolist()), 413)
