import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from service.recognition import pin


@pytest.fixture
def pinned(repository, tmp_path):
    """Return the pin of a copy of the lock and the artifact."""
    shutil.copy(repository.path / "dvc.lock", tmp_path)
    shutil.copytree(repository.path / "data/model", tmp_path / "data/model")
    shutil.copy(repository.path / "data/model.sha256", tmp_path / "data")
    return pin.read(tmp_path / "dvc.lock")


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_copy_has_the_pinned_bytes(pinned, tmp_path):
    pin.copy(pinned, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(pinned.folder)


def test_directory_hash_equals_the_hash_of_dvc(scratch):
    folder = scratch.path / "odd"
    for name in ("b", "a/z", "a b/ü.txt", "a.b", "A", "sub/deep/er", "empty"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("" if name == "empty" else name)
    scratch.run("dvc", "add", "odd")
    recorded = yaml.safe_load((scratch.path / "odd.dvc").read_text())["outs"][0]["md5"]
    files = {name: hashlib.md5(data).hexdigest() for name, data in contents(folder).items()}
    assert f"{pin.directory_hash(files)}.dir" == recorded


def change_a_byte(folder):
    file = folder / "variables/variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[1234] ^= 1
    file.write_bytes(content)


def remove_a_file(folder):
    (folder / "variables/variables.index").unlink()


def add_a_file(folder):
    (folder / "extra").write_text("")


def rename_a_file(folder):
    (folder / "saved_model.pb").rename(folder / "saved_model.pbtxt")


@pytest.mark.parametrize("damage", [change_a_byte, remove_a_file, add_a_file, rename_a_file])
def test_copy_rejects_any_other_bytes(pinned, tmp_path, damage):
    damage(pinned.folder)
    with pytest.raises(pin.PinError) as error:
        pin.copy(pinned, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    sentence = str(error.value)
    assert f"expected {pinned.version}, found " in sentence
    assert "dvc checkout --force data/model" in sentence
    assert "\n" not in sentence


def test_copy_rejects_an_empty_directory(pinned, tmp_path):
    shutil.rmtree(pinned.folder)
    pinned.folder.mkdir()
    with pytest.raises(pin.PinError, match=r"\(0 files\); run `dvc repro`"):
        pin.copy(pinned, tmp_path / "copy")


def test_copy_rejects_a_missing_artifact(pinned, tmp_path):
    shutil.rmtree(pinned.folder)
    with pytest.raises(pin.PinError, match=r"cannot be copied .No such file.*dvc repro"):
        pin.copy(pinned, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_copy_rejects_a_file_instead_of_the_directory(pinned, tmp_path):
    shutil.rmtree(pinned.folder)
    pinned.folder.write_text("model")
    with pytest.raises(pin.PinError, match="not a directory"):
        pin.copy(pinned, tmp_path / "copy")


ENTRY = "path: data/model, hash: md5, md5: "


@pytest.mark.parametrize(
    ("lock", "reason"),
    [
        ("", "not a readable dvc.lock"),
        ("schema: '2.0'", "not a readable dvc.lock"),
        ("stages: [", "not a readable dvc.lock"),
        ("stages: {export: 1}", "not a readable dvc.lock"),
        ("stages: {export: {outs: [{hash: md5}]}}", "not a readable dvc.lock"),
        ("stages: {train: {outs: [{path: data/network}]}}", "no entry for data/model"),
        ("stages: {export: {cmd: x}}", "no entry for data/model"),
        (f"stages: {{export: {{outs: [{{{ENTRY} {'0' * 32}}}]}}}}", "no directory hash"),
        (f"stages: {{export: {{outs: [{{{ENTRY} {'g' * 32}.dir}}]}}}}", "no directory hash"),
        (f"stages: {{export: {{outs: [{{{ENTRY} .dir}}]}}}}", "no directory hash"),
        (
            f"stages: {{export: {{outs: [{{path: data/model, md5: {'0' * 32}.dir}}]}}}}",
            "in DVC 2's format, expected DVC 3's with `hash: md5`",
        ),
    ],
)
def test_read_rejects_a_lock_that_pins_no_artifact(tmp_path, lock, reason):
    file = tmp_path / "dvc.lock"
    file.write_text(lock)
    with pytest.raises(pin.PinError) as error:
        pin.read(file)
    assert reason in str(error.value)
    assert "dvc repro" in str(error.value)
    assert "\n" not in str(error.value)


def test_read_rejects_a_missing_lock():
    with pytest.raises(pin.PinError, match=r"does not exist.*dvc repro"):
        pin.read(Path("/no/such/dvc.lock"))
