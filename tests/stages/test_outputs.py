"""Tests of atomic outputs. test_disk.py and test_kill.py test whole stages."""

from contextlib import suppress
from pathlib import Path

import pytest

from stages.common.outputs import atomic_directory, write_atomically


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("data/out")


def test_atomic_directory_replaces_the_folder_at_the_end(output):
    for text in ("old", "new"):
        with atomic_directory(output) as folder:
            assert list(folder.iterdir()) == []
            (folder / text).touch()
    assert [file.name for file in output.iterdir()] == ["new"]
    assert [file.name for file in output.parent.iterdir()] == ["out"]


def test_atomic_directory_keeps_the_folder_after_an_error(output):
    with atomic_directory(output) as folder:
        (folder / "old").touch()
    with suppress(ValueError), atomic_directory(output) as folder:
        (folder / "new").touch()
        raise ValueError
    assert [file.name for file in output.iterdir()] == ["old"]
    assert [file.name for file in output.parent.iterdir()] == ["out"]


def test_write_atomically_replaces_the_file(output):
    for content in (b"old", b"new"):
        write_atomically(output, content)
    assert output.read_bytes() == b"new"
    assert [file.name for file in output.parent.iterdir()] == ["out"]
