"""The model of a worker, and its switch to another artifact."""

import asyncio
import shutil
from contextlib import suppress

import numpy as np
import pytest

from service import access_log, reload
from service.reload import ModelStatus
from service.served_model import Model

OTHER = "f" * 32


@pytest.fixture
def model(artifact):
    return Model(artifact.path / "data/model", artifact.version, artifact.sha256, "litert")


def test_images_are_recognized_and_counted_for_their_request(model, artifact, testing):
    environ: dict[str, object] = {}
    labels, probabilities = model.recognize(testing[0], environ)
    np.testing.assert_array_equal(labels, artifact.predictions)
    assert probabilities.shape == (500, 10)
    assert environ[access_log.IMAGES] == 500


async def follow_until(model, private, done):
    """Let the model follow the published artifact until a condition holds."""
    following = asyncio.create_task(model.follow(private))
    async with asyncio.timeout(60):
        while not done():
            await asyncio.sleep(0.01)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


def test_a_published_artifact_replaces_the_first(model, artifact, testing, tmp_path):
    shutil.copytree(artifact.path / "data/model", tmp_path / OTHER)
    statuses = [
        ModelStatus(OTHER, "AVAILABLE", folder=str(tmp_path / OTHER)),
        ModelStatus("0" * 32, "END", "bad"),
    ]
    reload.publish(tmp_path, statuses)
    asyncio.run(follow_until(model, tmp_path, lambda: model.statuses == statuses))
    assert model.version == OTHER
    labels, _ = model.recognize(testing[0][:5], {})
    np.testing.assert_array_equal(labels, artifact.predictions[:5])


def test_a_failed_load_leaves_the_first_artifact_in_service(model, artifact, tmp_path, caplog):
    reload.publish(tmp_path, [ModelStatus(OTHER, "AVAILABLE", folder=str(tmp_path / "missing"))])
    asyncio.run(follow_until(model, tmp_path, lambda: "Cannot load" in caplog.text))
    assert model.version == artifact.version
