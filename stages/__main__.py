"""Run one stage of the pipeline: python -m stages train

dvc.yaml has the stages, and DVC runs each of them in this way.
"""

import argparse
import os
from importlib import import_module

from stages.common import runner

STAGES = ("download", "png", "train", "evaluate", "pictures", "export")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages", description="Run one stage.")
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args().stage
    # TensorFlow reads this when it is imported. It hides information and warnings; among many
    # workers also errors, because the stage itself reports a lost worker in one sentence.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    runner.run(f"stages.{stage}", lambda: import_module(f"stages.{stage}").main())


if __name__ == "__main__":
    main()
