"""Tests of how stages and commands report errors."""

import subprocess
import sys

import pytest

from tests.conftest import ENVIRONMENT, PROJECT


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
