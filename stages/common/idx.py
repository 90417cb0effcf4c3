"""Reader and writer for the IDX format, and reader for MNIST's four IDX files.

An IDX file holds two zero bytes, a type code, the number of dimensions, each dimension as a
big-endian uint32, then the elements in C order. http://yann.lecun.com/exdb/mnist/ specifies the
format at the bottom of the page.
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
NONE: Split = np.empty((0, 28, 28), np.uint8), np.empty(0, np.uint8)  # a split without images

UINT8 = 8  # type code of unsigned bytes, the only type that MNIST uses


class IdxError(StageError):
    """The content of an IDX file is not valid."""


def parse(data: bytes) -> np.ndarray:
    """Parse the content of an IDX file of unsigned bytes.

    Args:
        data: The whole content, decompressed.

    Returns:
        A read-only uint8 array of the shape in the header. It shares memory with `data`.

    Raises:
        IdxError: The header is not a valid IDX header, or the length does not match it.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise IdxError("not an IDX file: it does not start with two zero bytes and a type")
    kind, dimensions = data[2], data[3]
    if kind != UINT8:
        raise IdxError(
            f"an IDX file of element type 0x{kind:02x}; only unsigned bytes (0x08) are supported"
        )
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(data) < start:
        raise IdxError(f"an IDX file with an incomplete header of {dimensions} dimensions")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, offset=4))
    expected = start + math.prod(shape)
    if len(data) != expected:
        raise IdxError(f"an IDX file of {len(data)} bytes, but shape {shape} needs {expected}")
    try:
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    except ValueError as error:  # over 64 dimensions, or a zero beside huge dimensions
        raise IdxError(f"an IDX file of shape {shape}, which NumPy does not support") from error


def render(array: np.ndarray) -> bytes:
    """Return the content of an IDX file; `parse` is the inverse.

    Args:
        array: A uint8 array of one or more dimensions, each shorter than 2**32.
    """
    header = bytes([0, 0, UINT8, array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def save(folder: Path, splits: dict[str, Split]) -> None:
    """Write splits as IDX files to a folder, for `load`. The folder may exist."""
    folder.mkdir(exist_ok=True)
    for split, arrays in splits.items():
        for name, array in zip(FILES[split], arrays, strict=True):
            (folder / name).write_bytes(render(array))


def load(folder: Path, split: str) -> Split:
    """Read one split from a folder of decompressed IDX files.

    Args:
        folder: The folder that holds the files.
        split: `training` or `testing`.

    Returns:
        Images, uint8 (N, 28, 28), white ink on black, and labels, uint8 (N,), 0 to 9.

    Raises:
        IdxError: A file is not valid IDX, or the images and the labels do not match.
        OSError: A file cannot be read.
    """
    images, labels = (_parse_file(folder / name) for name in FILES[split])
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not len(labels):
        raise IdxError(
            f"{folder}: the {split} split has images of shape {images.shape} and labels of shape "
            f"{labels.shape}; expected (N, 28, 28) and (N,)"
        )
    if labels.max() > 9:
        raise IdxError(
            f"{folder}: the {split} split has label {labels.max()}; expected labels 0 to 9"
        )
    return images, labels


def _parse_file(file: Path) -> np.ndarray:
    try:
        return parse(file.read_bytes())
    except IdxError as error:
        raise IdxError(f"{file} is {error}") from error
