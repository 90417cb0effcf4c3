"""Run `make audit` against a local source of advisories: it must never pass silently."""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests import audit
from tests.conftest import ENVIRONMENT, PROJECT, answering

HASH = f"--hash=sha256:{'0' * 64}"
FINDING = {
    "id": "PYSEC-0000-1",
    "affected": [
        {
            "package": {"name": "careless", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


class Source(HTTPServer):
    """An OSV service that knows one vulnerable package."""

    status = 200


class Answer(BaseHTTPRequestHandler):
    server: Source

    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"vulns": [FINDING]} if query["package"]["name"] == "careless" else {}
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def source():
    server = Source(("127.0.0.1", 0), Answer)
    with answering(server):
        yield server


def run_audit(folder, port, *packages):
    (folder / "requirements.txt").write_text("\n".join(f"{name} {HASH}" for name in packages))
    url = f"http://127.0.0.1:{port}/v1/query"
    return subprocess.run(
        [sys.executable, "-m", "tests.audit", "--vulnerability-service=osv", f"--osv-url={url}"],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(PROJECT), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_known_vulnerability_fails_and_is_reported(source, tmp_path):
    done = run_audit(tmp_path, source.server_port, "careful==2.0", "careless==1.0")
    assert done.returncode == audit.VULNERABLE
    assert done.stdout == "audit: careless 1.0: PYSEC-0000-1, fixed in 1.1\n"


def test_packages_without_known_vulnerabilities_pass(source, tmp_path):
    done = run_audit(tmp_path, source.server_port, "careful==2.0", "cautious==3.0")
    assert done.returncode == 0
    assert done.stdout == "audit: no known vulnerabilities in 2 packages\n"


def test_a_source_that_fails_does_not_pass(source, tmp_path):
    source.status = 503
    done = run_audit(tmp_path, source.server_port, "careful==2.0")
    assert done.returncode == audit.UNCHECKED
    assert done.stdout.startswith("audit: NOT CHECKED: ")


def test_an_unreachable_source_does_not_pass(source, tmp_path):
    source.server_close()
    done = run_audit(tmp_path, source.server_port, "careful==2.0")
    assert done.returncode == audit.UNCHECKED
    assert done.stdout.startswith("audit: NOT CHECKED: ")


def test_a_package_that_the_source_does_not_know_does_not_pass():
    packages = [{"name": "careful", "version": "2.0", "vulns": []}]
    unknown = {"name": "private", "skip_reason": "private is not found"}
    lines, status = audit.report([*packages, unknown])
    assert status == audit.UNCHECKED
    assert lines == ["audit: NOT CHECKED: 1 of 2 packages; first reason: private is not found"]
