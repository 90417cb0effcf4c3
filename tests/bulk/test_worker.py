import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest

from service.bulk import job, pool, worker
from service.bulk.inputs import Part
from service.bulk.job import Job
from service.recognition import engines, manifest, pin
from tests import collision
from tests.bulk.conftest import rows_of


@pytest.fixture
def position():
    return multiprocessing.RawValue("q", pool.NO_PICTURE)


def test_a_worker_refuses_another_artifact(version, sha256, position):
    with pytest.raises(pin.PinError):
        worker.Worker(Job("/out", [], 1, None, version, sha256), {"saved_model.pb": b"x"}, position)


def test_a_worker_refuses_an_artifact_with_the_same_md5(version, sha256, position):
    files = {"collision": collision.ONE}
    md5s = {"collision": hashlib.md5(collision.OTHER).hexdigest()}
    sha256s = {"collision": hashlib.sha256(collision.OTHER).hexdigest()}
    listed = hashlib.sha256(manifest.render(sha256s, "data/model")).hexdigest()
    refused = Job("/out", [], 1, None, pin.directory_hash(md5s), listed)
    with pytest.raises(pin.PinError, match="the received files are not the artifact"):
        worker.Worker(refused, files, position)


def test_a_file_with_any_name_becomes_a_row(
    files_of_artifact, version, sha256, png_files, position, tmp_path
):
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsencode(folder) + b"/\xff\n%20.png"
    Path(os.fsdecode(name)).hardlink_to(png_files[0])
    started = Job(str(tmp_path / "out"), [str(folder)], 1, None, version, sha256)
    started.start()
    (task,) = started.tasks()
    worker.Worker(started, files_of_artifact, position).make(task, {})
    (row,) = rows_of(tmp_path / "out")
    assert row["path"] == f"{folder}/\\udcff\n%20.png"
    assert row["error"] is None


def test_a_part_is_made_once(files_of_artifact, png_files, position, tmp_path, one_part):
    (tmp_path / "broken.png").touch()
    started, task = one_part(Part("files", [str(png_files[0]), str(tmp_path / "broken.png")]))
    results = [worker.Worker(started, files_of_artifact, position).make(task, {}) for _ in range(2)]
    for result in results:
        assert result[:2] == (2, 1)
    assert job.counts(started.output(0)) == (2, 1)
    assert len(rows_of(tmp_path / "out")) == 2


def test_a_picture_that_killed_two_workers_is_not_decoded(
    files_of_artifact, png_files, position, tmp_path, one_part
):
    started, task = one_part(Part("files", [str(file) for file in png_files[:3]]))
    result = worker.Worker(started, files_of_artifact, position).make(task, {0: 1, 1: 2})
    assert result[:2] == (3, 1)
    assert [row["error"] for row in rows_of(tmp_path / "out")] == [None, worker.KILLED, None]


def test_rows_contain_the_predictions_of_the_model(
    files_of_artifact, repository, testing, png_files, position, tmp_path, one_part
):
    started, task = one_part(Part("files", [str(file) for file in png_files]))
    worker.Worker(started, files_of_artifact, position).make(task, {})
    engine = engines.load(pin.read(repository.path / "dvc.lock").folder, "litert")
    labels, probabilities = engine.recognize(testing[0])
    rows = rows_of(tmp_path / "out")
    assert [row["label"] for row in rows] == labels.tolist()
    assert [row["probabilities"] for row in rows] == probabilities.tolist()


def test_a_defect_of_the_program_is_reported_in_one_sentence(
    files_of_artifact, png_files, position, one_part, monkeypatch
):
    started, task = one_part(Part("files", [str(png_files[0])]))
    monkeypatch.setattr(worker, "record_batches", None)
    result = worker.Worker(started, files_of_artifact, position).make(task, {})
    assert result.failure.startswith(f"cannot make {started.output(0)}: TypeError: ")
