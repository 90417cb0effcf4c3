import platform
import subprocess
import sys

import pytest

from stages.common import determinism
from tests.conftest import ENVIRONMENT, PROJECT


def computed_by(code, **environment):
    """Return what Python prints after the stages' settings, in an environment of the user."""
    settings = "from stages.common import determinism\ndeterminism.limit_instructions()\n"
    command = [sys.executable, "-c", settings + code]
    process = subprocess.run(
        command,
        cwd=PROJECT,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr == ""
    return process.stdout.split()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="settings of x86-64")
def test_libraries_use_no_instructions_beyond_avx2():
    features = computed_by(
        "import cv2, numpy as np\n"
        "features = np._core._multiarray_umath.__cpu_features__\n"
        "print(features['X86_V3'], features['X86_V4'], cv2.ipp.useIPP())\n",
        NPY_DISABLE_CPU_FEATURES="X86_V3",
        OPENCV_IPP="avx2",
    )
    assert features == ["True", "False", "False"]


def test_a_class_is_described_by_what_changes_the_bits(tmp_path, monkeypatch):
    processor = tmp_path / "cpuinfo"
    monkeypatch.setattr(determinism, "CPUINFO", processor)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert determinism.machine_class({"CPU"}) == "x86_64, CPU"
    processor.write_text("flags : sse avx avx2 fma avx512f")
    assert determinism.machine_class({"GPU", "CPU"}) == "x86_64, AVX2 and FMA, CPU and GPU"
