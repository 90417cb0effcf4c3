"""Untrusted bytes to an image: (28, 28) uint8, white ink on black.

The service and the pipeline's own check look at a picture through this module, and so alike.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import cv2
import numpy as np
from PIL import (  # the plug-ins by name: to find one, Pillow would import all that it has
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from service.recognition import preprocessing
from service.recognition.preprocessing import SIDE

PLUGINS = (
    PngImagePlugin.PngImageFile,
    JpegImagePlugin.JpegImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    WebPImagePlugin.WebPImageFile,
)
FORMATS = tuple(plugin.format for plugin in PLUGINS)  # no other decoder of Pillow is tried
MAX_PIXELS = 25_000_000  # of one picture, where nothing else is said
NO_INK = "No digit was found: the picture is blank, or nothing stands out from its ground."
# Of a JPEG file: a photograph has some dozens, and 256 more where its notes are long. Each costs
# time: up to that of decoding the whole picture once more, or of copying all notes so far.
MAX_SEGMENTS = 500
SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # also in the data of one, now and then
# How a PNG file of 28 x 28 grey pixels of 8 bits begins, and how any ends.
PLAIN = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
END = b"\0\0\0\0IEND\xaeB`\x82"
# What Pillow raises.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


class ImageError(Exception):
    """A picture that cannot be decoded; the text is the sentence that its sender reads."""

    status = 400


class NoInkError(ImageError):
    """A picture without a digit."""

    status = 422


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a picture of one digit.

    One of MNIST's own kind, grey, light on dark and of 28 x 28, passes unchanged. Of any other the
    digit is found, cut out, scaled and centred as in MNIST.

    Args:
        max_pixels: of the picture; checked before they are decoded.

    Returns:
        uint8 (28, 28).

    Raises:
        ImageError: the bytes are no picture of one of `FORMATS`, are damaged or cut off, or hold
            more than `max_pixels`.
        NoInkError: there is no ink in the picture.
    """
    grey = _grey(content, max_pixels)
    try:
        return (
            preprocessing.checked(grey)
            if preprocessing.is_mnist(grey)
            else preprocessing.image_of(grey)
        )
    except preprocessing.BlankError as error:
        raise NoInkError(NO_INK) from error


def decode_many(
    content: bytes, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, list[preprocessing.Box]]:
    """Decode a picture of several digits.

    Args:
        max_pixels: as in `decode`.

    Returns:
        The digits from left to right, uint8 (N, 28, 28), and where each is in the picture.

    Raises:
        ImageError, NoInkError: as in `decode`.
    """
    try:
        return preprocessing.images_of(_grey(content, max_pixels))
    except preprocessing.BlankError as error:
        raise NoInkError(NO_INK) from error


def pixels_of(content: bytes) -> int:
    """How many a picture has, as its header says; none if that is no good."""
    if _is_plain(content):  # without a look at it by Pillow, which takes longer than to decode it
        return SIDE * SIDE
    with suppress(*DAMAGE, ImageError), _opened(content) as picture:
        return picture.width * picture.height
    return 0


def from_array(pixels: np.ndarray) -> np.ndarray:
    """Take numbers of any type for the pixels of images.

    Args:
        pixels: (N, 28, 28), 0 to 255, white ink on black; fractions are rounded.

    Returns:
        uint8 (N, 28, 28).

    Raises:
        ImageError: another shape, no image at all, or a number that is no pixel.
    """
    if pixels.shape[1:] != (SIDE, SIDE) or not len(pixels):
        raise ImageError(f"The shape of image is {list(pixels.shape)}; it must be [N, 28, 28].")
    if not ((pixels >= 0) & (pixels <= 255)).all():  # not a number is neither
        raise ImageError("The pixels of image are numbers from 0 to 255.")
    return np.rint(pixels).astype(np.uint8)


def _grey(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode a picture of any format and mode: uint8 (height, width), upright, on no transparency.

    Of an animation the first picture counts.
    """
    if not content:
        raise ImageError("The image is empty.")
    if _is_plain(content):
        # OpenCV takes a fraction of Pillow's time. It gives nothing for the least damage.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is not None and image.shape == (SIDE, SIDE):
            return image
    try:
        with _opened(content) as picture:
            if picture.width * picture.height > max_pixels:
                raise ImageError(
                    f"The image has {picture.width} x {picture.height} pixels; "
                    f"the most is {max_pixels:,} in all."
                )
            return _reduced(picture)
    except UnidentifiedImageError as error:
        raise ImageError(f"The file is not an image; send one of {', '.join(FORMATS)}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"The image has more than {max_pixels:,} pixels.") from error
    except DAMAGE as error:
        raise ImageError(f"The image is damaged or cut off: {error}.") from error


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    if content.startswith(b"\xff\xd8"):
        segments = islice(SEGMENT.finditer(content), MAX_SEGMENTS + 1)
        if sum(1 for _ in segments) > MAX_SEGMENTS:
            raise ImageError(f"The JPEG file has more than {MAX_SEGMENTS} segments.")
    # Python keeps each warning for ever, and some tell a number that the sender chose.
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(content), formats=FORMATS) as picture,
    ):
        yield picture


def _is_plain(content: bytes) -> bool:
    """Whether it is a PNG file of 28 x 28 grey pixels of 8 bits with one chunk of pixels, no other.

    OpenCV gets no other: it has no eye for a transparent grey, and takes as much memory, up to
    2 GiB, as a chunk says that it is long.
    """
    place, rest = len(PLAIN) + 4, 8 + 4 + len(END)  # a checksum comes first, then the chunk
    chunk = struct.pack(">I4s", max(len(content) - place - rest, 0), b"IDAT")
    return content.startswith(PLAIN) and content.startswith(chunk, place) and content.endswith(END)


def _reduced(picture: Image.Image) -> np.ndarray:
    """Any mode to 8-bit grey."""
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "L" and "transparency" not in picture.info:
        return np.asarray(picture)
    if picture.mode.startswith("I"):  # 16 bits a pixel, in one of Pillow's several forms
        wide = np.asarray(picture).clip(0, 65535).astype(np.uint32)
        wide += 128  # in place: the picture may be large
        wide //= 257
        return wide.astype(np.uint8)
    if picture.has_transparency_data:
        drawn = picture.convert("RGBA")
        grey, alpha = drawn.convert("L"), drawn.getchannel("A")
        # What is drawn is ink; the ground below is the opposite.
        weights = np.asarray(alpha)
        lightness = np.einsum("ij,ij->", np.asarray(grey), weights, dtype=np.int64)
        light = lightness >= 127.5 * weights.sum()
        ground = Image.new("L", drawn.size, "black" if light else "white")
        return np.asarray(Image.composite(grey, ground, alpha))
    return np.asarray(picture.convert("L"))
