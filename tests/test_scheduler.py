"""The service under many clients at once, slow clients, and clients that disconnect."""

import json
import resource
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.conftest import running_server


@pytest.fixture(scope="module")
def narrow(repository):
    """A service with one worker, in which one request may wait."""
    with running_server(repository.path, "--workers=1", "--queue=1") as started:
        yield started


@pytest.fixture
def many(png_files):
    """A form of 500 pictures, which occupies a worker for a while."""
    return [("image", (file.name, file.read_bytes())) for file in png_files]


def address(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


@pytest.mark.slow
def test_a_full_queue_answers_503_and_the_others_are_answered(narrow, many):
    def send(_):
        return requests.post(f"{narrow.url}/recognize", files=many, timeout=60)

    with ThreadPoolExecutor(16) as clients:
        for _ in range(20):
            answers = list(clients.map(send, range(16)))
            if any(answer.status_code == 503 for answer in answers):
                break
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.headers["Retry-After"] == "1"
            assert answer.json() == {
                "error": "Too many requests are waiting; try again in a second."
            }
        else:
            assert len(answer.json()["results"]) == len(many)


def test_64_clients_at_once_all_get_responses(server, png_files, predictions):
    def send(number):
        with requests.Session() as session:
            content = png_files[number].read_bytes()
            return [
                session.post(f"{server.url}/recognize", files={"image": content}, timeout=60)
                for _ in range(5)
            ]

    with ThreadPoolExecutor(64) as clients:
        for number, answers in enumerate(clients.map(send, range(64))):
            for answer in answers:
                assert answer.status_code == 200
                assert answer.json()["labels"] == [predictions[number]]


@pytest.mark.slow
def test_slow_clients_delay_no_other_client(narrow, png_files):
    content = png_files[0].read_bytes()
    head = (
        f"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    slow = [socket.create_connection(address(narrow), timeout=60) for _ in range(1500)]
    try:
        for client in slow:
            client.sendall(head + content[:20])
        answer = requests.post(f"{narrow.url}/recognize", files={"image": content}, timeout=60)
        assert answer.status_code == 200
        slow[0].sendall(content[20:])
        response = b"".join(iter(lambda: slow[0].recv(4096), b""))
        assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    finally:
        for client in slow:
            client.close()


def test_clients_that_leave_cause_no_errors(narrow, png_files):
    for _ in range(20):
        with socket.create_connection(address(narrow), timeout=60) as client:
            client.sendall(b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx")
    answer = requests.get(f"{narrow.url}/metrics", timeout=60)
    errors = [line for line in answer.text.splitlines() if 'status="500"' in line]
    assert errors  # the series begins with 0
    assert all(line.endswith(" 0.0") for line in errors)


def test_head_responses_have_no_content(server):
    for path in ("/healthz", "/metrics", "/openapi.json"):
        get, head = (
            requests.request(method, f"{server.url}{path}", timeout=30)
            for method in ("GET", "HEAD")
        )
        assert (get.status_code, head.status_code) == (200, 200)
        assert head.content == b""


def test_paths_in_other_alphabets_reach_the_application(server):
    answer = requests.get(f"{server.url}/\u0446\u0438\u0444\u0440\u0430?x=%20", timeout=30)
    assert answer.status_code == 404
    assert "/\u0446\u0438\u0444\u0440\u0430 does not exist" in json.loads(answer.content)["error"]


def test_a_query_in_another_alphabet_reaches_the_application(server):
    query = "digits=\u0446".encode()  # a well-behaved client would percent-encode it
    with socket.create_connection(address(server), timeout=60) as client:
        head = b"POST /recognize?" + query + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        client.sendall(head)
        response = b"".join(iter(lambda: client.recv(4096), b""))
    assert response.startswith(b"HTTP/1.1 400 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2]) == {
        "error": "The parameter digits must be many or one, not '\u0446'."
    }
