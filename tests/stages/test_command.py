"""`python -m stages`, the command that DVC runs for each stage."""

import subprocess
import sys

import yaml

from stages.__main__ import STAGES
from tests.conftest import PROJECT


def test_stages_match_dvc_yaml():
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == list(STAGES)
    assert [stage["cmd"] for stage in stages.values()] == [
        f"python -m stages {name}" for name in STAGES
    ]


def test_unknown_stage_is_rejected():
    process = subprocess.run(
        [sys.executable, "-m", "stages", "polish"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "invalid choice: 'polish'" in process.stderr
