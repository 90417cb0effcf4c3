"""Run `python -m service.bulk` on this machine and on a Ray cluster."""

import re
import shutil
import signal
from collections import Counter

import pyarrow as pa
import pytest
from pyarrow import parquet
from pyarrow.fs import FileSystem

from service.bulk import __main__ as command
from service.bulk import worker
from service.recognition import engines, images, pin
from tests.bulk.conftest import (
    BROKEN,
    PART_SIZE,
    check_many,
    end,
    parts_of,
    rows_of,
    run_bulk,
    start_bulk,
    tar_of,
)
from tests.conftest import ENVIRONMENT, pin_by_md5_only, wait_until

KILLER = b"a worker that decodes this is killed"
# Appended to a copy of the program. It stands for a defect in a decoder.
DECODER = f"""

def decode(content, max_pixels=MAX_PIXELS, _decode=decode):
    import os, signal
    if content == {KILLER!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return _decode(content, max_pixels)
"""


def test_every_kind_of_input_produces_its_rows(
    environment, repository, png_files, version, tmp_path, endpoint, monkeypatch
):
    folder = tmp_path / "in"
    (folder / "deep/er").mkdir(parents=True)
    contents = {}  # by the expected path in the output
    for file in png_files[:7]:
        shutil.copy(file, folder / "deep/er")
        contents[f"{folder}/deep/er/{file.name}"] = file.read_bytes()
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
        contents[f"{folder}/{name}"] = content
    (folder / ".hidden.png").write_bytes(b"")
    for name, mode in (("plain.tar", "w"), ("packed.tar.gz", "w:gz")):
        (folder / name).write_bytes(tar_of(png_files[7:12], mode))
        contents |= {f"{folder}/{name}/{file.name}": file.read_bytes() for file in png_files[7:12]}
    structs = [{"bytes": file.read_bytes(), "path": file.name} for file in png_files[12:20]]
    parquet.write_table(pa.table({"image": structs}), folder / "a.parquet", row_group_size=3)
    contents |= {f"{folder}/a.parquet/{row['path']}": row["bytes"] for row in structs}
    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)
    place = tmp_path.name  # a folder of the bucket for this test alone
    bucket, _ = FileSystem.from_uri("s3://bucket")
    for file in png_files[20:25]:
        with bucket.open_output_stream(f"bucket/{place}/in/{file.name}") as stream:
            stream.write(file.read_bytes())
        contents[f"s3://bucket/{place}/in/{file.name}"] = file.read_bytes()

    arguments = [
        *(folder, f"s3://bucket/{place}/in"),
        *(f"--out=s3://bucket/{place}/out", "--part-size=4"),
    ]
    output = run_bulk(repository.path, environment, *arguments)
    rows = parquet.read_table(f"bucket/{place}/out", filesystem=bucket).to_pylist()
    assert f"{len(contents)} pictures, {len(BROKEN)} of them with an error" in output
    output = run_bulk(repository.path, environment, *arguments)
    assert re.match(r"(\d+) of \1 parts are done", output), output

    assert Counter(row["path"] for row in rows) == Counter(contents.keys())
    engine = engines.load(pin.read(repository.path / "dvc.lock").folder, "litert")
    for row in rows:
        expected = {"label": None, "probabilities": None, "error": None, "version": version}
        try:
            image = images.decode(contents[row.pop("path")])
            labels, probabilities = engine.recognize(image[None])
            expected |= {"label": labels[0], "probabilities": probabilities[0].tolist()}
        except images.ImageError as error:
            expected["error"] = str(error)
        assert row == expected


