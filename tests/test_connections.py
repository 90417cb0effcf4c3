"""Requests as bytes: what HTTP allows is answered, and all else is refused in one sentence."""

import json
import socket
import ssl
from contextlib import contextmanager

import pytest

from service.api.limits import Limits
from service.connections import HEAD, HEADERS, NO_HTTP

PICTURE = b"no picture"  # a body that gets an answer of the application
TOO_LARGE = f"The head of the request has more than {HEADERS} fields or {HEAD:,} bytes."
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@contextmanager
def connected(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        yield client


def read(client):
    """All until the service closes the connection."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def ask(server, *pieces):
    """Send pieces of a request, as packets of their own; return the answers."""
    with connected(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        return read(client)


def error_of(answer):
    """The status and the sentence of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head[9:12]), json.loads(body)["error"]


def post(*headers, end=b"Connection: close"):
    lines = [
        *(b"POST /recognize HTTP/1.1", b"Host: x", end),
        *(b"Content-Type: image/png", b"Content-Length: %d" % len(PICTURE)),
        *headers,
    ]
    return b"\r\n".join([*lines, b"", PICTURE])


@pytest.mark.parametrize(
    "headers",
    [[], [b"Connection: upgrade", b"Upgrade: h2c"], [b"X: y"] * (HEADERS - 5)],
    ids=["usual", "upgrade", "many"],
)
@pytest.mark.parametrize("size", [1, 20, 1 << 20])
def test_the_application_reads_the_body_in_any_pieces(server, headers, size):
    request = post(*headers)
    pieces = [request[start : start + size] for start in range(0, len(request), size)]
    status, sentence = error_of(ask(server, *pieces))
    assert status == 400
    assert sentence.startswith("The file is not an image")


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        (post(*[b"X: y"] * (HEADERS + 1)), 431, TOO_LARGE),
        (HEALTH + b"X: " + b"y" * 2 * HEAD, 431, TOO_LARGE),
        (HEALTH + b"X: " + b"y" * 2 * HEAD + b"\r\n\r\n", 431, TOO_LARGE),
        (b"GET /" + b"y" * 2 * HEAD, 431, TOO_LARGE),
        (b"no HTTP\r\n\r\n", 400, NO_HTTP),
        (b"\x16\x03\x01", 400, NO_HTTP),
        (b"JUMP / HTTP/1.1\r\nHost: x\r\n\r\n", 400, NO_HTTP),
        (post(b"Content-Length: 2"), 400, NO_HTTP),
        (HEALTH + b"Content-Length: -1\r\n\r\n", 400, NO_HTTP),
        (HEALTH + b"Content-Length: 99999999999999999999\r\n\r\n", 400, NO_HTTP),
        (post(b"Transfer-Encoding: chunked"), 400, NO_HTTP),
        (HEALTH + b"Transfer-Encoding: chunked\r\n\r\nno number\r\n", 400, NO_HTTP),
        (HEALTH + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2 * HEAD, 400, NO_HTTP),
    ],
    ids=[
        *("fields", "a field without end", "a long field", "a path without end", "no HTTP", "TLS"),
        *("a made-up method", "two lengths", "-1", "a huge length", "both lengths", "chunk"),
        "a chunk's head without end",
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    server, request_, status, sentence
):
    assert error_of(ask(server, request_)) == (status, sentence)


def test_a_client_of_https_is_told_at_once(server):
    with connected(server) as client, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(client, server_hostname="x")


def test_requests_that_come_together_are_answered_one_after_the_other(server):
    requests = [post(b"X-Request-Id: %d" % number, end=b"X: y") for number in range(50)]
    answer = ask(server, b"".join(requests) + b"\r\n" + HEALTH + b"Connection: close\r\n\r\n")
    heads = [part for part in answer.split(b"HTTP/1.1 ") if part]
    assert [head[:3] for head in heads] == [b"400"] * 50 + [b"200"]
    told = [line.partition(b": ")[2] for line in answer.split(b"\r\n") if b"X-Request-Id" in line]
    assert told[:50] == [b"%d" % number for number in range(50)]


def test_a_chunked_body_and_its_trailer(server):
    head = (
        b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nX-Request-Id: mine\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunks = b"5\r\nno pi\r\n5\r\ncture\r\n0\r\nX-Request-Id: of the trailer\r\n\r\n"
    answer = ask(server, head, chunks)
    assert error_of(answer)[1].startswith("The file is not an image")
    assert b"\r\nX-Request-Id: mine\r\n" in answer


def test_what_comes_right_after_a_chunked_body_ends_the_connection(server):
    head = b"POST /recognize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = ask(server, head + b"1\r\nx\r\n0\r\n\r\n" + HEALTH + b"\r\n")
    assert error_of(answer)[0] == 415
    assert b"\r\nConnection: close\r\n" in answer


def test_the_whole_url_of_a_proxy(server):
    line = b"GET HTTP://x:80/healthz?a=/b HTTP/1.1\r\n"
    answer = ask(server, line + b"Host: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("line", "status"), [(b"CONNECT x:443", 404), (b"OPTIONS *", 404), (b"TRACE /", 405)]
)
def test_what_there_is_nothing_for(server, line, status):
    answer = ask(server, line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert error_of(answer)[0] == status


def test_http_1_0_keeps_the_connection_if_the_client_asks_for_it(server):
    answer = ask(
        server,
        b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
    )
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answer.count(b"\r\nConnection: keep-alive\r\n") == 1


def test_who_still_sends_a_body_that_is_too_large_gets_the_answer(server):
    length = 3 * Limits.body
    head = (
        b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )
    status, sentence = error_of(ask(server, head, bytes(length)))
    assert (status, sentence) == (413, "The body is too large; the limit is 16,777,216 bytes.")


def test_a_client_that_reads_no_answers_is_asked_to_wait(server):
    """And its answers do not pile up in the memory of the service."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(server) as client:
        client.settimeout(2)
        with pytest.raises(TimeoutError):
            client.sendall(request * 1_000_000)
        client.settimeout(60)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
