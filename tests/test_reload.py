"""The service switches to another artifact while it answers requests, and refuses a bad one."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import pytest
import requests
from dvc.repo import Repo

from service import reload
from service.recognition import pin
from service.reload import ModelStatus
from tests.conftest import (
    Repository,
    log_of,
    manifest_sha256,
    pin_artifact,
    pin_by_md5_only,
    pinned_version,
    predictions_of,
    reproduce,
    running_server,
    wait_until,
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
    labels: dict[str, list[int]]  # predicted for the test images, by version
    sha256s: dict[str, str]  # the SHA-256 of each manifest, by version
    old: str
    new: str

    def check_out(self, commit: str) -> None:
        """Check out a commit and its artifact."""
        self.repository.run("git", "checkout", "--quiet", "--force", commit)
        with Repo(str(self.repository.path)) as opened:
            opened.checkout(force=True)


@pytest.fixture(scope="module")
def both_branches(pytestconfig, repository, tmp_path_factory):
    """A repository with the CNN of the slice on the branch main, and an MLP on the branch mlp."""
    clone = repository.clone(tmp_path_factory.mktemp("two") / "repository")
    old, old_labels = pinned_version(clone.path), predictions_of(clone).tolist()
    old_sha256 = manifest_sha256(clone.path)
    clone.run("git", "checkout", "--quiet", "-b", "mlp")
    clone.edit_params(lambda params: params["network"].update(kind="mlp"))
    clone.edit_params(lambda params: params["train"].update(epochs=1))
    clone.edit_params(lambda params: params["export"]["min_accuracy"].update(mlp=0.1))
    reproduce(clone, pytestconfig.cache.mkdir("mlp"), "export")
    new = pinned_version(clone.path)
    labels = {old: old_labels, new: predictions_of(clone).tolist()}
    sha256s = {old: old_sha256, new: manifest_sha256(clone.path)}
    return Two(clone, labels, sha256s, old, new)


@pytest.fixture
def two(both_branches):
    both_branches.check_out("main")
    return both_branches


def version(server):
    answer = requests.get(f"{server.url}/healthz", timeout=TIMEOUT)
    assert answer.status_code == 200
    assert answer.json()["version"] == answer.headers["X-Model-Version"]
    return answer.json()["version"]


def sha256(server):
    return requests.get(f"{server.url}/healthz", timeout=TIMEOUT).json()["sha256"]


def wait_for(server, expected):
    """Wait until ten requests in turn, each on a new connection, get the expected version."""
    wait_until(
        lambda: {version(server) for _ in range(10)} == {expected},
        f"the workers do not serve {expected}",
    )


def states(server):
    status = requests.get(f"{server.url}/v1/models/mnist", timeout=TIMEOUT).json()
    return {
        int(each["version"]): (each["state"], each["status"]["error_code"])
        for each in status["model_version_status"]
    }


def wait_for_states(server, expected):
    """Wait, because each worker learns the states by itself, and any of them may answer."""
    wait_until(lambda: states(server) == expected, f"no worker shows the states {expected}")


def refused(server):
    text = requests.get(f"{server.url}/metrics", timeout=TIMEOUT).text
    return "\nmnist_model_refused 1.0\n" in text


def number(hash_):
    return int(hash_[:12], 16)


def test_no_request_fails_while_the_service_switches_to_another_artifact(two, png_files):
    stop = Event()

    def send(client):
        """Send pictures until `stop`. Return the version of each response, and if it is right."""
        results: list[tuple[str, bool]] = []
        with requests.Session() as session:
            while not stop.is_set():
                place = (len(results) * 4 + client) % len(png_files)
                answer = session.post(
                    f"{server.url}/recognize",
                    files={"image": png_files[place].read_bytes()},
                    timeout=TIMEOUT,
                )
                served = answer.headers["X-Model-Version"]
                right = answer.status_code == 200 and (
                    answer.json()["labels"] == [two.labels[served][place]]
                )
                results.append((served, right))
        return results

    with (
        running_server(two.repository.path, "--workers=2", "--watch") as server,
        ThreadPoolExecutor(4) as pool,
    ):
        clients = [pool.submit(send, client) for client in range(4)]
        try:
            wait_for(server, two.old)
            two.check_out("mlp")
            wait_for(server, two.new)
            wait_for_states(
                server, {number(two.new): ("AVAILABLE", "OK"), number(two.old): ("END", "OK")}
            )
            two.check_out("main")
            wait_for(server, two.old)
        finally:
            stop.set()
        results = [result for client in clients for result in client.result()]
        output = server.stop()
    assert {served for served, _ in results} == {two.old, two.new}
    assert all(right for _, right in results)
    new = f"{two.new} (SHA-256 {two.sha256s[two.new]})"
    assert f"Serving data/model {new} from now on, instead of {two.old}\n" in output


def test_without_watch_the_service_waits_for_the_signal(two):
    with running_server(two.repository.path, "--workers=1") as server:
        two.check_out("mlp")
        assert version(server) == two.old
        assert "# Model card: MNIST, `cnn`" in model_page(server)
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, two.new)
        assert "# Model card: MNIST, `mlp`" in model_page(server)
        assert f"<code>{two.new}</code>" in model_page(server)
        # A replacement worker serves the new artifact, too.
        os.kill(server.worker(), signal.SIGKILL)
        wait_until(lambda: answers(server), "the service did not replace the worker")
        assert version(server) == two.new


def model_page(server):
    return requests.get(f"{server.url}/model/", timeout=TIMEOUT).text


def answers(server):
    try:
        return requests.get(f"{server.url}/healthz", timeout=TIMEOUT).ok
    except requests.ConnectionError:
        return False


def damage(two):
    """Flip a bit of the pinned artifact."""
    file = two.repository.path / "data/model/saved_model.pb"
    content = bytearray(file.read_bytes())
    content[99] ^= 1
    file.unlink()  # the file may be a link to DVC's cache
    file.write_bytes(content)


def pin_rubbish(two):
    """Pin an artifact that is not a model."""
    file = two.repository.path / "data/model/assets.extra/model.tflite"
    file.unlink()
    file.write_bytes(b"rubbish")
    pin_artifact(two.repository.path)


def break_the_lock(two):
    (two.repository.path / "dvc.lock").write_text("{")


@contextmanager
def paused(server):
    """Pause the service, so that it sees several changes at once even on a slow machine."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (damage, "service: data/model is not the pinned artifact: expected"),
        (pin_rubbish, "service: litert cannot load the pinned artifact"),
        (break_the_lock, "service: dvc.lock is not a readable dvc.lock"),
    ],
)
def test_a_bad_artifact_leaves_the_old_one_in_service(two, break_, reason):
    expected = {number(two.old): ("AVAILABLE", "OK")}
    with running_server(two.repository.path, "--workers=2", "--watch") as server:
        assert not refused(server)
        with paused(server):
            two.check_out("mlp")
            break_(two)
            if break_ is not break_the_lock:
                pinned = pin.read(two.repository.path / "dvc.lock").version
                expected[number(pinned)] = ("END", "FAILED_PRECONDITION")
        wait_until(lambda: all(refused(server) for _ in range(10)), "no metric reports the error")
        assert {version(server) for _ in range(10)} == {two.old}
        wait_for_states(server, expected)

        with paused(server):
            two.check_out("mlp")
        wait_for(server, two.new)
        wait_until(
            lambda: not any(refused(server) for _ in range(10)), "a metric still reports the error"
        )
        output = server.stop()
    (line,) = [line for line in output.splitlines() if reason in line]
    assert line.startswith("service: ")
    assert line.endswith(f"; still serving {two.old}")


