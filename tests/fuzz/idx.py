"""The IDX reader must read any bytes, or raise an IdxError.

python -m tests.fuzz.idx /tmp/idx -max_total_time=600
"""

import gzip
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris
import numpy as np

from tests import fuzz

with atheris.instrument_imports(include=["stages"]):
    from stages.common import idx

NAMES = idx.FILES["testing"]
SEPARATOR = b"--"  # between the images and the labels of a split


def target(content: bytes) -> None:
    files = content.partition(SEPARATOR)[::2]
    for file in files:
        with suppress(idx.IdxError):
            array = idx.parse(file)
            assert array.dtype == np.uint8
            assert file.endswith(array.tobytes())
    for name, file in zip(NAMES, files, strict=True):
        (FOLDER / name).write_bytes(file)
    with suppress(idx.IdxError):
        images, labels = idx.load(FOLDER, "testing")
        assert images.shape == (len(labels), 28, 28)
        assert labels.max() <= 9


def seeds() -> Iterator[bytes]:
    """Yield the first images of MNIST and their labels."""
    images, labels = (
        idx.parse(gzip.decompress((fuzz.PROJECT / f"tests/mnist/{name}.gz").read_bytes()))
        for name in NAMES
    )
    for count in (1, 2, 5):
        yield _encoded(images[:count]) + SEPARATOR + _encoded(labels[:count])
    for array in (images[:0], labels[:9], images[0, :2, :3], labels[:6].reshape(1, 1, 2, 1, 3)):
        yield _encoded(array)


def _encoded(array: np.ndarray) -> bytes:
    shape = np.array(array.shape, ">u4")
    return bytes([0, 0, idx.UINT8, array.ndim]) + shape.tobytes() + array.tobytes()


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        FOLDER = Path(folder)
        fuzz.run(target, seeds())
