"""One line for each request, and the id by which to find it."""

import json
import re
import sys

import pytest
import requests

from tests.conftest import running_server


def lines(server):
    """Stop the service; return what it wrote after its first line."""
    return server.stop().splitlines()[1:]


def test_a_line_of_text(repository, png_files):
    with running_server(repository.path, "--workers=1") as server:
        parts = [("image", (file.name, file.read_bytes())) for file in png_files[:3]]
        url = f"{server.url}/recognize?probabilities=true"
        requests.post(url, files=parts, headers={"X-Request-Id": "order-17"}, timeout=30)
        requests.get(f"{server.url}/no%0Athing", timeout=30)
        *_, recognized, missed = lines(server)
    time = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    assert re.fullmatch(rf"{time} POST /recognize 200 \d+\.\d+ ms images=3 id=order-17", recognized)
    assert re.fullmatch(rf"{time} GET '/no\\nthing' 404 \d+\.\d+ ms images=0 id=\w{{32}}", missed)


def test_a_line_of_json(repository, png_files, version):
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
        "request_id": answer.headers["X-Request-Id"],
    }


@pytest.mark.parametrize("given", [None, "", "a" * 129, "\u00e9", "a\tb"])
def test_an_id_is_made_where_none_fits(client, given):
    headers = {} if given is None else {"X-Request-Id": given.encode("utf-8")}
    answer = client.get("/healthz", headers=headers)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_a_client_keeps_its_id_on_errors_too(client):
    answer = client.get("/none", headers={"X-Request-Id": "a b/c"})
    assert answer.headers["X-Request-Id"] == "a b/c"


CLOSED_LOG = """
import os, service
application = service.create_app()
os.close(1)
reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(reader)  # from now on a write fails with EPIPE
answer = application.test_client().get("/healthz")
os.write(2, str(answer.status_code).encode())
"""


def test_a_log_that_nobody_reads_stops_nobody(repository):
    assert repository.run(sys.executable, "-c", CLOSED_LOG).endswith("200")
