"""Decode untrusted bytes to an image: uint8 (28, 28), white ink on black.

The service and the pipeline decode pictures with this module, so both get the same images.
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

# As of Pillow 13, Image.open imports all plug-ins if one of the requested formats is not
# registered. These imports register the formats.
from PIL import (
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
FORMATS = tuple(plugin.format for plugin in PLUGINS)  # Pillow tries no other decoder
MAX_PIXELS = 25_000_000  # the default limit of one picture
CONTRAST_SIDE = 100  # pixels: the longer side at which the contrast of colors is compared
# A channel replaces the luma if its contrast is more than this many times as high.
MORE_CONTRAST = 2
NO_INK = "No digit was found: the picture is blank, or no stroke stands out from its background."
# The limit of one JPEG file. A photograph has a few dozen segments, and up to 256 more if its
# metadata is long. Each segment can cost as much time as decoding the whole picture once more, or
# as copying all previous metadata.
MAX_SEGMENTS = 500
SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # occasionally also matches within the data
# The start of a PNG file of 28 x 28 8-bit grayscale pixels, and the end of every PNG file.
PLAIN_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(
    ">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0
)
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# The exceptions that Pillow raises for damaged files.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


class ImageError(Exception):
    """A picture cannot be decoded; the text is the sentence that its sender reads."""

    status = 400


class NoInkError(ImageError):
    """A picture has no digit."""

    status = 422


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a picture of one digit.

    A picture in MNIST's own form (28 x 28 pixels, a light digit in place on black) passes
    unchanged. In any other picture, this function finds the digit, crops it, and scales and centers
    it as in MNIST.

    Args:
        content: The file, in one of `FORMATS`.
        max_pixels: The maximum number of pixels. It is checked before the pixels are decoded.

    Returns:
        The image, uint8 (28, 28).

    Raises:
        ImageError: The content is not a picture in one of `FORMATS`, is damaged or cut off, or has
            more than `max_pixels` pixels.
        NoInkError: The picture has no ink.
    """
    gray = decode_gray(content, max_pixels)
    try:
        return gray if preprocessing.is_mnist(gray) else preprocessing.extract_digit(gray)
    except preprocessing.BlankError as error:
        raise NoInkError(NO_INK) from error


def count_pixels(content: bytes) -> int:
    """Return the number of pixels that the header of a picture declares.

    Args:
        content: The file, in one of `FORMATS`.

    Returns:
        The number of pixels, or 0 if the header is invalid.
    """
    # Pillow takes longer to open such a file than OpenCV takes to decode it.
    if _is_plain_png(content):
        return SIDE * SIDE
    with suppress(*DAMAGE, ImageError), _opened(content) as picture:
        return picture.width * picture.height
    return 0


def from_array(pixels: np.ndarray) -> np.ndarray:
    """Convert numbers of any dtype to images.

    Args:
        pixels: Numbers (N, 28, 28) from 0 to 255, white ink on black. Fractions are rounded.

    Returns:
        The images, uint8 (N, 28, 28).

    Raises:
        ImageError: The shape is different, N is 0, or a number is not from 0 to 255.
    """
    if pixels.shape[1:] != (SIDE, SIDE) or not len(pixels):
        raise ImageError(f"The shape of image is {list(pixels.shape)}; it must be [N, 28, 28].")
    if not ((pixels >= 0) & (pixels <= 255)).all():  # NaN fails both comparisons
        raise ImageError("The pixels of image must be numbers from 0 to 255.")
    return np.rint(pixels).astype(np.uint8)