@pytest.mark.parametrize("first", ["dvc.lock", "data/model.sha256"])
def test_a_lock_and_a_manifest_that_change_one_after_the_other_are_not_refused_forever(two, first):
    with running_server(two.repository.path, "--workers=1", "--watch") as server:
        two.repository.run("git", "checkout", "--quiet", "mlp", "--", first)
        wait_until(lambda: refused(server), "no metric reports the error")
        assert version(server) == two.old
        with paused(server):
            two.check_out("mlp")
        wait_for(server, two.new)
        wait_until(lambda: not refused(server), "a metric still reports the error")
        output = server.stop()
    (line,) = [line for line in output.splitlines() if line.startswith("service: ")]
    assert "data/model.sha256 is not the pinned manifest: expected" in line


def test_a_lock_that_begins_to_pin_a_manifest_adds_its_sha256(two):
    pin_by_md5_only(two.repository.path)
    options = ("--workers=1", "--watch", "--allow-md5-only")
    with running_server(two.repository.path, *options) as server:
        assert sha256(server) == ""
        two.check_out("main")
        wait_until(lambda: sha256(server) == two.sha256s[two.old], "the SHA-256 does not appear")
        assert states(server) == {number(two.old): ("AVAILABLE", "OK")}
        # A replacement worker loads the artifact again.
        os.kill(server.worker(), signal.SIGKILL)
        wait_until(lambda: answers(server), "the service did not replace the worker")
        assert sha256(server) == two.sha256s[two.old]
        output = server.stop()
    assert output.startswith(f"Serving data/model {two.old} (pinned by MD5 only) at http://")
    named = f"{two.old} (SHA-256 {two.sha256s[two.old]})"
    assert f"Serving data/model {named} from now on, instead of {two.old}\n" in output


def test_a_lock_that_ceases_to_pin_a_manifest_is_refused_without_the_option(two):
    with running_server(two.repository.path, "--workers=1") as server:
        pin_by_md5_only(two.repository.path)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: refused(server), "no metric reports the error")
        assert sha256(server) == two.sha256s[two.old]
        output = server.stop()
    assert "service: dvc.lock pins data/model by MD5 only, for which " in output


def test_the_signal_has_no_effect_without_a_new_artifact(two):
    with running_server(two.repository.path, "--workers=1") as server:
        server.process.send_signal(signal.SIGHUP)
        report = f"Serving data/model {two.old} as before"
        wait_until(lambda: report in log_of(server.output), "the service does not report the check")
        assert states(server) == {number(two.old): ("AVAILABLE", "OK")}


def test_published_states_replace_earlier_ones(tmp_path):
    reload.publish(tmp_path, [OLD])
    reload.publish(tmp_path, [OLD, NEW])
    assert reload.published(tmp_path) == [OLD, NEW]
    assert [file.name for file in tmp_path.iterdir()] == [reload.FILE]


def test_the_available_artifact_is_served():
    assert reload.available([OLD, NEW]) == NEW


def test_a_failed_write_keeps_the_earlier_states(tmp_path):
    reload.publish(tmp_path, [NEW])
    (tmp_path / f"{reload.FILE}.new").mkdir()
    with pytest.raises(IsADirectoryError):
        reload.publish(tmp_path, [OLD])
    assert reload.published(tmp_path) == [NEW]