def test_an_interrupted_job_continues(environment, repository, many, predictions, tmp_path):
    arguments = [many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"]
    process = start_bulk(repository.path, environment, *arguments)
    wait_until(lambda: len(parts_of(tmp_path)) > 3)
    process.send_signal(signal.SIGINT)
    assert "bulk: interrupted; run the same command again" in end(process, status=1)
    run_bulk(repository.path, environment, *arguments)
    check_many(tmp_path, many, predictions)


def test_a_picture_that_kills_its_worker_twice_becomes_a_row_with_an_error(
    environment, scratch, png_files, predictions, tmp_path
):
    with (scratch.path / "service/recognition/images.py").open("a") as file:
        file.write(DECODER)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for file in png_files:
        (folder / file.name).hardlink_to(file)
    killers = [folder / name for name in ("100.killer", "100.killer.too", "300.killer")]
    for killer in killers:
        killer.write_bytes(KILLER)
    (folder / "killers.tar").write_bytes(tar_of([png_files[0], killers[0], png_files[1]]))
    output = run_bulk(scratch.path, environment, folder, f"--out={out}")
    assert output.startswith("506 pictures, 4 of them with an error")
    errors = {row["path"]: row["error"] for row in rows_of(out) if row["error"]}
    archived = f"{folder}/killers.tar/{killers[0].name}"
    assert errors == dict.fromkeys([*map(str, killers), archived], worker.KILLED)
    labels = {row["path"]: row["label"] for row in rows_of(out) if not row["error"]}
    assert len(labels) == 502
    for number, file in enumerate(png_files):
        assert labels[str(folder / file.name)] == predictions[number]


def test_a_local_job_imports_neither_ray_nor_pandas(
    repository, png_files, version, sha256, tmp_path
):
    for name in ("ray", "pandas"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the job imports {name}')")
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}
    names = png_files[:3]
    output = run_bulk(repository.path, environment, *names, f"--out={tmp_path / 'out'}")
    assert output.startswith("3 pictures, 0 of them with an error")
    assert output.endswith(f", by {version} (SHA-256 {sha256})\n")


def test_an_error_names_the_extra_that_is_not_installed():
    with pytest.raises(SystemExit, match=r"bulk: no_such_module not installed; .*'\.\[cluster\]'"):
        command._check_extras({"pyarrow": "bulk", "no_such_module": "cluster"})


def test_a_second_run_has_no_parts_to_make(repository, png_files, tmp_path):
    arguments = [*png_files[:3], f"--out={tmp_path / 'out'}"]
    run_bulk(repository.path, ENVIRONMENT, *arguments)
    output = run_bulk(repository.path, ENVIRONMENT, *arguments)
    assert output.startswith("3 of 3 parts are done")


@pytest.mark.parametrize("name", ["missing", "none/*.png", "empty", "s3:/", "nothing://bucket"])
def test_an_input_that_matches_no_file_is_refused(repository, tmp_path, name):
    (tmp_path / "empty").mkdir()
    name = name if ":" in name else tmp_path / name
    out = tmp_path / "out"
    output = run_bulk(repository.path, ENVIRONMENT, name, f"--out={out}", status=1)
    assert output.startswith("bulk: ")
    assert output.count("\n") == 1
    assert not list(out.iterdir())


def test_an_artifact_that_is_not_the_pinned_one_is_refused(scratch, png_files, tmp_path):
    with (scratch.path / "data/model/saved_model.pb").open("ab") as file:
        file.write(b"x")
    out = tmp_path / "out"
    output = run_bulk(scratch.path, ENVIRONMENT, png_files[0], f"--out={out}", status=1)
    assert "is not the pinned artifact" in output
    assert not out.exists()


def test_an_artifact_without_a_manifest_is_refused_unless_the_user_allows_it(
    scratch, png_files, version, tmp_path
):
    pin_by_md5_only(scratch.path)
    arguments = [png_files[0], f"--out={tmp_path / 'out'}"]
    output = run_bulk(scratch.path, ENVIRONMENT, *arguments, status=1)
    assert output.startswith("bulk: dvc.lock pins data/model by MD5 only, for which ")
    output = run_bulk(scratch.path, ENVIRONMENT, *arguments, "--allow-md5-only")
    assert output.endswith(f", by {version} (pinned by MD5 only)\n")
