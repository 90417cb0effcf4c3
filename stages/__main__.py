"""Run one stage of the pipeline.

    python -m stages train

DVC runs the stages of dvc.yaml with this command.
"""

import argparse
import os
from importlib import import_module

from service.recognition import quiet
from stages.common import determinism, outputs, runner

STAGES = (
    "download",
    "png",
    "handwriting",
    "drawn_digits",
    "non_digits",
    "train",
    "evaluate",
    "pictures",
    "export",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages", description="Run one stage of the pipeline."
    )
    parser.add_argument("stage", choices=STAGES, help="the stage to run")
    stage = parser.parse_args().stage
    # Hide TensorFlow's log messages of level INFO and WARNING. Under TF_CONFIG, also hide ERROR:
    # the stage reports a lost worker itself. TensorFlow reads the variable at import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    # The stages decode pictures in several threads, so OpenCV needs no threads of its own.
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
    runner.run(f"stages.{stage}", lambda: _run(stage))


def _run(stage: str) -> None:
    # The settings take effect only if they precede the import of NumPy and TensorFlow. The inputs
    # are recorded before the stage reads them, its own code included.
    determinism.limit_instructions()
    outputs.check_before_writing(import_module("stages.common.inputs").Inputs(stage).check)
    determinism.limit_threads(import_module("stages.common.params").load().threads)
    quiet.call(f"stages.{stage}", "main")


if __name__ == "__main__":
    main()
