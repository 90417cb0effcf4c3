import json

import pytest

from service.bulk import BulkError, inputs, job
from service.bulk.inputs import Part
from service.bulk.job import Job
from tests.bulk.conftest import run_bulk
from tests.conftest import ENVIRONMENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "0" * 32}, "another version: " + "0" * 32),
        ({"sha256": "0" * 64}, "another sha256: " + "0" * 64),
        ({"inputs": ["/other"]}, "another inputs"),
        ({"part_size": 7}, "another part size: 7, and not 2000"),
        ({"column": "png"}, "another column: png, and not None"),
    ],
)
def test_a_folder_with_another_job_is_refused(
    repository, png_files, version, sha256, tmp_path, change, reason, monkeypatch
):
    picture = str(png_files[0])
    first = {"inputs": [picture], "part_size": 2000, "column": None}
    first |= {"version": version, "sha256": sha256}
    monkeypatch.setattr(inputs, "parts", lambda *_: iter([Part("files", [picture])]))
    Job(out=str(tmp_path), **{**first, **change}).start()
    before = sorted(tmp_path.iterdir())
    output = run_bulk(repository.path, ENVIRONMENT, picture, f"--out={tmp_path}", status=1)
    assert output.startswith(f"bulk: {tmp_path} has a job with {reason}"), output
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_with_other_files_is_refused(repository, png_files, tmp_path):
    (tmp_path / "mine").touch()
    output = run_bulk(repository.path, ENVIRONMENT, png_files[0], f"--out={tmp_path}", status=1)
    assert output.startswith(f"bulk: {tmp_path} is not empty, and no job was started there")


def test_an_output_folder_inside_an_input_is_refused(repository, tmp_path):
    out = f"{tmp_path}/deep/out"
    output = run_bulk(repository.path, ENVIRONMENT, tmp_path, f"--out={out}", status=1)
    assert output.startswith(f"bulk: {out} is inside the input {tmp_path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (30, 30), (100, 25), (5000, 50)])
def test_a_small_job_has_parts_for_all_cores(tmp_path, count, parts):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").touch()
    started = Job(str(tmp_path / "out"), [str(folder)], 100, None, "0", "1")
    assert not started.start()
    sizes = [len(started.part(task).names) for task in started.tasks()]
    assert len(sizes) == parts
    assert sum(sizes) == count
    assert max(sizes) <= 100


def test_a_second_run_keeps_the_list_of_parts(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "0.png").touch()
    started = Job(str(tmp_path / "out"), [str(folder)], 100, None, "0", "1")
    assert not started.start()
    (folder / "1.png").touch()
    assert started.start()
    assert [started.part(task).names for task in started.tasks()] == [[str(folder / "0.png")]]


def test_a_job_with_an_incomplete_list_of_parts_starts_again(tmp_path):
    with pytest.raises(BulkError):
        Job(str(tmp_path / "out"), [str(tmp_path / "missing")], 100, None, "0", "1").start()
    (tmp_path / "in.png").touch()
    again = Job(str(tmp_path / "out"), [str(tmp_path / "in.png")], 100, None, "0", "1")
    assert not again.start()
    assert json.loads((tmp_path / "out" / job.JOB).read_text())["inputs"] == again.inputs
