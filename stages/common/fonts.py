"""Fetch the fonts that params.yaml pins, and find the characters that a font has."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ImageFont

from stages.common.mirrors import (
    MirrorError,
    from_file,
    from_url,
    gather,
    npm_packages,
    retrying,
    try_in_order,
)
from stages.common.params import Font
from stages.common.runner import StageError

MISSING = "\U0010ffff"  # not a character, so a font draws it as it draws any missing character

# Yields the bytes of a font's file.
Reader = Callable[[Font], Iterator[bytes]]


def fetch(mirrors: list[str], wanted: list[Font], timeout: float) -> dict[str, bytes]:
    """Fetch fonts and verify their digests.

    If a mirror fails, the function keeps the fonts that it has and requests only the missing fonts
    from the next mirror.

    Args:
        mirrors: The mirrors, in the order in which to try them.
        wanted: The fonts.
        timeout: Seconds in which a mirror must deliver the next part of a file. `npm` has ten times
            as long for all packages together.

    Returns:
        The content of each font's file, by the name of the file.

    Raises:
        StageError: No mirror delivered the missing fonts.
    """
    contents: dict[str, bytes] = {}

    def attempt(mirror: str) -> None:
        missing = [font for font in wanted if font.file not in contents]
        with _reader(mirror, missing, timeout) as read:
            for font in missing:
                contents[font.file] = _verified(read, font)
        print(f"{len(contents)} fonts, the last from {mirror}", flush=True)

    try_in_order(
        mirrors,
        attempt,
        "No mirror delivered the fonts. Put a folder that contains them first in "
        "data.fonts.mirrors of params.yaml, or set it for one run: dvc exp run -S "
        "'data.fonts.mirrors=[/my/folder]'. Reasons:",
    )
    return contents


def opened(name: str, content: bytes, size: int) -> ImageFont.FreeTypeFont:
    """Open a font.

    Args:
        name: The name of the file, for the text of an error.
        content: The content of the file.
        size: The size of the letters in pixels.

    Raises:
        StageError: The content is not a font that Pillow can read.
    """
    try:
        # Raqm would shape ligatures, and some builds of Pillow do not have it.
        return ImageFont.truetype(io.BytesIO(content), size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise StageError(f"{name} is not a font that Pillow can read ({error})") from error


def present(font: ImageFont.FreeTypeFont, characters: str) -> str:
    """Return those of some characters that a font has and that are not blank."""

    def drawn(character: str) -> tuple[tuple[int, int], bytes]:
        mask = font.getmask(character)
        return mask.size, bytes(mask)

    missing = drawn(MISSING)
    return "".join(
        character
        for character in characters
        if font.getmask(character).getbbox() and drawn(character) != missing
    )


@retrying
def _verified(read: Reader, font: Font) -> bytes:
    content = gather(read(font))
    actual = hashlib.sha256(content).hexdigest()
    if actual != font.sha256:
        raise MirrorError(f"{font.file} has SHA-256 {actual}, expected {font.sha256}")
    return content


@contextmanager
def _reader(mirror: str, wanted: list[Font], timeout: float) -> Iterator[Reader]:
    if mirror.startswith(("http://", "https://")):
        url = mirror.rstrip("/")
        yield lambda font: from_url(f"{url}/{font.package}/files/{font.file}", timeout)
    elif mirror == "npm":
        # npm gives no data before it has all packages, so it gets a longer timeout.
        packages = sorted({font.package for font in wanted})
        with npm_packages(packages, 10 * timeout) as read:
            yield lambda font: read(font.file)
    else:
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise MirrorError("the folder does not exist")
        yield lambda font: from_file(folder / font.file)
