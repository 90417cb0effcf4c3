"""Kill workers: the others answer the requests, and new workers replace the killed ones."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from service.supervisor import MIN_LIFETIME, STOP_TIMEOUT
from tests.conftest import ENVIRONMENT, PROJECT, free_port, running_server, wait_until

pytestmark = pytest.mark.slow

TIMEOUT = 60  # seconds
CLIENTS = 4
LISTENING = "0A"  # a state in /proc/net/tcp


@pytest.fixture
def served(repository, tmp_path, monkeypatch):
    """A service with two workers that writes to `tmp_path`."""
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path))
    with running_server(repository.path, "--workers=2") as started:
        wait_until(lambda: len(ready(started)) == 2, "the two workers are not ready")
        yield started


def port(server):
    return int(server.url.rpartition(":")[2])


def ready(server):
    """Return the workers that have loaded the model. Each has created its file of metrics."""
    files = Path(ENVIRONMENT["TMPDIR"]).glob("mnist-service-*/metrics/gauge_livemax_*.db")
    return server.workers() & {int(file.stem.rpartition("_")[2]) for file in files}


def listens(server):
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(row[1].endswith(f":{port(server):04X}") and row[3] == LISTENING for row in rows)


def kill(server, *killed):
    """Kill workers, and wait until their replacements are ready."""
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(ready(server) - set(killed)) == 2, "no new workers are ready")


def ask(server, method, path, **options):
    """Send a request on a new connection. If the connection breaks, retry, as clients do.

    A test kills two workers, and each of them may have accepted the request, so retry twice.
    """
    for last in (False, False, True):
        try:
            return requests.request(method, f"{server.url}{path}", timeout=TIMEOUT, **options)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            if last:
                raise
            time.sleep(0.1)
    raise AssertionError


@contextmanager
def clients(server, png_files, predictions):
    """Run clients that send continuously. Yield the growing list of the pictures answered."""
    answered: list[int] = []
    end = threading.Event()

    def send(client):
        for number in cycle(range(client, len(png_files), CLIENTS)):
            if end.is_set():
                break
            files = {"image": png_files[number].read_bytes()}
            answer = ask(server, "POST", "/recognize", files=files)
            assert (answer.status_code, answer.json()["labels"]) == (200, [predictions[number]])
            assert ask(server, "GET", "/healthz").status_code == 200
            assert ask(server, "GET", "/metrics").status_code == 200
            answered.append(number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        sending = [pool.submit(send, client) for client in range(CLIENTS)]
        try:
            yield answered
        finally:
            end.set()
    for client in sending:
        client.result()


def in_flight(server):
    text = requests.get(f"{server.url}/metrics", timeout=TIMEOUT).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["mnist_requests_in_flight"].samples[0].value


def test_every_client_gets_responses_while_workers_are_killed(served, png_files, predictions):
    with clients(served, png_files, predictions) as answered:
        first, second = served.workers()
        kill(served, first)
        # For a while, the new worker is the only one.
        kill(served, second)
        assert len(served.workers()) == 2
        enough = len(answered) + 50
        wait_until(lambda: len(answered) >= enough, "the new workers do not answer")


def test_two_workers_killed_at_once_are_replaced(served, png_files, predictions):
    kill(served, *served.workers())
    with clients(served, png_files, predictions) as answered:
        wait_until(lambda: len(answered) >= 50, "the new workers do not answer")


def test_requests_of_a_killed_worker_are_no_longer_in_flight(served):
    head = (
        "POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        "Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    )
    begun = [socket.create_connection(("127.0.0.1", port(served)), TIMEOUT) for _ in range(30)]
    try:
        for client in begun:
            client.sendall(head.encode())
            assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        # The request for the metrics counts, too. Each worker writes its number once a second.
        wait_until(lambda: in_flight(served) == 31, "not 30 requests in flight")
        for worker in served.workers():
            kill(served, worker)
            broken = [client for client in begun if is_closed(client)]
            wait_until(lambda: in_flight(served) + len(broken) == 31)  # noqa: B023  # called at once
        assert len(broken) == 30
    finally:
        for client in begun:
            client.close()


def is_closed(client):
    client.settimeout(0)
    try:
        return not client.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_a_replacement_that_dies_at_once_ends_the_service(served, tmp_path):
    # Otherwise the service would replace its workers forever, and its supervisor would not notice.
    first, second = served.workers()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: served.workers() - {first, second}, "no new worker starts")
    (new,) = served.workers() - {first, second}
    os.kill(new, signal.SIGKILL)
    assert served.process.wait(TIMEOUT) == 1
    assert not listens(served)
    assert list(tmp_path.iterdir()) == []
    problems = [line for line in served.stop().splitlines() if line.startswith("service: ")]
    assert problems == [
        "service: a worker ended with signal 9; starting another",
        f"service: a replacement worker died within {MIN_LIFETIME} seconds; stopping",
    ]


def test_workers_end_when_the_main_process_is_killed(served, tmp_path):
    served.process.kill()
    served.process.wait(TIMEOUT)
    wait_until(lambda: not listens(served), "a worker still runs")
    assert list(tmp_path.iterdir()) == []


SLOW_START = """
import time
from service import __main__, served_model

def wait(self, *arguments, init=served_model.Model.__init__):
    init(self, *arguments)
    print("Not running yet", flush=True)
    time.sleep(2)

served_model.Model.__init__ = wait
__main__.main()
"""


def test_a_worker_that_is_still_loading_ends_after_a_signal(artifact):
    with subprocess.Popen(
        [
            *(sys.executable, "-c", SLOW_START, f"--port={free_port()}", "--workers=1"),
            f"--lock={artifact.path / 'dvc.lock'}",
        ],
        cwd=PROJECT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Serving data/model ")
        assert process.stdout.readline() == "Not running yet\n"
        process.terminate()
        # The service ends before it would kill a worker.
        assert process.wait(timeout=STOP_TIMEOUT - 5) == 0
