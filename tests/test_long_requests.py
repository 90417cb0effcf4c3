"""Long requests do not delay short ones, keep their order, and end when their client leaves."""

import asyncio
import io
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor, wait
from wsgiref.types import WSGIEnvironment

import numpy as np
import pytest
import requests
from PIL import Image

from service.api.limits import SHORT_BODY, SHORT_PIXELS
from service.reload import ModelStatus
from service.served_model import ARTIFACT, Model
from tests.conftest import running_server

SIDE = 316  # pixels of a picture that takes some milliseconds


@pytest.fixture
def one_worker(repository):
    with running_server(repository.path, "--workers=1") as started:
        yield started


@pytest.fixture
def clients():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def encoded(side):
    picture = Image.new("L", (side, side))
    picture.paste(255, (side // 2, side // 4, side // 2 + side // 10, side // 4 * 3))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def form(count):
    content = encoded(SIDE)
    return [("image", (f"{number}.png", content)) for number in range(count)]


def post(server, **content):
    return requests.post(f"{server.url}/recognize", timeout=60, **content)


def start_long(server, clients, count=150):
    """Send a long request, and wait until the service has received it."""
    request = clients.submit(post, server, files=form(count))
    while in_flight(server) < 2:  # the request for the metrics counts, too
        assert not request.done()
    return request


def metric(server, name):
    text = requests.get(f"{server.url}/metrics", timeout=60).text
    return [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]


def in_flight(server):
    return sum(metric(server, "mnist_requests_in_flight"))


def test_a_long_request_delays_no_short_requests(one_worker, clients, png_files):
    long = start_long(one_worker, clients)
    picture = png_files[0].read_bytes()
    for _ in range(10):
        assert requests.get(f"{one_worker.url}/healthz", timeout=60).ok
        assert requests.get(f"{one_worker.url}/metrics", timeout=60).ok
        assert post(one_worker, files={"image": picture}).ok
        assert post(one_worker, data=encoded(100), headers={"Content-Type": "image/png"}).ok
    assert not long.done()
    assert len(long.result().json()["results"]) == 150


def test_long_requests_are_answered_in_order_of_arrival(one_worker, clients):
    long = [start_long(one_worker, clients)]
    for count in (3, 2, 1):
        long.append(clients.submit(post, one_worker, files=form(5 * count)))
        while in_flight(one_worker) < 1 + len(long):
            assert not long[0].done()
    for number, request in enumerate(long):
        assert request.result().ok
        assert [later.done() for later in long[:number]] == [True] * number


def test_a_long_request_with_a_small_body_is_answered_and_counted_once(one_worker):
    side = int(SHORT_PIXELS**0.5) + 1
    content = encoded(side)
    assert len(content) < SHORT_BODY
    before = metric(one_worker, "mnist_request_images_count")
    answer = post(one_worker, data=content, headers={"Content-Type": "image/png"})
    assert answer.json()["labels"]
    assert metric(one_worker, "mnist_request_images_count") == [before[0] + 1]
    *_, line, _ = one_worker.stop().splitlines()
    assert answer.headers["X-Request-Id"] in line


def test_a_request_ends_when_its_client_leaves(one_worker, clients):
    """A request in progress ends after the current picture, and a waiting request ends at once."""
    content = requests.Request("POST", one_worker.url, files=form(200)).prepare()
    body = content.body
    assert isinstance(body, bytes)
    host, _, port = one_worker.url.removeprefix("http://").partition(":")
    head = (
        f"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: {content.headers['Content-Type']}"
        f"\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    leaving = [socket.create_connection((host, int(port)), timeout=60) for _ in range(2)]
    for number, client in enumerate(leaving):
        client.sendall(head.encode() + body)
        while in_flight(one_worker) < 2 + number:
            pass
    for client in leaving:
        client.close()
    while in_flight(one_worker) > 1:
        pass
    assert len(post(one_worker, files=form(6)).json()["results"]) == 6
    lines = [line for line in one_worker.stop().splitlines() if "/recognize" in line]
    assert [line.split(" ")[3] for line in lines] == ["499", "499", "200"]
    assert [line.split("images=")[1].split(" ")[0] for line in lines] == ["0", "0", "6"]


def test_a_long_request_that_waits_too_long_is_refused(repository, clients):
    with running_server(repository.path, "--workers=1", "--timeout=1") as server:
        requests_ = [clients.submit(post, server, files=form(1000)) for _ in range(4)]
        wait(requests_)
        for request in requests_:
            assert request.result().status_code == 503
            assert "took longer than 1 seconds" in request.result().json()["error"]
        assert post(server, files=form(6)).ok


def test_one_artifact_answers_a_request_from_its_beginning_to_its_end(
    repository, version, sha256, tmp_path
):
    folder = repository.path / "data/model"
    shutil.copytree(folder, tmp_path / "model")
    model = Model(folder, version, sha256, "litert")
    before: WSGIEnvironment = {}
    after: WSGIEnvironment = {}
    model.begin(before)
    other = ModelStatus("1" * 32, "AVAILABLE", folder=str(tmp_path / "model"))
    asyncio.run(model._catch_up([other, ModelStatus(version, "END")]))
    model.begin(after)
    assert (before[ARTIFACT].version, after[ARTIFACT].version) == (version, "1" * 32)
    for environ in (before, after):
        labels, _ = model.recognize(np.zeros((1, 28, 28), np.uint8), environ)
        assert len(labels) == 1
