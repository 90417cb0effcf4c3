"""Bounds on the heads of requests, and heads that the HTTP parser would misread."""

import socket

import pytest

from service.connections import HEAD, HEADERS

PICTURE = b"no picture"  # a body that gets an answer of the application


def ask(server, request):
    """Send bytes; return the status of the answer, or none if the connection is closed."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(request)
        try:
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        except ConnectionResetError:  # it was still being sent to
            return None
    return int(answer[9:12]) if answer else None


def post(*headers):
    lines = [
        *(b"POST /recognize HTTP/1.1", b"Host: x", b"Connection: close"),
        *(b"Content-Type: image/png", b"Content-Length: %d" % len(PICTURE)),
        *headers,
    ]
    return b"\r\n".join([*lines, b"", PICTURE])


@pytest.mark.parametrize(
    "headers",
    [[], [b"Connection: upgrade", b"Upgrade: h2c"], [b"X: y"] * (HEADERS - 5)],
    ids=["usual", "upgrade", "many"],
)
def test_the_application_reads_the_body(server, headers):
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(post(*headers))
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"The file is not an image" in answer


@pytest.mark.parametrize(
    "request_",
    [
        post(*[b"X: y"] * (HEADERS + 1)),
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2 * HEAD,
        b"GET /" + b"y" * 2 * HEAD,
        b"no HTTP\r\n\r\n",
        b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["headers", "a long header", "a long path", "no HTTP", "two lengths", "-1", "both lengths"],
)
def test_a_bad_head_is_refused_and_the_connection_closed(server, request_):
    assert ask(server, request_) in {400, None}
