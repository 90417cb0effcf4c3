"""The IDX format, and MNIST's four files in it.

Format: http://yann.lecun.com/exdb/mnist/ (bottom of the page). Two zero bytes, a type code, the
number of dimensions, each dimension as a big-endian uint32, then the elements in C order.
"""

import math
from pathlib import Path

import numpy as np

from stages.common.runner import StageError

FILES = {
    "training": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "testing": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NAMES = [name for pair in FILES.values() for name in pair]
Split = tuple[np.ndarray, np.ndarray]  # images (N, 28, 28) uint8, labels (N,) uint8

UINT8 = 8  # type code of unsigned bytes, the only one that MNIST uses


class IdxError(StageError):
    """Bytes that are not the IDX file they should be."""


def parse(data: bytes) -> np.ndarray:
    """Read the bytes of an IDX file of unsigned bytes.

    Returns:
        A read-only uint8 array of the shape that the header gives, sharing memory with `data`.

    Raises:
        IdxError: the header is not IDX's, or the length is not what the header says.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise IdxError("not an IDX file: it does not start with two zero bytes and a type")
    kind, dimensions = data[2], data[3]
    if kind != UINT8:
        raise IdxError(f"an IDX file of element type 0x{kind:02x}; only unsigned bytes (0x08) work")
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(data) < start:
        raise IdxError(f"an IDX file cut off in its header of {dimensions} dimensions")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, offset=4))
    expected = start + math.prod(shape)
    if len(data) != expected:
        raise IdxError(f"an IDX file of {len(data)} bytes where shape {shape} needs {expected}")
    try:
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    except ValueError as error:  # over 64 dimensions, or a nought and huge ones
        raise IdxError(f"an IDX file of a shape that no array has: {shape}") from error


def load(folder: Path, split: str) -> Split:
    """Read one split, `training` or `testing`, from a folder of decompressed IDX files.

    Returns:
        Images, uint8 (N, 28, 28), white ink on black, and labels, uint8 (N,), 0 to 9.

    Raises:
        IdxError: a file is not IDX, or the two do not belong together.
        OSError: a file cannot be read.
    """
    images, labels = (_parse_file(folder / name) for name in FILES[split])
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not len(labels):
        raise IdxError(
            f"{folder}: {split} images of shape {images.shape} and labels of shape {labels.shape}; "
            "expected (N, 28, 28) and (N,)"
        )
    if labels.max() > 9:
        raise IdxError(f"{folder}: {split} holds label {labels.max()}; labels are 0 to 9")
    return images, labels


def _parse_file(file: Path) -> np.ndarray:
    try:
        return parse(file.read_bytes())
    except IdxError as error:
        raise IdxError(f"{file} is {error}") from error
