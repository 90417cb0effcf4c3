"""The image decoder must decode any bytes, or raise an ImageError.

python -m tests.fuzz.images /tmp/images -max_total_time=600
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import atheris
import numpy as np

from tests import fuzz

with atheris.instrument_imports(include=["service", "PIL"]):
    from PIL import Image, MpoImagePlugin  # noqa: F401  # a JPEG file may turn out to be an MPO

    from service.recognition import images, segmentation

SAMPLES = sorted(fuzz.PROJECT.glob("service/api/static/samples/*.png"))[:4]
MANY = 20  # the search for many digits takes 20 times as long, so only 1 in 20 inputs runs it
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def target(content: bytes) -> None:
    try:
        image = images.decode(content)
        assert image.shape == (28, 28)
        assert image.dtype == np.uint8
        assert image.any()
    except images.ImageError as error:
        _check(error)
    if zlib.crc32(content) % MANY:
        return
    try:
        found = segmentation.decode(content)
        assert found.images.shape == (len(found.boxes), 28, 28)
        assert found.images.dtype == np.uint8
        assert found.boxes
    except images.ImageError as error:
        _check(error)


def _check(error: images.ImageError) -> None:
    assert error.status in (400, 422)
    assert str(error)


def seeds() -> Iterator[bytes]:
    """Yield the samples of the page in every format and mode that Pillow writes."""
    for file in SAMPLES:
        gray = Image.open(file).convert("L")
        yield file.read_bytes()
        for picture in (gray, Image.eval(gray, lambda shade: 255 - shade).resize((40, 60))):
            yield from _variants(picture)


def _variants(gray: Image.Image) -> Iterator[bytes]:
    rgba = gray.convert("RGBA")
    rgba.putalpha(gray)
    wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    frames = [gray.rotate(90), gray.rotate(180)]
    files: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((gray.convert(mode), "PNG", {}) for mode in ("1", "P", "L", "LA", "RGB")),
        (gray, "PNG", {"transparency": 0, "exif": exif, "dpi": (72, 72)}),
        (gray.convert("P"), "PNG", {"transparency": 0}),
        (rgba, "PNG", {"save_all": True, "append_images": frames}),
        (wide, "PNG", {}),
        *((gray.convert(mode), "JPEG", {}) for mode in ("L", "RGB", "CMYK")),
        (gray, "JPEG", {"progressive": True, "exif": exif, "comment": "x", "dpi": (72, 72)}),
        (gray, "MPO", {"save_all": True, "append_images": frames}),
        *((gray.convert(mode), "BMP", {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        (gray, "GIF", {"comment": "x"}),
        (gray.convert("P"), "GIF", {"transparency": 0, "interlace": 1}),
        (gray, "GIF", {"save_all": True, "append_images": frames, "loop": 0}),
        (gray.convert("RGB"), "WEBP", {}),
        (rgba, "WEBP", {"lossless": True, "exif": exif}),
        (rgba, "WEBP", {"save_all": True, "append_images": frames}),
    ]
    for picture, kind, options in files:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        yield buffer.getvalue()


def mutate(content: bytes, size: int, seed: int) -> bytes:
    """Change an input, and mostly correct the checksums of a PNG file.

    The decoder refuses a PNG file with wrong checksums before it reads the content.
    """
    changed = atheris.Mutate(content, size)
    return _with_checksums(changed) if seed % 4 else changed


def _with_checksums(content: bytes) -> bytes:
    if not content.startswith(SIGNATURE):
        return content
    result, place = bytearray(SIGNATURE), len(SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunk = content[place + 4 : place + 8 + length]
        result += struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk))
        place += 12 + length
    return bytes(result)


if __name__ == "__main__":
    fuzz.run(target, seeds(), mutate=mutate)
