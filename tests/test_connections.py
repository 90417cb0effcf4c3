"""Send requests as bytes: the service answers valid HTTP, and refuses all else in one sentence."""

import json
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Barrier

import pytest
import requests

from service.__main__ import _listen_on_path
from service.api.limits import Limits
from service.connections import HEAD, HEADERS, NO_HTTP
from service.supervisor import STOP_TIMEOUT
from tests.conftest import ENVIRONMENT, PROJECT, program, running_server, start

PICTURE = b"not a picture"  # a body that the application refuses
TOO_LARGE = f"The head of the request has more than {HEADERS} fields or {HEAD:,} bytes."
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@contextmanager
def connected(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        yield client


def read(client):
    """Read until the service closes the connection."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def send(server, *pieces):
    """Send pieces of a request as separate packets, and return the responses."""
    with connected(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        return read(client)


def error_of(answer):
    """Return the status and the error sentence of one response."""
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
    status, sentence = error_of(send(server, *pieces))
    assert status == 400
    assert sentence.startswith("The file is not a picture")


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
        *("fields", "an endless field", "a long field", "an endless path", "not HTTP", "TLS"),
        *("an unknown method", "two lengths", "-1", "a huge length", "length and chunks", "chunk"),
        "an endless chunk head",
    ],
)
def test_an_invalid_request_is_refused_and_its_connection_closed(
    server, request_, status, sentence
):
    assert error_of(send(server, request_)) == (status, sentence)


def test_an_https_client_gets_an_error_at_once(server):
    with connected(server) as client, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(client, server_hostname="x")


def test_pipelined_requests_are_answered_in_order(server):
    sent = [post(b"X-Request-Id: %d" % number, end=b"X: y") for number in range(50)]
    answer = send(server, b"".join(sent) + b"\r\n" + HEALTH + b"Connection: close\r\n\r\n")
    heads = [part for part in answer.split(b"HTTP/1.1 ") if part]
    assert [head[:3] for head in heads] == [b"400"] * 50 + [b"200"]
    ids = [line.partition(b": ")[2] for line in answer.split(b"\r\n") if b"X-Request-Id" in line]
    assert ids[:50] == [b"%d" % number for number in range(50)]


def test_a_chunked_body_is_read_and_its_trailer_ignored(server):
    head = (
        b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nX-Request-Id: mine\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunks = b"5\r\nnot a\r\n8\r\n picture\r\n0\r\nX-Request-Id: trailer\r\n\r\n"
    answer = send(server, head, chunks)
    assert error_of(answer)[1].startswith("The file is not a picture")
    assert b"\r\nX-Request-Id: mine\r\n" in answer


def test_a_request_pipelined_after_a_chunked_body_ends_the_connection(server):
    head = b"POST /recognize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = send(server, head + b"1\r\nx\r\n0\r\n\r\n" + HEALTH + b"\r\n")
    assert error_of(answer)[0] == 415
    assert b"\r\nConnection: close\r\n" in answer


def test_a_target_may_be_an_absolute_url(server):
    line = b"GET HTTP://x:80/healthz?a=/b HTTP/1.1\r\n"
    answer = send(server, line + b"Host: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("line", "status"), [(b"CONNECT x:443", 404), (b"OPTIONS *", 404), (b"TRACE /", 405)]
)
def test_unsupported_methods_are_refused(server, line, status):
    answer = send(server, line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert error_of(answer)[0] == status


def test_http_1_0_keeps_the_connection_only_on_request(server):
    answer = send(
        server,
        b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
    )
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answer.count(b"\r\nConnection: keep-alive\r\n") == 1


def test_a_client_that_sends_too_large_a_body_gets_the_response(server):
    length = 3 * Limits.body
    head = (
        b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )
    status, sentence = error_of(send(server, head, bytes(length)))
    assert (status, sentence) == (413, "The body is too large; the limit is 16,777,216 bytes.")


def test_a_client_that_reads_no_responses_cannot_send_more_requests(server):
    """Otherwise its responses would accumulate in the memory of the service."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(server) as client:
        client.settimeout(2)
        with pytest.raises(TimeoutError):
            client.sendall(request * 1_000_000)
        client.settimeout(60)
        assert client.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.slow
def test_the_time_before_a_request_does_not_shorten_the_time_for_its_body(repository):
    request = post()
    with (
        running_server(repository.path, "--workers=1", "--timeout=3") as server,
        connected(server) as client,
    ):
        time.sleep(2)
        client.sendall(request[:-1])
        time.sleep(2.5)  # the body now ends 4.5 seconds after the connection began
        client.sendall(request[-1:])
        status, sentence = error_of(read(client))
    assert status == 400
    assert sentence.startswith("The file is not a picture")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *(program("openssl", "openssl"), "req", "-x509", "-nodes", "-subj", "/CN=127.0.0.1"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]),
        ],
        check=True,
        capture_output=True,
    )
    return files


