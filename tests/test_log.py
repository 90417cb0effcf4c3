"""The log of the service: with --log-format json, each line is an object."""

import json
import signal
import subprocess
import sys

import pytest
import requests

from tests.conftest import ENVIRONMENT, PROJECT, free_port, start

# Two requests fail with a traceback: one within Flask, and one outside it.
BROKEN = """
from service import __main__, access_log
from service.api import recognize

def fail(*_):
    raise ValueError("made to fail")

recognize.json_response = fail
begin = access_log.begin
access_log.begin = lambda environ: fail() if environ["PATH_INFO"] == "/fail" else begin(environ)
__main__.main()
"""


def entries(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.server
def test_each_line_of_a_service_is_json(artifact, png_files):
    port = free_port()
    options = f"--port={port}", "--workers=1", f"--lock={artifact.path}/dvc.lock"
    with subprocess.Popen(
        [sys.executable, "-c", BROKEN, *options, "--log-format=json"],
        cwd=PROJECT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            started = json.loads(process.stdout.readline())
            url = f"http://127.0.0.1:{port}"
            body = {"data": png_files[0].read_bytes(), "headers": {"Content-Type": "image/jpeg"}}
            statuses = [
                requests.post(
                    f"{url}/recognize?probabilities=true", **body, timeout=60
                ).status_code,
                requests.get(f"{url}/fail", timeout=60).status_code,
            ]
            process.send_signal(signal.SIGHUP)
            lines = [json.loads(process.stdout.readline()) for _ in range(4)]
        finally:
            process.terminate()
        lines += entries(process.stdout.read())
    assert statuses == [500, 500]
    assert started["level"] == "info"
    assert started["message"].startswith(f"Serving data/model {artifact.version} (SHA-256 ")
    failed = [line for line in lines if line.get("level") == "error"]
    assert len(failed) == 2
    for line in failed:
        assert line["traceback"].startswith("Traceback (most recent call last):\n")
        assert line["traceback"].endswith("ValueError: made to fail")
    [request] = [line for line in lines if "request_id" in line]
    assert (request["status"], request["version"]) == (500, artifact.version)
    assert any(" as before: " in line.get("message", "") for line in lines)


@pytest.mark.server
def test_a_refusal_is_one_line_of_json(tmp_path):
    done = start(PROJECT, f"--lock={tmp_path}/dvc.lock", "--log-format=json")
    assert (done.returncode, done.stdout) == (1, "")
    [entry] = entries(done.stderr)
    assert entry["level"] == "error"
    assert entry["message"].startswith(f"{tmp_path}/dvc.lock does not exist")


UNCAUGHT = """
from threading import Thread
from service import log, supervisor

def fail():
    raise ValueError("made to fail")

log.configure("json")
child = supervisor.start(fail)
child.join()
assert child.exitcode == 1
thread = Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_an_uncaught_exception_is_one_line_of_json():
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    lines = entries(done.stderr)
    assert [line["level"] for line in lines] == ["error", "critical", "critical"]
    assert all(line["traceback"].endswith("ValueError: made to fail") for line in lines)
