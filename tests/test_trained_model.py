"""The model that `dvc repro` made from all of MNIST. Skipped where it has not been made."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from service.recognition import engines, pin
from stages.common import idx
from tests.c_api import Graph
from tests.conftest import PROJECT, running_server

DATA = PROJECT / "data"

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(
        not (DATA / "model").exists() or not (DATA / "idx").exists(),
        reason="there is no model yet: `make repro` makes it",
    ),
]


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


def test_its_confidence_is_what_it_says(metrics):
    assert metrics["expected_calibration_error"] < 0.01


@pytest.fixture(scope="module")
def recognize(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "copy"
    pin.copy(pin.read(PROJECT / "dvc.lock"), folder)
    return engines.load(folder, "litert").recognize


SHIFTS = [(-2, 0), (2, 0), (0, -2), (0, 2), (-2, -2), (2, 2), (1, -1), (-1, 1)]  # pixels


@pytest.mark.parametrize("shift", SHIFTS)
def test_labels_hold_when_the_ink_is_shifted(recognize, testing, shift):
    images = testing[0][:1000]
    shifted = np.roll(images, shift, axis=(1, 2))  # MNIST has a margin of 4 pixels
    assert (recognize(shifted)[0] == recognize(images)[0]).mean() >= 0.99


@pytest.mark.parametrize("angle", [-10, -5, 5, 10])
def test_labels_hold_when_the_image_is_turned(recognize, testing, angle):
    images = testing[0][:1000]
    turned = np.stack(
        [
            np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
            for image in images
        ]
    )
    assert (recognize(turned)[0] == recognize(images)[0]).mean() >= 0.99


def noises():
    random = np.random.default_rng(7)
    shape = (200, 28, 28)
    return {
        "blank": np.zeros((1, 28, 28)),
        "white": np.full((1, 28, 28), 255),
        "grey": np.full((1, 28, 28), 128),
        "uniform": random.integers(0, 256, shape),
        "faint": random.integers(0, 40, shape),
        "gaussian": random.normal(100, 50, shape).clip(0, 255),
        "black and white": 255 * random.integers(0, 2, shape),
    }


@pytest.mark.parametrize(("name", "images"), noises().items(), ids=noises())
def test_pictures_of_nothing_get_low_confidence(recognize, name, images):
    _, probabilities = recognize(images.astype(np.uint8))
    assert probabilities.max(1).mean() < 0.5


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
