import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.common.idx import IdxError, load, parse, render


def encode(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))


@given(arrays)
def test_parse_returns_the_encoded_array(array):
    np.testing.assert_array_equal(parse(encode(array)), array)


@given(arrays)
def test_render_encodes_any_array(array):
    assert render(array) == encode(array)
    assert render(np.asfortranarray(array)) == encode(array)


@given(arrays, st.data())
def test_parse_rejects_an_incomplete_file(array, data):
    content = encode(array)
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(IdxError):
        parse(content[:cut])


@given(st.binary(max_size=64))
def test_parse_returns_an_array_or_raises_for_any_bytes(content):
    with suppress(IdxError):
        assert parse(content).dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not start"),
        (b"<html>404</html>", "does not start"),
        (struct.pack(">HBBI", 0, 0x0D, 1, 1) + b"\0\0\0\0", "element type 0x0d"),
        (struct.pack(">HBB", 0, 8, 3), "an incomplete header of 3 dimensions"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"1234", "12 bytes, but shape (5,) needs 13"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"123456", "14 bytes, but"),
        (struct.pack(">HBB2I", 0, 8, 2, 2**32 - 1, 2**32 - 1), "needs"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 2**32 - 1, 2**32 - 1), "which NumPy does not"),
        (struct.pack(">HBB65I", 0, 8, 65, *[1] * 65) + b"1", "which NumPy does not"),
    ],
)
def test_parse_reports_the_reason(content, reason):
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
def test_load_rejects_images_and_labels_that_do_not_match(tmp_path, images, labels, reason):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(encode(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(encode(labels))
    with pytest.raises(IdxError) as error:
        load(tmp_path, "testing")
    assert reason in str(error.value)