@pytest.mark.server
def test_the_service_speaks_tls(artifact, certificate, png_files):
    chain, key = certificate
    options = f"--tls-certificate={chain}", f"--tls-key={key}", f"--lock={artifact.path}/dvc.lock"
    context = ssl.create_default_context(cafile=chain)
    with running_server(
        PROJECT, *options, "--workers=1", "--max-body=100000", certificate=chain
    ) as server:
        assert server.url.startswith("https://")
        address = "127.0.0.1", int(server.url.rpartition(":")[2])
        with requests.Session() as session:
            for file, label in zip(png_files[:3], artifact.predictions, strict=False):
                files = {"image": file.read_bytes()}
                url = f"{server.url}/recognize"
                answer = session.post(url, files=files, timeout=60, verify=str(chain))
                assert answer.json()["labels"] == [label]

        # The client gets the response although it has not sent its body, and ends the connection.
        with socket.create_connection(address, 60) as plain:
            client = context.wrap_socket(plain, server_hostname="127.0.0.1")
            client.sendall(
                b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"Content-Length: 200000\r\n\r\n"
            )
            assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
            client.close()

        with socket.create_connection(address, 60) as plain:
            plain.sendall(HEALTH + b"\r\n")
            assert read_or_broken(plain) == b""
        # A client with an open connection, which does not confirm its end, delays no stop.
        with socket.create_connection(address, 60) as plain:
            idle = context.wrap_socket(plain, server_hostname="127.0.0.1")
            idle.sendall(HEALTH + b"\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 200 ")
            output = server.stop(timeout=STOP_TIMEOUT - 5)
    assert server.process.returncode == 0
    assert " at https://127.0.0.1:" in output
    assert "Traceback" not in output


def read_or_broken(client):
    try:
        return read(client)
    except ConnectionError:
        return b""


@pytest.mark.server
def test_the_service_listens_on_a_unix_socket(artifact, tmp_path):
    path = tmp_path / "service.sock"
    with socket.socket(socket.AF_UNIX) as dead:  # a killed service leaves its socket
        dead.bind(str(path))
    options = f"--uds={path}", "--workers=2", f"--lock={artifact.path}/dvc.lock"
    with subprocess.Popen(
        [sys.executable, "-m", "service", *options],
        cwd=PROJECT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert f" at {path} (2 workers" in process.stdout.readline()
            answers = [redirect(path) for _ in range(10)]
            another = start(PROJECT, *options)
        finally:
            process.terminate()
            output = process.stdout.read()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 308 ")
        assert b"\r\nLocation: http://x/docs/\r\n" in answer
    assert another.stderr == (
        f"service: cannot listen on {path} (Address already in use); choose another --uds\n"
    )
    assert process.returncode == 0
    assert output.count(" GET /docs 308 ") == 10
    assert not path.exists()


def redirect(path):
    """Return the answer of a service on a Unix socket to a path without its last slash."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(b"GET /docs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return read(client)


def test_of_services_that_start_on_a_stale_unix_socket_at_the_same_time_one_listens(tmp_path):
    def listen(path):
        barrier.wait()
        with suppress(OSError):
            return _listen_on_path(path)

    services, attempts = 4, 50
    barrier = Barrier(services)
    with ThreadPoolExecutor(services) as pool:
        for number in range(attempts):
            path = tmp_path / str(number)
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
            [listener] = filter(None, pool.map(listen, [path] * services))
            with listener, socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
