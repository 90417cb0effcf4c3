"""Tests of the model that `dvc repro` trained on all of MNIST. Without it, they are skipped."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from service.recognition import engines, pin, segmentation
from stages.common import idx
from tests.c_api import Graph
from tests.conftest import PROJECT, running_server

DATA = PROJECT / "data"

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(
        not (DATA / "model").exists() or not (DATA / "idx").exists(),
        reason="data/model or data/idx is missing; run `make repro`",
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


def test_accuracy_precision_and_recall_are_high(metrics):
    assert metrics["accuracy"] >= 0.993
    assert metrics["accuracy_without_rejected_labels"] > metrics["accuracy"]
    assert min(metrics["precision"].values()) > 0.98
    assert min(metrics["recall"].values()) > 0.98


def test_confidence_is_calibrated(metrics):
    assert metrics["expected_calibration_error"] < 0.01
    assert metrics["robustness_calibration_error"] < 0.02
    for source in metrics["handwriting"].values():
        assert source["expected_calibration_error"] < 0.02


def test_corrupted_images_keep_their_labels(metrics):
    assert metrics["robustness_mean"] > 0.975
    assert metrics["robustness_lowest"] > 0.9


def test_other_handwriting_is_recognized(metrics):
    assert metrics["handwriting"]["semeion"]["accuracy"] > 0.97
    assert metrics["handwriting"]["optdigits"]["accuracy"] > 0.99


def test_confidence_is_low_without_a_digit_and_high_with_one(metrics):
    assert metrics["unsure"]["non_digits"] > 0.85
    assert metrics["unsure"]["digits"] < 0.01
    assert max(source["unsure"] for source in metrics["handwriting"].values()) < 0.03


def test_pictures_of_every_kind_are_recognized_as_well_as_plain_ones():
    figures = json.loads((DATA / "pictures/metrics.json").read_text())
    for group in figures.values():
        for name, accuracy in group.items():
            assert accuracy >= figures["plain"]["PNG"] - 0.015, name


@pytest.fixture(scope="module")
def recognize(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "copy"
    pin.copy(pin.read(PROJECT / "dvc.lock"), folder)
    return engines.load(folder, "litert").recognize


def number_page(images, random):
    """Draw a number on paper, uint8. One in ten digits touches the one before it."""
    page = np.zeros((120, 100 * len(images)), np.uint8)
    right = 20
    for image in images:
        ink = image[np.ix_(image.any(axis=1), image.any(axis=0))]
        scale = random.uniform(2.2, 2.8)
        size = round(scale * ink.shape[1]), round(scale * ink.shape[0])
        digit = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
        left = right + int(
            random.integers(-5, 0) if random.random() < 0.1 else random.integers(6, 30)
        )
        top = int(random.integers(20, 35))
        part = page[top : top + size[1], left : left + size[0]]
        np.maximum(part, digit, out=part)
        right = left + size[0]
    paper = 230 - 0.7 * page[:, : right + 20] + random.normal(0, 4, (120, right + 20))
    return paper.clip(0, 255).astype(np.uint8)


def test_numbers_are_read_whole_or_refused(recognize, testing):
    random = np.random.default_rng(3)
    right = wrong = 0
    for _ in range(100):
        chosen = random.integers(len(testing[1]), size=random.integers(3, 14))
        found = segmentation.find(number_page(testing[0][chosen], random))
        probabilities = recognize(found.images)[1]
        rows = probabilities[found.choose(probabilities)]
        if rows.max(1).min() >= 0.5:
            read = rows.argmax(1).tolist() == testing[1][chosen].tolist()
            right, wrong = right + read, wrong + (not read)
    assert right >= 80
    assert right >= 0.85 * (right + wrong)


# Rows and columns, in pixels.
SHIFTS = [(-2, 0), (2, 0), (0, -2), (0, 2), (-2, -2), (2, 2), (1, -1), (-1, 1)]


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifted_digits_keep_their_labels(recognize, testing, shift):
    images = testing[0][:1000]
    shifted = np.roll(images, shift, axis=(1, 2))  # no ink wraps: the margin is 4 pixels
    assert (recognize(shifted)[0] == recognize(images)[0]).mean() >= 0.985


@pytest.mark.parametrize("angle", [-10, -5, 5, 10])
def test_rotated_digits_keep_their_labels(recognize, testing, angle):
    images = testing[0][:1000]
    rotated = np.stack(
        [
            np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
            for image in images
        ]
    )
    assert (recognize(rotated)[0] == recognize(images)[0]).mean() >= 0.99


def backgrounds():
    rng = np.random.default_rng(7)
    shape = (200, 28, 28)
    return {
        "blank": np.zeros((1, 28, 28)),
        "white": np.full((1, 28, 28), 255),
        "gray": np.full((1, 28, 28), 128),
        "uniform": rng.integers(0, 256, shape),
        "faint": rng.integers(0, 40, shape),
        "gaussian": rng.normal(100, 50, shape).clip(0, 255),
        "black and white": 255 * rng.integers(0, 2, shape),
    }


@pytest.mark.parametrize(("name", "images"), backgrounds().items(), ids=backgrounds())
def test_backgrounds_have_low_confidence(recognize, name, images):
    _, probabilities = recognize(images.astype(np.uint8))
    assert probabilities.max(1).mean() < 0.5


def test_accuracy_matches_the_committed_accuracy(metrics):
    """On another processor, rounding may change the predictions of some images."""
    command = ["git", "show", "HEAD:data/evaluation/metrics.json"]
    committed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert metrics["accuracy"] == pytest.approx(
        json.loads(committed.stdout)["accuracy"], abs=0.0015
    )


def test_service_recognizes_the_picture_of_the_readme(server):
    with (DATA / "png/testing/9/104.png").open("rb") as file:
        response = requests.post(f"{server.url}/recognize", files={"image": file}, timeout=30)
    assert response.content == b'{"filename":"104.png","labels":[9]}'
    assert response.headers["X-Model-Version"] == pin.read(PROJECT / "dvc.lock").version


def test_service_has_the_accuracy_of_evaluate_on_png_files(server, testing, metrics):
    errors = 0
    for start in range(0, len(testing[1]), 500):
        labels = testing[1][start : start + 500]
        files = [("image", (str(n), png(label, n))) for n, label in enumerate(labels, start)]
        response = requests.post(f"{server.url}/recognize", files=files, timeout=60).json()
        predictions = [result["labels"][0] for result in response["results"]]
        errors += int((np.array(predictions) != labels).sum())
    assert errors == metrics["errors"]


def png(label: int, number: int) -> bytes:
    return Path(DATA / f"png/testing/{label}/{number}.png").read_bytes()


def test_c_api_has_the_accuracy_of_evaluate_on_raw_pixels(testing, metrics):
    images, labels = testing
    pixels = images.reshape(-1, 784).astype(np.float32)  # 0 to 255
    predictions = Graph(DATA / "mnistmodel", "model").run("inputdata", pixels, "inference")
    assert int((predictions != labels).sum()) == metrics["errors"]
