"""The same bytes on all machines of one class.

A floating-point result depends on the order of the operations and on their precision. Libraries
choose both by the processor: they use AVX-512 where there is AVX-512, and split sums by the number
of cores and by the sizes of the caches. The pipeline fixes these choices.

Processors of one class then write the same bytes. The class is the instruction set and the kind of
device.
"""

import os
import platform
import re
from pathlib import Path

# Libraries read these variables when Python imports them. The values limit processors to AVX2 and
# FMA. A user's own values must not change the outputs, so they are overwritten.
ENVIRONMENT = {
    # oneDNN adds up a convolution in one order. Eigen, which is the default without AVX-512, splits
    # it by the sizes of the caches, and adds in another order at the edges.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENCV_IPP": "disabled",  # Intel's library of image operations, which chooses by itself
    "OPENCV_LOG_LEVEL": "ERROR",  # OpenCV warns about the line above
}
# OpenCV warns if the processor does not have AVX-512 anyway.
ENVIRONMENT_AVX512 = {"OPENCV_CPU_DISABLE": "AVX512-SKX"}

MACHINE = "machine.txt"  # the file in data/network with the class of the machine that trained
CPUINFO = Path("/proc/cpuinfo")


def limit_instructions() -> None:
    """Make the libraries compute the same on all processors of one class.

    Call this function before NumPy, OpenCV or TensorFlow is imported.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.update(ENVIRONMENT)
        if "avx512f" in _processor_features():
            os.environ.update(ENVIRONMENT_AVX512)


def limit_threads(threads: int) -> None:
    """Let `threads` threads share one operation of TensorFlow, whatever the number of cores.

    Each thread sums its own part, so another number gives other rounding errors. Call this function
    before TensorFlow is imported.
    """
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)


def machine_class(devices: set[str]) -> str:
    """Describe the class of this machine.

    Args:
        devices: The kinds of TensorFlow's devices, such as `CPU` and `GPU`.

    Returns:
        For example `x86_64, AVX2 and FMA, CPU`.
    """
    parts = [platform.machine()]
    if {"avx2", "fma"} <= _processor_features():
        parts.append("AVX2 and FMA")
    return ", ".join([*parts, " and ".join(sorted(devices))])


def recorded_class(card: str) -> str:
    """Return the class of machine that a model card names, or an empty string."""
    match = re.search(r"^Trained on: (.+)$", card, re.MULTILINE)
    return match[1] if match else ""


def _processor_features() -> set[str]:
    """Return the words of /proc/cpuinfo, or none without that file."""
    return set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()
