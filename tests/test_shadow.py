"""A new artifact answers copies of live images before it takes over, or is refused."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import requests
from ai_edge_litert.interpreter import Interpreter
from prometheus_client.parser import text_string_to_metric_families

from service.recognition.engines import FLATBUFFER
from service.shadow import LOWEST, Bounds, Comparison, Copies
from tests.conftest import (
    ENVIRONMENT,
    PROJECT,
    log_of,
    pin_artifact,
    pinned_version,
    running_server,
    wait_until,
)
from tests.test_reload import refused, version

TIMEOUT = 300  # seconds; a trial has the lowest priority
IMAGES = 100
PAUSE = 0.01  # seconds between two requests of a client, so that the trial finds idle time
WEIGHTS = (10, 1, 1, 32)  # the shape of the weights of the last layer of `tests.artifact`
BOUNDS = Bounds(100, max_disagreement=0.05, max_confidence_loss=0.02, max_slowdown=1.5)
SAME = Comparison(100, 5, confidence=(0.95, 0.94), seconds=(0.001, 0.0015))


class Folder:
    """A folder with dvc.lock and data/model, whose artifact a test replaces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "dvc.lock"
        self.first = pinned_version(path)
        self._flatbuffer = path / "data/model" / FLATBUFFER
        self._note = path / "data/model/note.txt"
        self._content = self._flatbuffer.read_bytes()

    def pin(self, change: Callable[[np.ndarray], np.ndarray]) -> str:
        """Pin the first artifact with other weights, and return its version."""
        content = self._content
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        for details in interpreter.get_tensor_details():
            if tuple(details["shape"]) == WEIGHTS:
                weights = interpreter.get_tensor(details["index"])
                content = content.replace(weights.tobytes(), change(weights).tobytes())
        assert content != self._content
        self._flatbuffer.write_bytes(content)
        return self._pin()

    def pin_same_network(self) -> str:
        """Pin another artifact with the same network, and return its version."""
        self._flatbuffer.write_bytes(self._content)
        self._note.write_text("another version")
        return self._pin()

    def pin_first(self) -> None:
        self._flatbuffer.write_bytes(self._content)
        self._note.unlink(missing_ok=True)
        assert self._pin() == self.first

    def _pin(self) -> str:
        pin_artifact(self.path)
        return pinned_version(self.path)


@pytest.fixture
def folder(artifact, tmp_path):
    path = tmp_path / "served"
    shutil.copytree(artifact.path, path)
    return Folder(path)


@contextmanager
def serving(folder, *options):
    options = (f"--lock={folder.lock}", "--watch", f"--shadow={IMAGES}", *options)
    with running_server(PROJECT, *options) as server:
        yield server


@contextmanager
def load(server, png_files, predictions) -> Iterator[set[str]]:
    """Send pictures with four clients, check the answers, and yield the versions, which grow."""
    stop, versions = Event(), set()

    def send(client: int) -> None:
        with requests.Session() as session:
            for number in count(client, 4):
                if stop.wait(PAUSE):
                    return
                place = number % len(png_files)
                answer = session.post(
                    f"{server.url}/recognize",
                    files={"image": png_files[place].read_bytes()},
                    timeout=TIMEOUT,
                )
                assert answer.status_code == 200
                assert answer.json()["labels"] == [predictions[place]]
                versions.add(answer.headers["X-Model-Version"])

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(send, number) for number in range(4)]
        try:
            yield versions
        finally:
            stop.set()
        for client in clients:
            client.result()


def logged(server, text: str) -> Callable[[], bool]:
    return lambda: text in log_of(server.output)


def states(server) -> list[str]:
    status = requests.get(f"{server.url}/v1/models/mnist", timeout=TIMEOUT).json()
    return [each["state"] for each in status["model_version_status"]]


