"""`python -m service`: its options, its output, its exit status, and how it ends."""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from hashlib import md5, sha256

import pytest
import requests

from service.__main__ import _place, _temporary_folder, _tls
from service.supervisor import STOP_TIMEOUT
from tests import collision
from tests.conftest import (
    ENVIRONMENT,
    PROJECT,
    is_open,
    manifest_sha256,
    pin_artifact,
    pin_by_md5_only,
    pinned_version,
    running_server,
    start,
    wait_until,
)

ARTIFACT = "data/model"
MANIFEST = "data/model.sha256"


@pytest.fixture
def folder(repository, tmp_path):
    """A folder with the program, the lock file and the artifact, which a service needs."""
    shutil.copytree(repository.path / "service", tmp_path / "service")
    shutil.copytree(repository.path / ARTIFACT, tmp_path / ARTIFACT)
    shutil.copy(repository.path / MANIFEST, tmp_path / MANIFEST)
    shutil.copy(repository.path / "dvc.lock", tmp_path)
    return tmp_path


def change_a_byte(folder):
    file = folder / ARTIFACT / "saved_model.pb"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def dvc_2(folder):
    lock = folder / "dvc.lock"
    lock.write_text(lock.read_text().replace("      hash: md5\n", ""))


DAMAGE = {
    "a changed byte": (change_a_byte, "data/model is not the pinned artifact: expected"),
    "a missing file": (
        lambda folder: (folder / ARTIFACT / "variables/variables.index").unlink(),
        "(5 files); run `dvc repro`",
    ),
    "an extra file": (
        lambda folder: (folder / ARTIFACT / "extra").write_text("x"),
        "(7 files); run `dvc repro`",
    ),
    "no artifact": (
        lambda folder: shutil.rmtree(folder / ARTIFACT),
        "data/model cannot be copied (No such file or directory), expected the artifact",
    ),
    "no manifest": (
        lambda folder: (folder / MANIFEST).unlink(),
        "data/model.sha256 cannot be read (No such file or directory); restore it with",
    ),
    "another manifest": (
        lambda folder: (folder / MANIFEST).write_text("x"),
        "data/model.sha256 is not the pinned manifest: expected",
    ),
    "only MD5": (pin_by_md5_only, "or accept this with --allow-md5-only"),
    "no lock": (lambda folder: (folder / "dvc.lock").unlink(), "dvc.lock does not exist"),
    "a broken lock": (
        lambda folder: (folder / "dvc.lock").write_text("{"),
        "dvc.lock is not a readable dvc.lock",
    ),
    "DVC 2's lock": (dvc_2, "in DVC 2's format"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_an_artifact_that_is_not_the_pinned_one_is_refused_in_one_sentence(folder, damage, reason):
    damage(folder)
    done = start(folder)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("service: ")
    assert reason in done.stderr
    assert "dvc repro" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def colliding(artifact, tmp_path):
    """A folder with a pinned artifact, and a function that swaps a file for one with its MD5."""
    shutil.copytree(artifact.path, tmp_path, dirs_exist_ok=True)
    file = tmp_path / ARTIFACT / "assets.extra/collision"
    file.write_bytes(collision.ONE)
    pin_artifact(tmp_path)
    return tmp_path, lambda: file.write_bytes(collision.OTHER)


@pytest.mark.server
def test_an_artifact_with_the_md5_of_the_pinned_one_is_refused(colliding):
    assert md5(collision.ONE).digest() == md5(collision.OTHER).digest()
    assert sha256(collision.ONE).digest() != sha256(collision.OTHER).digest()
    folder, swap = colliding
    option = f"--lock={folder / 'dvc.lock'}"
    with running_server(PROJECT, "--workers=1", option) as server:
        served = requests.get(f"{server.url}/healthz", timeout=30).json()
        output = server.stop()
    hashes = {"version": pinned_version(folder), "sha256": manifest_sha256(folder)}
    assert served == {"status": "ok", **hashes}
    assert output.startswith(
        f"Serving data/model {hashes['version']} (SHA-256 {hashes['sha256']}) at http://"
    )

    swap()
    for options in ((option,), (option, "--allow-md5-only")):
        done = start(PROJECT, *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            f"expected {hashes['version']}, found the same MD5, with another SHA-256 of "
            "assets.extra/collision (5 files)" in done.stderr
        )

    pin_by_md5_only(folder)  # MD5 alone accepts the other artifact
    with running_server(PROJECT, "--workers=1", option, "--allow-md5-only") as server:
        served = requests.get(f"{server.url}/healthz", timeout=30).json()
        figures = requests.get(f"{server.url}/metrics", timeout=30).text
        output = server.stop()
    assert served == {"status": "ok", "version": hashes["version"], "sha256": ""}
    assert f'mnist_model_info{{sha256="",version="{hashes["version"]}"}} 1.0\n' in figures
    assert output.startswith(
        f"Serving data/model {hashes['version']} (pinned by MD5 only) at http://"
    )
    assert output.count("MD5") == 1


def test_the_service_needs_no_pipeline(folder):
    with running_server(folder, "--workers=1") as server:
        assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200


def test_an_option_names_another_lock_file(folder):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    shutil.move(folder / "dvc.lock", elsewhere)
    shutil.move(folder / "data", elsewhere)
    with running_server(folder, "--workers=1", "--lock=elsewhere/dvc.lock") as server:
        assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200


@pytest.mark.server
def test_a_check_loads_the_artifact_and_does_not_listen(artifact, tmp_path):
    shutil.copytree(artifact.path, tmp_path, dirs_exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = ("--check", f"--lock={tmp_path}/dvc.lock", f"--port={listener.getsockname()[1]}")
        done = start(PROJECT, *options)
    assert (done.returncode, done.stderr) == (0, "")
    pinned = f"{artifact.version} (SHA-256 {artifact.sha256})"
    assert done.stdout == f"litert can load data/model {pinned}\n"

    (tmp_path / ARTIFACT / "assets.extra/model.tflite").write_bytes(b"x")
    assert "data/model is not the pinned artifact" in start(PROJECT, *options).stderr
    pin_artifact(tmp_path)
    done = start(PROJECT, *options)
    assert done.returncode == 1
    assert f"service: litert cannot load the pinned artifact {pinned_version(tmp_path)}" in (
        done.stderr
    )


def test_a_port_in_use_is_refused(folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = start(folder, f"--port={port}")
    assert done.returncode == 1
    assert done.stderr == (
        f"service: cannot listen on 127.0.0.1:{port} (Address already in use); "
        "choose another --host or --port\n"
    )


def test_two_services_do_not_share_a_port(server, folder):
    port = server.url.rpartition(":")[2]
    assert "Address already in use" in start(folder, f"--port={port}").stderr


@pytest.mark.server
def test_help_shows_options_and_defaults():
    output = start(PROJECT, "--help").stdout
    for word in (
        "--host",
        "127.0.0.1",
        "--port",
        "8080",
        "--workers",
        "--queue",
        "--engine",
        "dvc.lock",
    ):
        assert word in output


def test_the_output_has_only_the_first_line_and_the_access_log(folder):
    # With six workers, some are still loading when the signal arrives.
    with running_server(folder, "--workers=6") as server:
        requests.post(f"{server.url}/recognize", files={"image": b"x"}, timeout=30)
        # No request is in flight, so the service ends before it would kill a worker.
        output = server.stop(timeout=STOP_TIMEOUT - 5)
    assert server.process.returncode == 0
    first, *log = output.splitlines()
    assert first.startswith("Serving data/model ")
    assert all(" GET /healthz " in line for line in log[:-1])
    assert " POST /recognize 400 " in log[-1]


def test_a_stopping_service_answers_the_request_in_flight(folder, repository, testing):
    body = (repository.path / f"data/png/testing/{testing[1][0]}/0.png").read_bytes()
    head = (
        "POST /recognize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
        f"Content-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with running_server(folder, "--workers=1") as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(head.encode())
            # The service sends this when it starts to read the body: the request is in flight.
            assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not is_open(port), "new connections are still accepted")
            client.sendall(body)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert server.process.wait(timeout=60) == 0
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'{"filename":null,"labels":[' in answer


@pytest.mark.server
def test_an_artifact_without_a_lock_file_is_served_by_its_sha256(artifact, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(artifact.path / ARTIFACT, alone)
    options = f"--artifact={alone}", f"--pin={artifact.sha256}"
    with running_server(PROJECT, "--workers=1", *options) as server:
        served = requests.get(f"{server.url}/healthz", timeout=30).json()
        server.process.send_signal(signal.SIGHUP)
        output = server.stop()
    assert served == {"status": "ok", "version": artifact.version, "sha256": artifact.sha256}
    assert output.startswith(f"Serving {alone} {artifact.version} (SHA-256 {artifact.sha256}) at ")

    (alone / "saved_model.pb").write_bytes(b"another")
    done = start(PROJECT, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"service: {alone} is not the pinned artifact: expected the SHA-256 {artifact.sha256}, "
    )
    assert done.stderr.endswith("; copy the artifact again, or correct --pin\n")


@pytest.mark.parametrize(
    ("argument", "place"),
    [
        ("--port=9000", "127.0.0.1:9000"),
        ("--host=::1", "[::1]:8080"),
        ("--uds=mnist.sock", "mnist.sock"),
    ],
)
def test_the_service_names_the_place_where_it_listens(options, argument, place):
    assert _place(options(argument)) == place


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("no key", "no certificate chain with its unencrypted key in PEM"),
    ],
)
def test_an_unusable_certificate_is_refused_in_one_sentence(tmp_path, caplog, content, reason):
    files = tmp_path / "chain.pem", tmp_path / "key.pem"
    for file in files if content else ():
        file.write_text(content)
    with pytest.raises(SystemExit) as end:
        _tls(*files)
    assert end.value.code == 1
    assert caplog.messages == [
        f"cannot speak TLS with {files[0]} and {files[1]} ({reason}); name other files"
    ]


def test_a_missing_folder_for_temporary_files_is_reported_in_one_sentence(monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(SystemExit) as end:
        _temporary_folder()
    assert end.value.code == 1
    assert caplog.messages == [
        "cannot make a temporary folder (No such file or directory); set TMPDIR to a folder that "
        "this user can write to, or mount such a folder at /tmp"
    ]


ANOTHER_SERVER = """
from wsgiref.simple_server import make_server
import service

with make_server("127.0.0.1", 0, service.create_app()) as server:
    print(server.server_port, flush=True)
    server.handle_request()
"""


def test_another_wsgi_server_can_serve_the_application(folder, repository, testing):
    file = repository.path / f"data/png/testing/{testing[1][0]}/0.png"
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER_SERVER],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/recognize"
        answer = requests.post(url, files={"image": file.read_bytes()}, timeout=30)
    assert answer.status_code == 200
    assert len(answer.json()["labels"]) == 1
