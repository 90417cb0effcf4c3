import os
import shutil
import sys

import pytest
import yaml

from tests.conftest import Repository


def verify(repository: Repository, status: int) -> list[str]:
    return repository.run(
        sys.executable, "-m", "stages.commands.verify", status=status
    ).splitlines()


def flip(file):
    """Change one bit, and leave no trace of it in size and times."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def outputs(repository):
    lock = yaml.safe_load((repository.path / "dvc.lock").read_text())
    return [output["path"] for stage in lock["stages"].values() for output in stage["outs"]]


def test_what_is_as_pinned_is_said_in_one_line(repository):
    (said,) = verify(repository, status=0)
    assert said.startswith("all is as dvc.lock says: ")


def test_a_flipped_bit_in_any_output_or_source_is_named(scratch):
    damaged = {"stages/common/idx.py"}
    for path in outputs(scratch):
        here = scratch.path / path
        files = [file for file in sorted(here.rglob("*")) if file.is_file()] or [here]
        for file in (files[0], files[-1]):
            damaged.add(file.relative_to(scratch.path).as_posix())
    assert len(damaged) > 20
    for name in damaged:
        flip(scratch.path / name)
    *lines, advice = verify(scratch, status=1)
    assert set(lines) == {f"{name} differs" for name in damaged}
    assert advice.startswith(f"stages.commands.verify: {len(damaged)} not as dvc.lock says")


def test_missing_and_additional_files_are_named_and_the_advice_mends_them(scratch):
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
        "data/model/variables/more does not belong there",
        "data/model/variables/variables.index is missing",
    ]
    (folder / "variables/more").unlink()
    (folder / "saved_model.pb").unlink()
    scratch.run("dvc", "checkout")
    scratch.run("git", "checkout", "data/evaluation/metrics.json")
    verify(scratch, status=0)


def test_without_the_cache_the_folder_is_named(scratch):
    shutil.rmtree(scratch.path / ".dvc/cache")
    flip(scratch.path / "data/network/network.json")
    assert verify(scratch, status=1)[0] == "data/network differs, in which file is not known"


def test_a_damaged_listing_in_the_cache_is_not_believed(scratch):
    (listing,) = [
        file
        for file in (scratch.path / ".dvc/cache/files/md5").rglob("*.dir")
        if "network.weights.h5" in file.read_text()
    ]
    listing.chmod(0o644)
    listing.write_text(listing.read_text().replace("network.json", "network.yaml"))
    verify(scratch, status=0)
    flip(scratch.path / "data/network/network.json")
    assert verify(scratch, status=1)[0] == "data/network differs, in which file is not known"


@pytest.mark.parametrize("content", [None, "", "stages: [", "stages: {png: {outs: [{path: x}]}}"])
def test_a_lock_that_cannot_be_read_is_a_sentence(scratch, content):
    lock = scratch.path / "dvc.lock"
    lock.unlink() if content is None else lock.write_text(content)
    (said,) = verify(scratch, status=1)
    assert said.startswith("stages.commands.verify: dvc.lock is not a readable dvc.lock")
