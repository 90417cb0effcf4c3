"""The end of a service, with a time to drain: behind a proxy, a restart fails no request."""

import os
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import requests

from tests.conftest import PROJECT, free_port, is_open, program, running_server, wait_until

TIMEOUT = 60  # seconds
CLIENTS = 4
PAUSE = 0.05  # seconds between the requests of a client, so that the test needs little of the CPU
# The proxy looks once a second, repeats no request, and tells us the state of each service.
PROXY = """
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
    timeout check 60s
    retries 0
frontend clients
    bind 127.0.0.1:{port}
    default_backend services
backend services
    balance roundrobin
    option httpchk GET /readyz
    server first 127.0.0.1:{first} check inter 1s fall 1 rise 1
    server second 127.0.0.1:{second} check inter 1s fall 1 rise 1
frontend states
    bind 127.0.0.1:{states}
    http-request return status 200 content-type text/plain lf-string \
        "%[srv_is_up(services/first)] %[srv_is_up(services/second)]"
"""


def statuses(server, path):
    """Return the statuses of requests on ten connections, which reach all workers."""
    return {requests.get(f"{server.url}{path}", timeout=TIMEOUT).status_code for _ in range(10)}


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_draining_service_answers_until_a_second_signal(artifact, png_files, number):
    body, headers = png_files[0].read_bytes(), {"Content-Type": "image/png"}
    head = (
        "POST /recognize HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        f"Content-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    options = "--drain=600", "--timeout=600", "--workers=2", f"--lock={artifact.path}/dvc.lock"
    with running_server(PROJECT, *options) as server:
        port = int(server.url.rpartition(":")[2])
        with (
            requests.Session() as session,
            socket.create_connection(("127.0.0.1", port), TIMEOUT) as begun,
        ):
            recognize = {"url": f"{server.url}/recognize", "data": body, "headers": headers}
            assert session.post(**recognize).headers["Connection"] == "keep-alive"
            assert statuses(server, "/readyz") == {200}

            if number == signal.SIGINT:  # Ctrl-C sends it to all processes
                for worker in server.workers():
                    os.kill(worker, number)
            server.process.send_signal(number)
            wait_until(lambda: statuses(server, "/readyz") == {503}, "a worker does not drain")
            assert statuses(server, "/v2/health/ready") == {503}
            assert statuses(server, "/healthz") == {200}
            # A client with an open connection has to look for another service.
            answer = session.post(**recognize)
            assert (answer.status_code, answer.headers["Connection"]) == (200, "close")

            begun.sendall(head.encode())
            assert begun.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            server.process.send_signal(number)
            wait_until(lambda: not is_open(port), "new connections are still accepted")
            begun.sendall(body)
            assert begun.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.process.wait(TIMEOUT) == 0


@contextmanager
def proxy(folder, first, second):
    """Run haproxy before two services. Yield its URL, and a function for its view of them."""
    port, states = free_port(), free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(PROXY.format(port=port, first=first, second=second, states=states))
    command = [program("haproxy", "haproxy"), "-db", "-f", str(configuration)]

    def state():
        try:
            return requests.get(f"http://127.0.0.1:{states}", timeout=TIMEOUT).text.split()
        except requests.ConnectionError:
            return []

    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}", state
        finally:
            process.terminate()


@contextmanager
def clients(url, body):
    """Send pictures without an end, half of them on new connections. Yield the statuses."""
    answered: list[int] = []
    end = threading.Event()

    def send(client):
        with requests.Session() as session:
            while not end.wait(PAUSE):
                answer = (session if client % 2 else requests).post(
                    f"{url}/recognize",
                    data=body,
                    headers={"Content-Type": "image/png"},
                    timeout=TIMEOUT,
                )
                answered.append(answer.status_code)

    with ThreadPoolExecutor(CLIENTS) as pool:
        sending = [pool.submit(send, client) for client in range(CLIENTS)]
        try:
            yield answered
        finally:
            end.set()
    for client in sending:
        client.result()


@pytest.mark.slow
def test_a_rolling_restart_behind_a_proxy_fails_no_request(artifact, png_files, tmp_path):
    ports = [free_port(), free_port()]

    def service(port, *options):
        lock = f"--lock={artifact.path}/dvc.lock"
        return running_server(PROJECT, "--workers=1", lock, *options, port=port)

    with (
        proxy(tmp_path, *ports) as (url, state),
        service(ports[0], "--drain=600") as first,
        service(ports[1], "--drain=600") as second,
        ExitStack() as restarted,
    ):
        wait_until(lambda: state() == ["1", "1"], "the proxy does not see both")
        with clients(url, png_files[0].read_bytes()) as answered:
            for number, old in enumerate((first, second)):
                old.process.terminate()
                wait_until(
                    lambda: state()[number : number + 1] == ["0"],  # noqa: B023  # called at once
                    "the proxy does not see a drain",
                )
                old.process.terminate()
                assert old.process.wait(TIMEOUT) == 0
                restarted.enter_context(service(ports[number]))
                wait_until(lambda: state() == ["1", "1"], "the proxy does not see both again")
            enough = len(answered) + 20
            wait_until(lambda: len(answered) >= enough, "no answers follow the restarts")
    assert set(answered) == {200}
