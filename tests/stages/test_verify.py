import os
import re
import shutil
import sys

import pytest
import yaml

from tests.conftest import Repository

NETWORK_DIFFERS = "data/network differs; DVC's cache does not list its files"


def verify(repository: Repository, status: int) -> list[str]:
    return repository.run(
        sys.executable, "-m", "stages.commands.verify", status=status
    ).splitlines()


def flip(file):
    """Flip one bit of a file without a change of its size and times."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def outputs(repository):
    lock = yaml.safe_load((repository.path / "dvc.lock").read_text())
    return [output["path"] for stage in lock["stages"].values() for output in stage["outs"]]


def test_unchanged_files_are_reported_in_one_line(repository):
    (line,) = verify(repository, status=0)
    assert re.fullmatch(r"all \d+ files and folders match dvc\.lock", line)


def test_flipped_bit_in_any_output_or_source_is_reported(scratch):
    damaged = {"stages/common/idx.py"}
    for path in outputs(scratch):
        output = scratch.path / path
        files = [file for file in sorted(output.rglob("*")) if file.is_file()] or [output]
        for file in (files[0], files[-1]):
            damaged.add(file.relative_to(scratch.path).as_posix())
    assert len(damaged) > 20
    for name in damaged:
        flip(scratch.path / name)
    *lines, advice = verify(scratch, status=1)
    assert set(lines) == {f"{name} differs" for name in damaged}
    assert advice.startswith(f"stages.commands.verify: {len(damaged)} differences from dvc.lock")


def test_missing_and_extra_files_are_reported_and_the_remedy_restores_them(scratch):
    folder = scratch.path / "data/model"
    (folder / "variables/variables.index").unlink()
    (folder / "variables/more").touch()
    shutil.rmtree(scratch.path / "data/idx")
    (scratch.path / "data/evaluation/metrics.json").unlink()
    flip(folder / "saved_model.pb")
    assert verify(scratch, status=1)[:-1] == [
        "data/evaluation/metrics.json is missing",
        "data/idx is missing",
        "data/model/saved_model.pb differs",
        "data/model/variables/more is not listed",
        "data/model/variables/variables.index is missing",
    ]
    (folder / "variables/more").unlink()
    (folder / "saved_model.pb").unlink()
    scratch.run("dvc", "checkout")
    scratch.run("git", "checkout", "data/evaluation/metrics.json")
    verify(scratch, status=0)


def test_folder_is_reported_without_the_cache(scratch):
    shutil.rmtree(scratch.path / ".dvc/cache")
    flip(scratch.path / "data/network/network.json")
    assert verify(scratch, status=1)[0] == NETWORK_DIFFERS


def test_damaged_listing_in_the_cache_is_ignored(scratch):
    (listing,) = [
        file
        for file in (scratch.path / ".dvc/cache/files/md5").rglob("*.dir")
        if "network.weights.h5" in file.read_text()
    ]
    listing.chmod(0o644)
    listing.write_text(listing.read_text().replace("network.json", "network.yaml"))
    verify(scratch, status=0)
    flip(scratch.path / "data/network/network.json")
    assert verify(scratch, status=1)[0] == NETWORK_DIFFERS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        ("", "is not a readable dvc.lock"),
        ("stages: [", "is not a readable dvc.lock"),
    ],
)
def test_unreadable_lock_is_reported_in_one_sentence(scratch, content, reason):
    lock = scratch.path / "dvc.lock"
    lock.unlink() if content is None else lock.write_text(content)
    (sentence,) = verify(scratch, status=1)
    assert sentence.startswith(f"stages.commands.verify: dvc.lock {reason}")
