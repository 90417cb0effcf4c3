import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.conftest import ENVIRONMENT, Repository

pytestmark = pytest.mark.slow


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(repository, tmp_path):
    """A copy of `repository`, without its cache, on a small disk of its own."""
    mount("-t", "tmpfs", "-o", "size=40m", "tmpfs", tmp_path)
    try:
        ignored = shutil.ignore_patterns("cache", ".git")
        shutil.copytree(repository.path, tmp_path / "copy", ignore=ignored)
        made = Repository(tmp_path / "copy")
        made.edit_params(lambda params: params["train"].update(epochs=1))
        yield made
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def files(repository):
    data = repository.path / "data"
    return {file: file.read_bytes() for file in data.rglob("*") if file.is_file()}


def fill(file, left):
    """Leave so many KiB of a disk free."""
    with suppress(OSError), file.open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    os.truncate(file, file.stat().st_size - left * 1024)


def run(repository, stage):
    """Run a stage by itself; return its exit status and what it wrote to standard error."""
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=repository.path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("stage", "left"),
    [
        ("download", 100),
        ("png", 300),
        ("train", 12),  # too little for the curves
        ("train", 200),  # for the weights
        ("evaluate", 20),
        ("pictures", 20),
        ("export", 200),  # for what TensorFlow writes
        ("export", 900),  # for what Python writes
    ],
)
def test_a_full_disk_is_a_sentence_and_changes_nothing(disk, stage, left):
    before = files(disk)
    fill(disk.path / "filler", left)
    status, said = run(disk, stage)
    assert status == 1
    assert said.startswith(f"stages.{stage}: ")
    assert os.strerror(errno.ENOSPC) in said
    assert said.count("\n") == 1
    assert files(disk) == before


@pytest.mark.parametrize("stage", ["download", "png", "train", "evaluate", "pictures", "export"])
def test_a_read_only_disk_is_a_sentence_and_changes_nothing(disk, stage):
    before = files(disk)
    mount("-o", "remount,ro", disk.path.parent)
    status, said = run(disk, stage)
    assert status == 1
    assert said.startswith(f"stages.{stage}: ")
    assert said.endswith(f": {os.strerror(errno.EROFS)}\n")
    assert said.count("\n") == 1
    assert files(disk) == before


def test_a_folder_that_may_not_be_written_is_found_out_before_training(scratch):
    """Root may write everywhere, but not take the place of what is immutable."""
    data = scratch.path / "data"
    done = subprocess.run(["chattr", "+i", data], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no folder can be made immutable here: {done.stderr.strip()}")
    try:
        status, said = run(scratch, "train")
    finally:
        subprocess.run(["chattr", "-i", data], check=True)
    assert status == 1
    assert said.endswith(f": {os.strerror(errno.EPERM)}\n")
    assert said.count("\n") == 1


def test_data_may_be_on_another_disk(scratch):
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


def test_two_runs_at_once_take_turns(scratch):
    before = files(scratch)
    command = [sys.executable, "-m", "stages", "download"]
    runs = [subprocess.Popen(command, cwd=scratch.path, env=ENVIRONMENT) for _ in range(4)]
    assert [one.wait() for one in runs] == [0] * 4
    assert files(scratch) == before
