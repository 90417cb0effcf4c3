"""Full, read-only and separate disks: what the stages and the copy of the artifact do."""

import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

from service.recognition import pin
from tests.conftest import ENVIRONMENT, Repository

pytestmark = pytest.mark.slow


def mount(*arguments):
    process = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        pytest.skip(f"this host cannot mount a disk: {process.stderr.strip()}")


@pytest.fixture
def disk(repository, tmp_path):
    """Yield a copy of `repository`, without its cache, on a separate small disk."""
    mount("-t", "tmpfs", "-o", "size=40m", "tmpfs", tmp_path)
    try:
        ignored = shutil.ignore_patterns("cache", ".git")
        shutil.copytree(repository.path, tmp_path / "copy", ignore=ignored)
        copy = Repository(tmp_path / "copy")
        copy.edit_params(lambda params: params["train"].update(epochs=1))
        yield copy
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def files(repository):
    data = repository.path / "data"
    return {file: file.read_bytes() for file in data.rglob("*") if file.is_file()}


def fill(file, free):
    """Fill a disk with `file`, and leave `free` KiB of it free."""
    with suppress(OSError), file.open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    os.truncate(file, file.stat().st_size - free * 1024)


def run(repository, stage):
    """Run a stage without DVC; return its exit status and its standard error."""
    process = subprocess.run(
        [sys.executable, "-m", "stages", stage],
        cwd=repository.path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize(
    ("stage", "free"),
    [
        ("download", 100),
        ("png", 300),
        ("drawn_digits", 20),
        ("non_digits", 20),
        ("train", 12),  # too little for the curves
        ("train", 200),  # too little for the weights
        ("evaluate", 20),
        ("pictures", 20),
        ("export", 200),  # too little for the files that TensorFlow writes
        ("export", 900),  # too little for the files that Python writes
    ],
)
def test_full_disk_is_reported_and_keeps_the_outputs(disk, stage, free):
    before = files(disk)
    fill(disk.path / "filler", free)
    status, message = run(disk, stage)
    assert status == 1
    assert message.startswith(f"stages.{stage}: ")
    assert os.strerror(errno.ENOSPC) in message
    assert message.count("\n") == 1
    assert files(disk) == before


@pytest.mark.parametrize(
    "stage",
    ["download", "png", "drawn_digits", "non_digits", "train", "evaluate", "pictures", "export"],
)
def test_read_only_disk_is_reported_and_keeps_the_outputs(disk, stage):
    before = files(disk)
    mount("-o", "remount,ro", disk.path.parent)
    status, message = run(disk, stage)
    assert status == 1
    assert message.startswith(f"stages.{stage}: ")
    assert message.endswith(f": {os.strerror(errno.EROFS)}\n")
    assert message.count("\n") == 1
    assert files(disk) == before


def test_missing_permission_stops_the_stage_before_training(scratch):
    """The folder is immutable, because root may write to any other folder."""
    data = scratch.path / "data"
    process = subprocess.run(["chattr", "+i", data], capture_output=True, text=True, check=False)
    if process.returncode:
        pytest.skip(f"this host cannot make a folder immutable: {process.stderr.strip()}")
    try:
        status, message = run(scratch, "train")
    finally:
        subprocess.run(["chattr", "-i", data], check=True)
    assert status == 1
    assert message.endswith(f": {os.strerror(errno.EPERM)}\n")
    assert message.count("\n") == 1


def test_data_can_be_on_another_disk(scratch):
    data = scratch.path / "data"
    before = files(scratch)
    data.rename(scratch.path / "moved")
    data.mkdir()
    mount("-t", "tmpfs", "-o", "size=40m", "tmpfs", data)
    try:
        shutil.copytree(scratch.path / "moved", data, dirs_exist_ok=True)
        assert run(scratch, "download") == (0, "")
        assert run(scratch, "png") == (0, "")
        assert files(scratch) == before
        fill(data / "filler", 100)
        before = files(scratch)
        assert run(scratch, "download") == (1, f"stages.download: {os.strerror(errno.ENOSPC)}\n")
        assert files(scratch) == before
    finally:
        subprocess.run(["umount", data], check=True)


def test_a_full_disk_for_the_copy_of_the_artifact_is_reported(artifact, tmp_path):
    mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path)
    try:
        with pytest.raises(pin.PinError) as refusal:
            pin.copy(pin.read(artifact.path / "dvc.lock"), tmp_path / "copy")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert str(refusal.value) == (
        f"{artifact.path}/data/model cannot be copied to {tmp_path} (No space left on device); "
        "free some space there, or set TMPDIR to another folder"
    )


def test_concurrent_runs_of_a_stage_take_turns(scratch):
    before = files(scratch)
    command = [sys.executable, "-m", "stages", "download"]
    runs = [subprocess.Popen(command, cwd=scratch.path, env=ENVIRONMENT) for _ in range(4)]
    assert [process.wait() for process in runs] == [0] * 4
    assert files(scratch) == before
