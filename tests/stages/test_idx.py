import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.common.idx import IdxError, load, parse


def encode(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))


@given(arrays)
def test_what_is_encoded_is_read_back(array):
    np.testing.assert_array_equal(parse(encode(array)), array)


@given(arrays, st.data())
def test_a_file_cut_off_anywhere_is_refused(array, data):
    content = encode(array)
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(IdxError):
        parse(content[:cut])


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(content):
    with suppress(IdxError):
        assert parse(content).dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not start"),
        (b"<html>404</html>", "does not start"),
        (struct.pack(">HBBI", 0, 0x0D, 1, 1) + b"\0\0\0\0", "element type 0x0d"),
        (struct.pack(">HBB", 0, 8, 3), "cut off in its header"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"1234", "12 bytes where shape (5,) needs 13"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"123456", "14 bytes where"),
        (struct.pack(">HBB2I", 0, 8, 2, 2**32 - 1, 2**32 - 1), "needs"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 2**32 - 1, 2**32 - 1), "a shape that no array has"),
        (struct.pack(">HBB65I", 0, 8, 65, *[1] * 65) + b"1", "a shape that no array has"),
    ],
)
def test_refusals_say_why(content, reason):
    with pytest.raises(IdxError) as error:
        parse(content)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (np.zeros((2, 28, 28), np.uint8), np.zeros(3, np.uint8), "(2, 28, 28) and labels of shape"),
        (np.zeros((2, 32, 32), np.uint8), np.zeros(2, np.uint8), "expected (N, 28, 28)"),
        (np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8), "(0, 28, 28)"),
        (np.zeros((2, 28, 28), np.uint8), np.array([1, 10], np.uint8), "label 10"),
    ],
)
def test_images_and_labels_must_fit_each_other(tmp_path, images, labels, reason):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(encode(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(encode(labels))
    with pytest.raises(IdxError) as error:
        load(tmp_path, "testing")
    assert reason in str(error.value)
