import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from service.recognition.images import FORMATS, MAX_PIXELS, ImageError, decode, from_array

IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
IMAGE[[0, -1]] = IMAGE[:, [0, -1]] = 0  # a black border, as in MNIST
GRAY = Image.fromarray(IMAGE)


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@given(hnp.arrays(np.uint8, (28, 28)), st.sampled_from(["PNG", "BMP", "GIF"]))
def test_a_grayscale_image_of_28_by_28_passes_unchanged(image, kind):
    image[[0, -1]] = image[:, [0, -1]] = 0
    image[[1, 26], [1, 26]] = 255
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(image), kind)), image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_all_modes_with_the_same_gray_give_the_same_image(mode):
    picture = GRAY.convert("1").convert(mode) if mode == "1" else GRAY.convert(mode)
    expected = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(decode(encoded(picture)), expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_all_formats_give_nearly_the_same_image(kind):
    smooth = Image.radial_gradient("L").resize((28, 28))
    smooth = Image.eval(smooth, lambda gray: max(250 - gray * 10 // 7, 0))  # black at the border
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = smooth.convert("RGB") if kind == "WEBP" else smooth
    difference = decode(encoded(picture, kind, **options)).astype(int) - np.asarray(smooth)
    assert np.abs(difference).max() <= 8


def test_16_bit_pixels_are_scaled_to_8_bits():
    wide = (IMAGE.astype(np.uint16) << 8) | IMAGE
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(wide))), IMAGE)


STROKE = (13, 4, 15, 24)  # left, top, right, bottom of a 1 as in MNIST


def test_light_ink_without_a_background_gets_a_black_background():
    picture = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), STROKE)
    image = decode(encoded(picture))
    assert (image[4:24, 13:15] == 255).all()
    assert image.sum() == 40 * 255


def test_a_transparent_palette_color_becomes_black():
    picture = Image.new("P", (28, 28), 0)
    picture.putpalette([255, 255, 255, 200, 200, 200])
    picture.paste(1, STROKE)
    image = decode(encoded(picture, transparency=0))
    assert (image[4:24, 13:15] == 200).all()
    assert image.sum() == 40 * 200


def test_a_transparent_gray_becomes_black():
    picture = Image.new("L", (28, 28), 255)
    picture.paste(200, STROKE)
    assert decode(encoded(picture, transparency=255)).sum() == 40 * 200


def test_decode_uses_the_first_frame_of_an_animation():
    frames = [
        Image.fromarray(np.where(shade < IMAGE, 255, 0).astype(np.uint8)) for shade in (9, 99)
    ]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(content), np.asarray(frames[0]))


def bomb(width, height):
    """Return a PNG file of a few bytes whose header declares width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


PNG = encoded(GRAY)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "The picture is empty.", id="empty"),
        pytest.param(b"<html>", "not a picture; send one of PNG, JPEG, BMP, GIF, WEBP.", id="html"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture", id="eps"),
        pytest.param(encoded(GRAY, "TIFF"), "not a picture", id="tiff"),
        pytest.param(PNG[:200], "damaged or cut off", id="truncated"),
        pytest.param(PNG[:300] + b"\0\0\0\0" + PNG[304:], "damaged or cut off", id="damaged"),
        pytest.param(bomb(5001, 5000), "5001 x 5000 pixels; the limit is 25,000,000", id="large"),
        pytest.param(bomb(30000, 30000), "more than 25,000,000 pixels", id="bomb"),
        pytest.param(bomb(2**31 - 1, 2**31 - 1), "more than 25,000,000 pixels", id="huge"),
        pytest.param(bomb(0, 28), "not a picture", id="no width"),
    ],
)
def test_decode_rejects_an_invalid_picture_with_one_sentence(content, sentence):
    with pytest.raises(ImageError) as error:
        decode(content)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_decode_accepts_the_largest_allowed_picture():
    side = int(MAX_PIXELS**0.5)
    picture = Image.new("L", (side, side))
    picture.paste(255, (side // 2, side // 4, side // 2 + side // 10, side // 4 * 3))
    assert decode(encoded(picture)).max() == 255


dtypes = hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes()
shapes = st.tuples(st.integers(0, 3), st.just(28), st.just(28)) | hnp.array_shapes(min_dims=1)


@given(hnp.arrays(dtypes, shapes) | hnp.arrays(np.float64, shapes, elements=st.floats(0, 255)))
def test_from_array_rounds_or_rejects_any_numbers(values):
    is_valid_shape = values.shape[1:] == (28, 28) and len(values) > 0
    if is_valid_shape and all(0 <= value <= 255 for value in values.ravel().tolist()):
        image = from_array(values)
        assert image.dtype == np.uint8
        assert np.abs(image - values.astype(float)).max() <= 0.5
    else:
        with pytest.raises(ImageError):
            from_array(values)


def test_decode_emits_no_warnings(recwarn):
    """Python would keep one warning in memory for every number of pixels that a sender chooses."""
    with pytest.raises(ImageError):
        decode(bomb(10_000, 10_000))
    assert not recwarn


@given(st.binary(max_size=200))
def test_decode_accepts_or_rejects_any_bytes(content):
    decode_or_reject(content)


@given(st.sampled_from(FORMATS), st.data())
def test_decode_accepts_or_rejects_any_damaged_picture(kind, data):
    content = bytearray(encoded(GRAY, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    decode_or_reject(bytes(content[: data.draw(st.integers(0, len(content)))]))


def decode_or_reject(content):
    try:
        image = decode(content)
    except ImageError:
        return
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
