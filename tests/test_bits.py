"""Every result of the pipeline has the recorded bits, whatever the number of cores."""

import json
import subprocess
import sys

import pytest

from stages.common import determinism
from tests.bits import RESULTS
from tests.conftest import ENVIRONMENT, PROJECT

RECORDED = determinism.recorded_class((PROJECT / "data/model_card.md").read_text())


@pytest.mark.pipeline  # it computes what the stages compute
@pytest.mark.skipif(
    determinism.machine_class({"CPU"}) != RECORDED, reason=f"this machine is not {RECORDED}"
)
def test_results_on_one_core_have_the_recorded_bits():
    """All cores computed the record. In CI, the whole pipeline must also make the same files."""
    command = ["taskset", "--cpu-list", "0", sys.executable, "-m", "tests.bits"]
    output = subprocess.run(
        command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout
    found = {line[:50].strip(): line[50:].strip() for line in output.splitlines()}
    recorded = json.loads(RESULTS.read_text())["hashes"]
    differing = [what for what in recorded if found[what] != recorded[what]]
    assert differing == []
