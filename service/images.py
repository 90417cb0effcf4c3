"""Untrusted bytes to an image: (28, 28) uint8, white ink on black.

The service and the pipeline's own check look at a picture through this module, and so alike.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # the only decoders of Pillow that are tried
MAX_PIXELS = 25_000_000  # of one picture; checked before its pixels are decoded
SIDE = 28


class ImageError(Exception):
    """A picture that cannot be decoded; the text is the sentence that its sender reads."""


def decode(content: bytes) -> np.ndarray:
    """Decode one picture.

    A grey picture of 28 x 28 passes unchanged. Any other becomes one: transparency is laid on
    black, 16 bits are scaled to 8, colour becomes luminance, and the size 28 x 28. Of an
    animation the first picture counts.

    Returns:
        uint8 (28, 28).

    Raises:
        ImageError: the bytes are no picture of one of `FORMATS`, are damaged or cut off, or hold
            more than `MAX_PIXELS`.
    """
    if not content:
        raise ImageError("The image is empty.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ImageError(
                    f"The image has {picture.width} x {picture.height} pixels; "
                    f"the most is {MAX_PIXELS:,} in all."
                )
            grey = _grey(picture)
    except UnidentifiedImageError as error:
        raise ImageError(f"The file is not an image; send one of {', '.join(FORMATS)}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"The image has more than {MAX_PIXELS:,} pixels.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ImageError(f"The image is damaged or cut off: {error}.") from error
    if grey.size != (SIDE, SIDE):
        grey = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(grey)


def _grey(picture: Image.Image) -> Image.Image:
    """Reduce a picture of any mode to 8-bit grey (mode L)."""
    picture.load()
    if picture.mode == "L" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I"):  # 16 bits a pixel, in one of Pillow's several forms
        wide = np.asarray(picture, np.int64)
        return Image.fromarray(((wide.clip(0, 65535) * 255 + 32767) // 65535).astype(np.uint8))
    if picture.has_transparency_data:
        ink = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", ink.size, "black"), ink)
    return picture.convert("L")
