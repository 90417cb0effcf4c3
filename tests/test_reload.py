"""Another artifact comes into service while requests go on; a bad one does not."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import pytest
import requests

from service import reload
from service.recognition import pin
from service.reload import ModelStatus
from tests.conftest import (
    Repository,
    pinned_version,
    predictions_of,
    reproduce,
    running_server,
)

TIMEOUT = 60  # seconds
OLD, NEW = (
    ModelStatus("1" * 32, "END", "it is damaged"),
    ModelStatus("2" * 32, "AVAILABLE", folder="/there"),
)


@dataclass(frozen=True)
class Two:
    """A repository with two commits, each with its own artifact."""

    repository: Repository
    labels: dict[str, list[int]]  # of the first test images, by version
    old: str
    new: str

    def check_out(self, commit: str) -> None:
        self.repository.run("git", "checkout", "--quiet", "--force", commit)
        self.repository.run("dvc", "checkout", "--force", "--quiet")


@pytest.fixture(scope="module")
def made(pytestconfig, repository, tmp_path_factory):
    """The artifact of the slice on the branch main, that of an mlp on the branch mlp."""
    clone = repository.clone(tmp_path_factory.mktemp("two") / "repository")
    old, predicted = pinned_version(clone.path), predictions_of(clone).tolist()
    clone.run("git", "checkout", "--quiet", "-b", "mlp")
    clone.edit_params(lambda params: params["network"].update(kind="mlp"))
    clone.edit_params(lambda params: params["train"].update(epochs=1))
    clone.edit_params(lambda params: params["export"]["min_accuracy"].update(mlp=0.1))
    reproduce(clone, pytestconfig.cache.mkdir("mlp"), "export")
    new = pinned_version(clone.path)
    return Two(clone, {old: predicted, new: predictions_of(clone).tolist()}, old, new)


@pytest.fixture
def two(made):
    made.check_out("main")
    return made


def version(server):
    answer = requests.get(f"{server.url}/healthz", timeout=TIMEOUT)
    assert answer.status_code == 200
    assert answer.json()["version"] == answer.headers["X-Model-Version"]
    return answer.json()["version"]


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_for(server, expected):
    """Until both workers serve that version: ten answers in turn, each on its own connection."""
    wait_until(
        lambda: {version(server) for _ in range(10)} == {expected}, f"{expected} is not served"
    )


def states(server):
    status = requests.get(f"{server.url}/v1/models/mnist", timeout=TIMEOUT).json()
    return {
        int(each["version"]): (each["state"], each["status"]["error_code"])
        for each in status["model_version_status"]
    }


def refused(server):
    text = requests.get(f"{server.url}/metrics", timeout=TIMEOUT).text
    return "\nmnist_model_refused 1.0\n" in text


def number(version):
    return int(version[:12], 16)


def test_no_request_fails_while_another_artifact_comes_into_service(two, png_files):
    enough = Event()

    def send(client):
        """Pictures, one after the other, until it is enough: version and right or wrong of each."""
        told: list[tuple[str, bool]] = []
        with requests.Session() as session:
            while not enough.is_set():
                place = (len(told) * 4 + client) % len(png_files)
                answer = session.post(
                    f"{server.url}/recognize",
                    files={"image": png_files[place].read_bytes()},
                    timeout=TIMEOUT,
                )
                by = answer.headers["X-Model-Version"]
                right = answer.status_code == 200 and (
                    answer.json()["labels"] == [two.labels[by][place]]
                )
                told.append((by, right))
        return told

    with (
        running_server(two.repository.path, "--workers=2", "--watch") as server,
        ThreadPoolExecutor(4) as pool,
    ):
        clients = [pool.submit(send, client) for client in range(4)]
        try:
            wait_for(server, two.old)
            two.check_out("mlp")
            wait_for(server, two.new)
            assert states(server) == {
                number(two.new): ("AVAILABLE", "OK"),
                number(two.old): ("END", "OK"),
            }
            two.check_out("main")
            wait_for(server, two.old)
        finally:
            enough.set()
        told = [answer for client in clients for answer in client.result()]
        said = server.stop()
    assert {by for by, _ in told} == {two.old, two.new}
    assert all(right for _, right in told)
    assert f"Serving data/model {two.new} from now on, instead of {two.old}\n" in said


def test_without_watch_it_waits_for_the_signal(two):
    with running_server(two.repository.path, "--workers=1") as server:
        two.check_out("mlp")
        assert version(server) == two.old
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, two.new)
        # A worker that replaces another serves what the others do.
        os.kill(server.worker(), signal.SIGKILL)
        wait_until(lambda: answers(server), "the worker is not replaced")
        assert version(server) == two.new


def answers(server):
    try:
        return requests.get(f"{server.url}/healthz", timeout=TIMEOUT).ok
    except requests.ConnectionError:
        return False


def damage(two):
    """A flipped byte in what is pinned."""
    file = two.repository.path / "data/model/saved_model.pb"
    content = bytearray(file.read_bytes())
    content[99] ^= 1
    file.unlink()  # it may be a link into DVC's cache
    file.write_bytes(content)


def pin_rubbish(two):
    """An artifact that is pinned, and no model."""
    folder = two.repository.path / "data/model"
    file = folder / "assets.extra/model.tflite"
    file.unlink()
    file.write_bytes(b"rubbish")
    files = {
        file.relative_to(folder).as_posix(): hashlib.md5(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }
    lock = two.repository.path / "dvc.lock"
    lock.write_text(lock.read_text().replace(two.new, pin.directory_hash(files)))


def break_the_lock(two):
    (two.repository.path / "dvc.lock").write_text("{")


@contextmanager
def paused(server):
    """Let the service see only the outcome of several changes, however slow the machine is."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (damage, "service: data/model is not the pinned artifact: expected"),
        (pin_rubbish, "cannot be loaded by litert"),
        (break_the_lock, "service: dvc.lock is not a readable dvc.lock"),
    ],
)
def test_a_bad_artifact_leaves_the_old_one_in_service(two, break_, reason):
    with running_server(two.repository.path, "--workers=2", "--watch") as server:
        assert not refused(server)
        with paused(server):
            two.check_out("mlp")
            break_(two)
        wait_until(lambda: all(refused(server) for _ in range(10)), "no metric tells")
        assert {version(server) for _ in range(10)} == {two.old}
        now = states(server)
        assert now.pop(number(two.old)) == ("AVAILABLE", "OK")
        assert all(state == ("END", "FAILED_PRECONDITION") for state in now.values())

        with paused(server):
            two.check_out("mlp")
        wait_for(server, two.new)
        wait_until(lambda: not any(refused(server) for _ in range(10)), "the metric stays")
        said = server.stop()
    (line,) = [line for line in said.splitlines() if reason in line]
    assert line.startswith("service: ")
    assert line.endswith(f"; still serving {two.old}")


def test_the_signal_is_harmless_while_nothing_has_changed(two):
    with running_server(two.repository.path, "--workers=1") as server:
        server.process.send_signal(signal.SIGHUP)

        def told():
            server.output.seek(0)
            return f"Serving data/model {two.old} as before" in server.output.read()

        wait_until(told, "nothing is said")
        assert states(server) == {number(two.old): ("AVAILABLE", "OK")}


def test_what_is_written_is_read_and_replaces_what_was_there(tmp_path):
    reload.publish(tmp_path, [OLD])
    reload.publish(tmp_path, [OLD, NEW])
    assert reload.published(tmp_path) == [OLD, NEW]
    assert [file.name for file in tmp_path.iterdir()] == [reload.FILE]


def test_the_available_one_is_served():
    assert reload.available([OLD, NEW]) == NEW


def test_a_failed_write_leaves_what_was_there(tmp_path):
    reload.publish(tmp_path, [NEW])
    (tmp_path / f"{reload.FILE}.new").mkdir()
    with pytest.raises(IsADirectoryError):
        reload.publish(tmp_path, [OLD])
    assert reload.published(tmp_path) == [NEW]
