"""Both engines give the same results, and the service runs without TensorFlow."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests

from service.recognition import engines
from tests.conftest import ENVIRONMENT, PROJECT, running_server, start


@pytest.fixture(scope="module", params=engines.ENGINES)
def engine(request, repository):
    return engines.load(repository.path / "data/model", request.param)


def test_each_engine_returns_the_labels_of_the_evaluate_stage(engine, testing, predictions):
    labels, probabilities = engine.recognize(testing[0])
    assert (labels.dtype, probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(labels, predictions)
    np.testing.assert_array_equal(probabilities.argmax(1), predictions)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_the_batch_does_not_change_the_probabilities_of_an_image(engine, testing):
    alone = np.concatenate([engine.recognize(image[np.newaxis])[1] for image in testing[0][:20]])
    np.testing.assert_allclose(engine.recognize(testing[0][:20])[1], alone, atol=1e-6)


def test_more_threads_than_the_engine_was_loaded_for_wait(engine, testing, predictions):
    """As `service.load` documents. Each call takes milliseconds, so the calls overlap."""
    parts = np.array_split(testing[0], 8)
    with ThreadPoolExecutor(8) as threads:
        labels = [found for found, _ in threads.map(engine.recognize, parts)]
    np.testing.assert_array_equal(np.concatenate(labels), predictions)


def test_the_engines_agree(repository, testing):
    litert, tensorflow = (
        engines.load(repository.path / "data/model", name).recognize(testing[0])[1]
        for name in ("litert", "tensorflow")
    )
    assert np.abs(litert - tensorflow).max() < 1e-3


@pytest.fixture
def without_tensorflow(tmp_path, monkeypatch):
    """Make imports of TensorFlow and Keras fail, as if they were not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(tensorflow=None, keras=None)\n"
    )
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path))


def test_the_service_runs_without_tensorflow(
    without_tensorflow, repository, png_files, predictions
):
    with running_server(repository.path, "--workers=1") as server:
        content = png_files[0].read_bytes()
        answer = requests.post(f"{server.url}/recognize", files={"image": content}, timeout=30)
        assert answer.json()["labels"] == [predictions[0]]


def test_the_tensorflow_engine_reports_that_tensorflow_is_missing(without_tensorflow, repository):
    result = start(repository.path, "--engine=tensorflow")
    assert result.returncode == 1
    assert result.stderr == (
        "service: the engine tensorflow needs TensorFlow, which is not installed; "
        "`pip install tensorflow-cpu`, or use --engine litert\n"
    )


def test_the_service_runs_with_the_tensorflow_engine(repository, png_files, predictions):
    with running_server(repository.path, "--workers=1", "--engine=tensorflow") as server:
        content = png_files[0].read_bytes()
        answer = requests.post(f"{server.url}/recognize", files={"image": content}, timeout=30)
        assert answer.json()["labels"] == [predictions[0]]


@pytest.mark.server
def test_a_check_with_the_tensorflow_engine_shows_no_message_of_tensorflow(artifact):
    lock = f"--lock={artifact.path}/dvc.lock"
    done = start(PROJECT, "--check", "--engine=tensorflow", lock)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the memory of the process from /proc")
def test_an_idle_worker_uses_less_than_120_mib(repository, png_files):
    with running_server(repository.path, "--workers=1") as server:
        content = png_files[0].read_bytes()
        requests.post(f"{server.url}/recognize", files={"image": content}, timeout=30)
        status = Path(f"/proc/{server.worker()}/status").read_text()
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    assert int(resident) < 120 * 1024


def test_a_loading_engine_logs_nothing(artifact, capfd):
    engines.load(artifact.path / "data/model", "litert")
    assert capfd.readouterr().err == ""
