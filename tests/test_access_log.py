"""The access log: one line per request, with a request id."""

import json
import re
import sys

import pytest
import requests

from service import access_log
from tests.conftest import running_server

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def lines(server):
    """Stop the service, and return the lines of its output after the first."""
    return server.stop().splitlines()[1:]


def test_text_lines(repository, png_files, version):
    with running_server(repository.path, "--workers=1") as server:
        parts = [("image", (file.name, file.read_bytes())) for file in png_files[:3]]
        url = f"{server.url}/recognize?probabilities=true"
        requests.post(url, files=parts, headers={"X-Request-Id": "order-17"}, timeout=30)
        headers = {"traceparent": TRACE}
        requests.get(f"{server.url}/no%0Athing", headers=headers, timeout=30)
        *_, recognized, not_found = lines(server)
    time = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    assert re.fullmatch(
        rf"{time} POST /recognize 200 \d+\.\d+ ms images=3 version={version} id=order-17",
        recognized,
    )
    assert re.fullmatch(
        rf"{time} GET '/no\\nthing' 404 \d+\.\d+ ms images=0 version={version} "
        rf"traceparent={TRACE} id=\w{{32}}",
        not_found,
    )


def test_json_lines(repository, png_files, version):
    with running_server(repository.path, "--workers=1", "--log-format=json") as server:
        answer = requests.post(
            f"{server.url}/recognize", files={"image": png_files[0].read_bytes()}, timeout=30
        )
        entry = json.loads(lines(server)[-1])
    assert entry.pop("time").startswith("20")
    assert 0 < entry.pop("milliseconds") < 60_000
    assert entry == {
        "method": "POST",
        "path": "/recognize",
        "status": 200,
        "images": 1,
        "version": version,
        "request_id": answer.headers["X-Request-Id"],
    }


@pytest.mark.parametrize("request_id", [None, "", "a" * 129, "\u00e9", "a\tb"])
def test_a_request_without_a_usable_id_gets_one(client, request_id):
    headers = {} if request_id is None else {"X-Request-Id": request_id.encode("utf-8")}
    answer = client.get("/healthz", headers=headers)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_an_error_carries_the_id_of_its_client(client):
    answer = client.get("/none", headers={"X-Request-Id": "a b/c"})
    assert answer.headers["X-Request-Id"] == "a b/c"


CLOSED_LOG = """
import os, service
application = service.create_app()
os.close(1)
reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(reader)  # from now on, a write fails with EPIPE
answer = application.test_client().get("/healthz")
os.write(2, str(answer.status_code).encode())
"""


def test_a_closed_log_fails_no_request(repository):
    assert repository.run(sys.executable, "-c", CLOSED_LOG).endswith("200")


@pytest.mark.parametrize(
    ("header", "logged"),
    [
        (TRACE, TRACE),
        (f"01{TRACE[2:]}-a later field", f"01{TRACE[2:]}"),
        (f"{TRACE}-a later field", None),
        (f"ff{TRACE[2:]}", None),
        (TRACE.upper(), None),
        (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), None),
        (TRACE.replace("00f067aa0ba902b7", "0" * 16), None),
        (TRACE[:-1], None),
        (f"{TRACE},{TRACE}", None),
        (f"{TRACE}\n", None),
        ("", None),
    ],
)
def test_only_a_valid_traceparent_is_logged(capfd, header, logged):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_TRACEPARENT": header}
    access_log.begin(environ)
    access_log.write("json", environ, "1" * 32, 200, 0.001)
    assert json.loads(capfd.readouterr().out).get("traceparent") == logged
