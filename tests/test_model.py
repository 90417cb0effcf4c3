"""The model that `dvc repro` made from all of MNIST. Skipped where it has not been made."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests

from service import pin
from stages import idx
from tests.c_api import Graph
from tests.conftest import PROJECT, running_server

DATA = PROJECT / "data"

pytestmark = pytest.mark.skipif(
    not (DATA / "model").exists() or not (DATA / "idx").exists(),
    reason="there is no model yet: `make repro` makes it",
)


@pytest.fixture(scope="module")
def testing():
    return idx.load(DATA / "idx", "testing")


@pytest.fixture(scope="module")
def metrics():
    return json.loads((DATA / "evaluation/metrics.json").read_text())


@pytest.fixture(scope="module")
def server():
    with running_server(PROJECT, "--workers=1") as started:
        yield started


def test_it_is_accurate(metrics):
    assert metrics["accuracy"] >= 0.993
    assert metrics["accuracy_without_rejected_labels"] > metrics["accuracy"]
    assert min(metrics["precision"].values()) > 0.98
    assert min(metrics["recall"].values()) > 0.98


def test_the_tracked_accuracy_holds(metrics):
    """Equal on the machine that recorded it; elsewhere rounding moves some images."""
    command = ["git", "show", "HEAD:data/evaluation/metrics.json"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert metrics["accuracy"] == pytest.approx(json.loads(done.stdout)["accuracy"], abs=0.0015)


def test_the_service_answers_the_picture_of_the_readme(server):
    with (DATA / "png/testing/9/104.png").open("rb") as file:
        answer = requests.post(f"{server.url}/recognize", files={"image": file}, timeout=30)
    assert answer.content == b'{"filename":"104.png","labels":[9]}'
    assert answer.headers["X-Model-Version"] == pin.read(PROJECT / "dvc.lock").version


def test_the_service_has_the_tracked_accuracy_on_the_png_files(server, testing, metrics):
    wrong = 0
    for start in range(0, len(testing[1]), 500):
        labels = testing[1][start : start + 500]
        files = [("image", (str(n), png(label, n))) for n, label in enumerate(labels, start)]
        answer = requests.post(f"{server.url}/recognize", files=files, timeout=60).json()
        answers = [result["labels"][0] for result in answer["results"]]
        wrong += int((np.array(answers) != labels).sum())
    assert wrong == metrics["errors"]


def png(label: int, number: int) -> bytes:
    return Path(DATA / f"png/testing/{label}/{number}.png").read_bytes()


def test_the_c_api_has_the_tracked_accuracy_on_raw_pixels(testing, metrics):
    images, labels = testing
    pixels = images.reshape(-1, 784).astype(np.float32)  # 0 to 255
    answers = Graph(DATA / "mnistmodel", "model").run("inputdata", pixels, "inference")
    assert int((answers != labels).sum()) == metrics["errors"]
