"""What every stage shares; test_disk.py and test_kill.py do the same to whole stages."""

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


def test_a_folder_takes_the_place_of_the_old_one_once_it_is_whole(output):
    for text in ("old", "new"):
        with atomic_directory(output) as folder:
            assert list(folder.iterdir()) == []
            (folder / text).touch()
    assert [file.name for file in output.iterdir()] == ["new"]
    assert [file.name for file in output.parent.iterdir()] == ["out"]


def test_after_an_error_the_folder_is_as_it_was(output):
    with atomic_directory(output) as folder:
        (folder / "old").touch()
    with suppress(ValueError), atomic_directory(output) as folder:
        (folder / "new").touch()
        raise ValueError
    assert [file.name for file in output.iterdir()] == ["old"]
    assert [file.name for file in output.parent.iterdir()] == ["out"]


def test_a_file_is_replaced(output):
    for text in ("old", "new"):
        write_atomically(output, text)
    assert output.read_text() == "new"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("StageError('it is so')", "it is so"),
        ("OSError(28, 'long text', 'file')", "file: No space left on device"),
        ("OSError('only a text')", "only a text"),
        ("KeyboardInterrupt", "interrupted; nothing was written"),
    ],
)
def test_an_error_is_one_sentence_and_status_1(tmp_path, raised, said):
    (tmp_path / "broken.py").write_text(
        f"from stages.common.runner import StageError, run\n"
        f"def main():\n    raise {raised}\nrun('broken', main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "broken"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"broken: {said}\n")