def decode_gray(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode a picture of any format and mode to grayscale.

    Returns:
        The first frame, uint8 (height, width), upright and without transparency.

    Raises:
        ImageError: The picture cannot be decoded, as in `decode`.
    """
    if not content:
        raise ImageError("The picture is empty.")
    if _is_plain_png(content):
        # OpenCV takes a fraction of Pillow's time. It rejects a file with any damage, and Pillow
        # then finds the reason.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is not None and image.shape == (SIDE, SIDE):
            return image
    try:
        with _opened(content) as picture:
            if picture.width * picture.height > max_pixels:
                raise ImageError(
                    f"The picture has {picture.width} x {picture.height} pixels; "
                    f"the limit is {max_pixels:,} in total."
                )
            return _to_gray(picture)
    except UnidentifiedImageError as error:
        raise ImageError(f"The file is not a picture; send one of {', '.join(FORMATS)}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"The picture has more than {max_pixels:,} pixels.") from error
    except DAMAGE as error:
        raise ImageError(f"The picture is damaged or cut off: {error}.") from error


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    if content.startswith(b"\xff\xd8"):
        segments = islice(SEGMENT.finditer(content), MAX_SEGMENTS + 1)
        if sum(1 for _ in segments) > MAX_SEGMENTS:
            raise ImageError(f"The JPEG file has more than {MAX_SEGMENTS} segments.")
    # Python keeps every distinct warning in memory. Some warnings of Pillow contain a number that
    # the sender chose, so a sender could fill the memory with them.
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(content), formats=FORMATS) as picture,
    ):
        yield picture


def _is_plain_png(content: bytes) -> bool:
    """Return whether a file is a PNG of 28 x 28 8-bit grayscale pixels with one chunk of pixels.

    A file with other chunks does not qualify. As of OpenCV 5.0, the decoder ignores a transparent
    gray (tRNS), and it allocates as much memory, up to 2 GiB, as the length of a chunk declares.
    """
    # The checksum of the header precedes the chunk of pixels.
    start, overhead = len(PLAIN_PNG_HEAD) + 4, 8 + 4 + len(PNG_END)
    chunk = struct.pack(">I4s", max(len(content) - start - overhead, 0), b"IDAT")
    return (
        content.startswith(PLAIN_PNG_HEAD)
        and content.startswith(chunk, start)
        and content.endswith(PNG_END)
    )


def _to_gray(picture: Image.Image) -> np.ndarray:
    """Convert a picture of any mode to 8-bit grayscale, uint8 (height, width)."""
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "L" and "transparency" not in picture.info:
        return np.asarray(picture)
    if picture.mode.startswith("I"):  # Pillow has several modes for 16 bits per pixel
        wide = np.asarray(picture).clip(0, 65535).astype(np.uint32)
        wide += 128  # in place, because the picture may be large
        wide //= 257
        return wide.astype(np.uint8)
    if picture.has_transparency_data and _is_transparent(picture):
        rgba = picture.convert("RGBA")
        gray, alpha = rgba.convert("L"), rgba.getchannel("A")
        # The opaque pixels are ink, so the background gets the opposite color.
        weights = np.asarray(alpha)
        lightness = np.einsum("ij,ij->", np.asarray(gray), weights, dtype=np.int64)
        is_light = lightness >= 127.5 * weights.sum()
        background = Image.new("L", rgba.size, "black" if is_light else "white")
        return np.asarray(Image.composite(gray, background, alpha))
    return np.asarray(_most_contrast(picture.convert("RGB")))


def _is_transparent(picture: Image.Image) -> bool:
    return picture.mode != "RGBA" or picture.getchannel("A").getextrema() != (255, 255)


def _most_contrast(picture: Image.Image) -> Image.Image:
    """Convert an RGB picture to its luma, or to one channel that has far more contrast.

    Yellow on white, or red on green, have little contrast in luma.
    """
    factor = -(-max(picture.size) // CONTRAST_SIDE)
    small = picture.reduce(factor) if factor > 1 else picture
    luma, *channels = map(_contrast, (small.convert("L"), *small.split()))
    best = max(range(3), key=channels.__getitem__)
    if channels[best] > MORE_CONTRAST * luma:
        return picture.getchannel(best)
    return picture.convert("L")


def _contrast(gray: Image.Image) -> float:
    """Return the fourth moment of the differences to the median, to the power of a quarter."""
    levels = np.asarray(gray)
    histogram = np.bincount(levels.ravel(), minlength=256)
    median = int(np.searchsorted(np.cumsum(histogram), levels.size / 2))
    moments = (np.arange(256) - median) ** 4
    return float((histogram * moments).sum() / levels.size) ** 0.25
