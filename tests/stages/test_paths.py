from pathlib import Path

import yaml

from stages.common import paths
from tests.conftest import PROJECT


def test_paths_match_the_outputs_in_dvc_yaml():
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"].values()
    outputs = set()
    for stage in stages:
        for output in (*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())):
            (path,) = output if isinstance(output, dict) else (output,)
            # Metrics and plots are single files in folders such as data/evaluation.
            outputs.add(Path(*Path(path).parts[:2]))
    named = {path for path in vars(paths).values() if isinstance(path, Path)}
    assert named == outputs | {paths.DATA}