def figures(server) -> dict[tuple[str, str], float]:
    """Return the value of each series about the trial, by its name and version."""
    text = requests.get(f"{server.url}/metrics", timeout=TIMEOUT).text
    return {
        (sample.name.removeprefix("mnist_shadow_"), sample.labels["version"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("mnist_shadow_") and not sample.name.endswith("_bucket")
    }


def trials(server) -> list[int]:
    """Return the process ids of the trials of a service."""
    found = []
    for file in Path(f"/proc/{server.process.pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            with suppress(ProcessLookupError):  # it has just ended
                if os.getpriority(os.PRIO_PROCESS, child) == LOWEST:
                    found.append(child)
    return found


def ended(process: int) -> bool:
    """Return whether a process has ended, even if its parent does not know it yet."""
    return not Path(f"/proc/{process}/exe").exists()


@pytest.mark.server
def test_under_load_a_good_artifact_takes_over_and_a_worse_or_broken_one_does_not(
    folder, png_files, artifact
):
    with serving(folder, "--workers=2", "--shadow-max-slowdown=1000") as server:
        with load(server, png_files, artifact.predictions) as versions:
            broken = folder.pin(lambda weights: weights * np.nan)
            wait_until(
                logged(server, f"service: the pinned artifact {broken} exceeds"),
                "it is not refused",
            )
            worse = folder.pin(lambda weights: -weights)
            wait_until(
                logged(server, f"service: the pinned artifact {worse} exceeds"), "it is not refused"
            )
            found = figures(server)
            assert found["images_total", worse] == IMAGES
            assert found["disagreements_total", worse] > IMAGES / 2
            for each in (folder.first, worse):
                assert found["confidence_ratio_count", each] == IMAGES
                assert found["seconds_count", each] == IMAGES
                assert found["seconds_sum", each] > 0
            wait_until(lambda: refused(server), "no metric reports the refusal")
            assert versions == {folder.first}

            good = folder.pin_same_network()
            wait_until(lambda: good in versions, "the good artifact does not take over")
            wait_until(
                lambda: {version(server) for _ in range(10)} == {good}, "a worker serves another"
            )
            found = figures(server)
            assert found["images_total", good] == IMAGES
            assert found["disagreements_total", good] == 0
            assert not any(each == worse for _, each in found)

            folder.pin_first()  # it has been in service, so it needs no trial
            wait_until(
                lambda: {version(server) for _ in range(10)} == {folder.first}, "it does not return"
            )
            assert figures(server) == found
        output = server.stop()
    assert versions == {folder.first, good}
    refusals = [line for line in output.splitlines() if line.startswith("service: ")]
    for line, refused_version in zip(refusals, (broken, worse), strict=True):
        assert line.startswith(f"service: the pinned artifact {refused_version} exceeds ")
        assert line.endswith(f"; still serving {folder.first}")
    assert "a mean confidence of nan%" in refusals[0]
    assert " exceeds --shadow-max-disagreement 0.05" in refusals[1]
    assert (
        f"data/model {good} gave another label for 0 of {IMAGES} images (0.00%), a mean" in output
    )
    assert f"Serving data/model {good} " in output


@pytest.mark.server
def test_a_trial_ends_with_another_pin_and_with_its_process(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path))
    with serving(folder, "--workers=1") as server:
        folder.pin(lambda weights: -weights)
        wait_until(lambda: len(trials(server)) == 1, "no trial begins")
        wait_until(lambda: "LOADING" in states(server), "no state shows the trial")
        folder.pin_first()
        wait_until(lambda: trials(server) == [], "the trial goes on")
        wait_until(
            lambda: len(states(server)) == 1, "the service still shows the artifact of the trial"
        )

        new = folder.pin_same_network()
        wait_until(lambda: len(trials(server)) == 1, "no second trial begins")
        os.kill(trials(server)[0], signal.SIGKILL)
        failed = f"service: the pinned artifact {new} failed with live images; make another"
        wait_until(logged(server, failed), "the failure is not reported")
        assert version(server) == folder.first
        wait_until(
            lambda: len(list(tmp_path.glob("mnist-service-*/artifacts/*/"))) == 1,
            "the refused artifacts stay in the temporary folder",
        )


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_trial_ends_with_the_service(folder, number):
    with serving(folder, "--workers=1") as server:
        new = folder.pin_same_network()
        wait_until(lambda: len(trials(server)) == 1, "no trial begins")
        [trial] = trials(server)
        server.process.send_signal(number)
        server.process.wait(TIMEOUT)
        assert server.process.returncode == 0
        assert not Path(f"/proc/{trial}").exists()
        *_, last = server.stop().splitlines()
    assert last.startswith(f"Trying data/model {new} ")


@pytest.mark.server
def test_an_artifact_that_is_no_longer_pinned_does_not_take_over(folder, png_files, artifact):
    with serving(folder, "--workers=1", "--shadow-max-slowdown=1000") as server:
        folder.pin_same_network()
        wait_until(lambda: len(trials(server)) == 1, "no trial begins")
        wait_until(lambda: "LOADING" in states(server), "no state shows the trial")
        [trial] = trials(server)
        server.process.send_signal(signal.SIGSTOP)
        with load(server, png_files, artifact.predictions):
            wait_until(lambda: ended(trial), "the trial goes on")
        folder.pin_first()
        server.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(states(server)) == 1, "the service still shows the artifact")
        assert "from now on" not in server.stop()


@pytest.mark.server
def test_a_trial_ends_when_the_service_is_killed(folder):
    with serving(folder, "--workers=1") as server:
        folder.pin_same_network()
        wait_until(lambda: len(trials(server)) == 1, "no trial begins")
        [trial] = trials(server)
        server.process.kill()
        wait_until(lambda: ended(trial), "the trial goes on")


@pytest.mark.parametrize(
    ("change", "exceeded"),
    [
        ({}, []),
        ({"disagreements": 6}, ["--shadow-max-disagreement 0.05"]),
        ({"confidence": (0.95, 0.92)}, ["--shadow-max-confidence-loss 0.02"]),
        ({"confidence": (0.95, 1.0)}, []),
        ({"confidence": (0.95, float("nan"))}, ["--shadow-max-confidence-loss 0.02"]),
        ({"seconds": (0.001, 0.0016)}, ["--shadow-max-slowdown 1.5"]),
        ({"seconds": (0.001, 0.0001)}, []),
        (
            {"disagreements": 100, "seconds": (0.001, 0.01)},
            ["--shadow-max-disagreement 0.05", "--shadow-max-slowdown 1.5"],
        ),
    ],
)
def test_each_bound_is_an_option(change, exceeded):
    assert BOUNDS.exceeded(replace(SAME, **change)) == exceeded


def test_copies_are_only_made_while_a_trial_wants_one_and_never_block():
    copies, images = Copies(), np.arange(2 * 784, dtype=np.uint16).reshape(2, 28, 28)
    images = images.astype(np.uint8)
    copies.empty()
    copies.offer(images)
    copies.wanted.turn_on()
    copies.offer(images[1:])
    assert (copies.take() == images[1:]).all()
    assert not copies.wanted.is_on()
    copies.wanted.turn_on()
    for _ in range(10_000):
        copies.offer(images[:1])  # more than the queue has room for
    assert (copies.take() == images[:1]).all()
    copies.empty()  # for the next trial
    copies.wanted.turn_on()
    copies.offer(images[1:])
    assert (copies.take() == images[1:]).all()
