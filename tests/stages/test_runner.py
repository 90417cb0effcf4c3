"""Tests of the code that all stages share. test_disk.py and test_kill.py test whole stages."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from stages.common.runner import atomic_directory, write_atomically
from tests.conftest import ENVIRONMENT, PROJECT


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


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        ("StageError('a sentence')", "a sentence"),
        ("OSError(28, 'long text', 'file')", "file: No space left on device"),
        ("OSError('only a text')", "only a text"),
        ("KeyboardInterrupt", "interrupted; the stage wrote nothing"),
    ],
)
def test_run_reports_an_error_in_one_sentence(tmp_path, raised, sentence):
    (tmp_path / "broken.py").write_text(
        f"from stages.common.runner import StageError, run\n"
        f"def main():\n    raise {raised}\nrun('broken', main)\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", "broken"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (1, "", f"broken: {sentence}\n")
