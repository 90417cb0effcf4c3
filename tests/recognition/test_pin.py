import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from service.recognition import pin
from tests import collision
from tests.conftest import pin_artifact, pin_by_md5_only, pin_outputs


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


def test_read_returns_the_hashes_of_the_manifest_and_of_each_file(pinned, sha256):
    assert pinned.sha256 == sha256
    assert pinned.files == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in contents(pinned.folder).items()
    }


def test_read_rejects_a_lock_without_the_manifest_unless_the_caller_allows_it(pinned, tmp_path):
    pin_by_md5_only(tmp_path)
    with pytest.raises(pin.PinError) as error:
        pin.read(tmp_path / "dvc.lock")
    assert str(error.value) == (
        f"{tmp_path / 'dvc.lock'} pins data/model by MD5 only, for which an attacker can make two "
        "folders with one hash; run `dvc repro`, or accept this with --allow-md5-only"
    )
    accepted = pin.read(tmp_path / "dvc.lock", allow_md5_only=True)
    assert accepted == pin.Pin(pinned.folder, pinned.version, "", None)
    pin.copy(accepted, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(pinned.folder)


@pytest.mark.parametrize("allow_md5_only", [False, True])
def test_read_rejects_a_missing_manifest(pinned, tmp_path, allow_md5_only):
    (tmp_path / "data/model.sha256").unlink()
    with pytest.raises(pin.PinError) as error:
        pin.read(tmp_path / "dvc.lock", allow_md5_only)
    file = tmp_path / "data/model.sha256"
    assert str(error.value) == (
        f"{file} cannot be read (No such file or directory); "
        f"restore it with `git checkout {file}`, or run `dvc repro`"
    )


@pytest.mark.parametrize("allow_md5_only", [False, True])
def test_read_rejects_a_manifest_that_is_not_the_pinned_one(pinned, tmp_path, allow_md5_only):
    file = tmp_path / "data/model.sha256"
    before = hashlib.md5(file.read_bytes()).hexdigest()
    file.write_text(file.read_text().replace("0", "1", 1))
    with pytest.raises(pin.PinError) as error:
        pin.read(tmp_path / "dvc.lock", allow_md5_only)
    after = hashlib.md5(file.read_bytes()).hexdigest()
    assert f"{file} is not the pinned manifest: expected {before}, found {after}; " in str(
        error.value
    )


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("", "is not a sorted list in the format of `sha256sum`"),
        (f"{'0' * 64}  data/other\n", "lists data/other, which is outside data/model"),
    ],
)
@pytest.mark.parametrize("allow_md5_only", [False, True])
def test_read_rejects_an_invalid_manifest(pinned, tmp_path, manifest, reason, allow_md5_only):
    file = tmp_path / "data/model.sha256"
    file.write_text(manifest)
    md5 = hashlib.md5(manifest.encode()).hexdigest()
    pin_outputs(tmp_path, {"data/model": f"{pinned.version}.dir", "data/model.sha256": md5})
    with pytest.raises(pin.PinError) as error:
        pin.read(tmp_path / "dvc.lock", allow_md5_only)
    assert str(error.value) == (
        f"{file} {reason}; restore it with `git checkout {file}`, or run `dvc repro`"
    )


def collide(folder):
    (folder / "collision").write_bytes(collision.OTHER)


@pytest.mark.parametrize(
    ("damage", "difference", "count"),
    [
        (change_a_byte, ", with another SHA-256 of variables/variables.data-00000-of-00001", 7),
        (remove_a_file, ", without variables/variables.index", 6),
        (add_a_file, ", with extra, which data/model.sha256 does not list", 8),
        (rename_a_file, ", without saved_model.pb", 7),
        (collide, ", with another SHA-256 of collision", 7),
    ],
)
def test_copy_names_the_first_file_that_differs(pinned, tmp_path, damage, difference, count):
    (pinned.folder / "collision").write_bytes(collision.ONE)
    pin_artifact(tmp_path)
    pinned = pin.read(tmp_path / "dvc.lock")
    damage(pinned.folder)
    with pytest.raises(pin.PinError) as error:
        pin.copy(pinned, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert f"{difference} ({count} files); run `dvc repro`" in str(error.value)
    assert ("found the same MD5, " in str(error.value)) == (damage is collide)


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.pop("saved_model.pb"),
        lambda files: files.update(more="0" * 64),
        lambda files: files.update({"saved_model.pb": "0" * 64}),
    ],
)
def test_copy_rejects_files_that_only_the_manifest_rejects(pinned, tmp_path, change):
    files = dict(pinned.files)
    change(files)
    with pytest.raises(pin.PinError, match="found the same MD5, with"):
        pin.copy(replace(pinned, files=files), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_read_rejects_a_missing_lock():
    with pytest.raises(pin.PinError, match=r"does not exist.*dvc repro"):
        pin.read(Path("/no/such/dvc.lock"))


def test_a_folder_is_pinned_by_the_sha256_of_its_manifest(pinned, tmp_path):
    assert pin.of_folder(pinned.folder, pinned.sha256) == pinned
    pin.copy(pinned, tmp_path / "copy")


@pytest.mark.parametrize("damage", [change_a_byte, remove_a_file, add_a_file, rename_a_file])
def test_a_folder_with_another_manifest_is_rejected(pinned, damage):
    damage(pinned.folder)
    with pytest.raises(pin.PinError, match=f"expected the SHA-256 {pinned.sha256}, found") as error:
        pin.of_folder(pinned.folder, pinned.sha256)
    assert "correct --pin" in str(error.value)


def test_a_missing_folder_is_rejected(pinned, tmp_path):
    with pytest.raises(pin.PinError, match=r"cannot be read \(No such file or directory\)"):
        pin.of_folder(tmp_path / "none", pinned.sha256)


def test_a_path_with_line_breaks_imitates_no_other_manifest(pinned, tmp_path):
    lines = (tmp_path / "data/model.sha256").read_text()
    paths = lines.removesuffix("\n").partition("data/model/")[2]  # all but the first hash
    first = paths.partition("\n")[0]
    imitation = tmp_path / "imitation"
    (imitation / paths).parent.mkdir(parents=True)
    (imitation / paths).write_bytes((pinned.folder / first).read_bytes())
    imitating = pin.of_folder(imitation, pinned.sha256)
    with pytest.raises(pin.PinError, match=f"without {re.escape(first)}"):
        pin.copy(imitating, tmp_path / "copy")
