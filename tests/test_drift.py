"""How far the recognized images are from the test split, in `/metrics`."""

import gzip

import numpy as np
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from service import drift
from stages.common import idx
from tests.conftest import FASHION, Artifact, in_process, running_server, wait_until

CLOSE, FAR = 0.1, 0.25  # the rule of thumb in `service.recognition.distributions`


@pytest.fixture(scope="module")
def client(repository, version, sha256, predictions):
    return in_process(Artifact(repository.path, version, sha256, predictions))


def send(client, images):
    """Fill the window with images, which may be fewer than it holds."""
    for _ in range(-(-drift.IMAGES // len(images))):
        body = {"instances": images.tolist()}
        assert client.post("/v1/models/mnist:predict", json=body).ok


def found(text, version):
    """Return the index of each feature, and the number of images."""
    samples = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("version") == version
    ]
    index = {s.labels["feature"]: s.value for s in samples if s.name == "mnist_drift_index"}
    [images] = [sample.value for sample in samples if sample.name == "mnist_drift_images"]
    return index, images


def fashion():
    return idx.parse(gzip.decompress((FASHION / "t10k-images-idx3-ubyte.gz").read_bytes()))


def noise():
    return np.random.default_rng(1).integers(0, 256, (200, 28, 28), np.uint8)


def test_test_images_are_close(client, version, testing):
    send(client, testing[0])
    index, images = found(client.get("/metrics").text, version)
    assert set(index) == {"confidence", "label", "ink"}
    assert max(index.values()) < 0.01
    assert images == drift.IMAGES


def test_some_of_the_test_images_are_close(client, version, testing):
    send(client, testing[0][:200])
    index, _ = found(client.get("/metrics").text, version)
    assert 0 < max(index.values()) < CLOSE


@pytest.mark.parametrize("make", [fashion, noise])
def test_other_images_are_far_and_the_window_slides_on(client, version, testing, make):
    send(client, make())
    index, _ = found(client.get("/metrics").text, version)
    assert index["confidence"] > FAR
    assert index["ink"] > FAR
    send(client, testing[0])
    index, _ = found(client.get("/metrics").text, version)
    assert max(index.values()) < 0.01


def test_old_images_leave_the_window(client, version, testing, monkeypatch):
    send(client, testing[0])
    monkeypatch.setattr(drift, "SECONDS", 0)
    assert found(client.get("/metrics").text, version) == ({}, 0)


def test_an_artifact_without_distributions_has_no_drift(artifact, testing):
    client = in_process(artifact)
    send(client, testing[0])
    text = client.get("/metrics").text
    assert f'mnist_images_total{{label="0",version="{artifact.version}"}}' in text
    assert artifact.version not in "".join(
        line for line in text.splitlines() if line.startswith("mnist_drift")
    )


def test_the_counts_of_all_workers_are_added_up(repository, version, png_files):
    """Each picture comes on a new connection, so each worker gets about half."""
    with running_server(repository.path, "--workers=2") as server:
        for file in png_files[:200]:
            requests.post(f"{server.url}/recognize", files={"image": file.read_bytes()}, timeout=60)

        def complete_index():
            index, images = found(requests.get(f"{server.url}/metrics", timeout=60).text, version)
            return index if images == 200 else None

        # A worker publishes its counts once a second.
        index = wait_until(complete_index, "the workers do not count all images")
    assert max(index.values()) < CLOSE
