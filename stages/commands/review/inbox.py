"""Read the inbox of corrections that `python -m service --feedback DIR` fills.

A correction is two files: `<label>/<sha256>.<extension>`, the picture as its sender sent it, and
`<label>/<sha256>.json`, its facts. Anybody may have sent it, so this module checks everything. It
skips what is wrong, with a sentence for each.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from service.recognition import images
from stages.common.params import Sha256
from stages.common.runner import StageError

MAX_FACTS = 4096  # bytes
MAX_PICTURE = 16 << 20  # bytes; the service accepts no more by default

Extension = Literal["png", "jpg", "bmp", "gif", "webp"]
Label = Annotated[int, Field(ge=0, le=9)]


class InboxError(Exception):
    """A correction cannot be used. The text continues a sentence that begins with its file."""


class Facts(BaseModel):
    """What the service recorded about a correction."""

    model_config = ConfigDict(frozen=True, strict=True)

    sha256: Sha256
    label: Label  # the right label, as the person says
    answered: Label | None
    confidence: Annotated[float, Field(ge=0, le=1)] | None
    version: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None
    time: AwareDatetime


@dataclass(frozen=True)
class Correction:
    facts: Facts
    picture: Path
    extension: Extension
    image: bytes | None  # the pixels that the network sees, or None if there is no digit

    def content(self) -> bytes:
        """Read the picture.

        Raises:
            InboxError: It is not readable, or not the picture of the facts.
        """
        return _read_picture(self.picture, self.facts.sha256)


def read(inbox: Path, reviewed: Container[str]) -> tuple[list[Correction], list[str]]:
    """Read the corrections, those with the lowest confidence first.

    Args:
        inbox: The folder.
        reviewed: The SHA-256 of each picture to leave out.

    Returns:
        The corrections, and a sentence for each file that is skipped.

    Raises:
        StageError: The inbox is not a folder.
    """
    if not inbox.is_dir():
        raise StageError(
            f"{inbox} is not a folder; name the one that `python -m service --feedback` fills"
        )
    problems = [
        f"{entry.name!a} is not a folder of a label from 0 to 9"
        for entry in sorted(inbox.iterdir())
        if not (_is_label(entry) or entry.name.startswith("."))
    ]
    files = [
        file
        for file in _files(inbox)
        if file.suffix == ".json" and file.name[0] != "." and file.stem not in reviewed
    ]
    corrections: dict[str, Correction] = {}
    with (
        ThreadPoolExecutor() as threads,
        tqdm(threads.map(_check, files), "reading", len(files), leave=False, disable=None) as bar,
    ):
        for found in bar:
            if isinstance(found, str):
                problems.append(found)
                continue
            same = corrections.get(found.facts.sha256, found)
            corrections[found.facts.sha256] = max(same, found, key=lambda one: one.facts.time)
    return sorted(corrections.values(), key=_confidence), problems


def clear(inbox: Path, reviewed: Container[str]) -> None:
    """Remove the reviewed corrections, so that the inbox has space for others.

    Raises:
        OSError: A file cannot be removed.
    """
    # A correction exists as long as its facts do.
    for file in sorted(_files(inbox), key=lambda file: file.suffix != ".json"):
        if file.stem in reviewed:
            file.unlink()


def _files(inbox: Path) -> Iterator[Path]:
    for folder in sorted(filter(_is_label, inbox.iterdir())):
        yield from sorted(folder.iterdir())


def _is_label(path: Path) -> bool:
    return bool(re.fullmatch("[0-9]", path.name)) and path.is_dir() and not path.is_symlink()


def _confidence(correction: Correction) -> tuple[float, str]:
    confidence = correction.facts.confidence
    return (-1.0 if confidence is None else confidence, correction.facts.sha256)


def _check(file: Path) -> Correction | str:
    """Return the correction of a file of facts, or the sentence that says why it has none."""
    try:
        return _correction(file)
    except InboxError as error:
        return f"{f'{file.parent.name}/{file.name}'!a} {error}"


def _correction(file: Path) -> Correction:
    try:
        facts = Facts.model_validate_json(_read(file, MAX_FACTS))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise InboxError(f"has no valid facts: {key!a}: {first['msg'][:200]}") from error
    if facts.sha256 != file.stem:
        raise InboxError("has the facts of another picture")
    if str(facts.label) != file.parent.name:
        raise InboxError(f"is in the folder of another label than its own, {facts.label}")
    pictures = {file.with_suffix(f".{extension}"): extension for extension in get_args(Extension)}
    picture = next(filter(os.path.lexists, pictures), None)
    if picture is None:
        raise InboxError("has no picture beside it")
    try:
        image = images.decode(_read_picture(picture, facts.sha256)).tobytes()
    except images.NoInkError:
        image = None
    except images.ImageError as error:
        raise InboxError(f"has a picture that cannot be decoded: {error}") from error
    return Correction(facts, picture, pictures[picture], image)


def _read_picture(picture: Path, sha256: str) -> bytes:
    content = _read(picture, MAX_PICTURE)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InboxError("has a picture with another SHA-256 than its name")
    return content


def _read(file: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes. Follow no link, and wait for no pipe."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InboxError("is not a regular file")
            content = stream.read(limit + 1)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InboxError("is or has a symbolic link") from error
        raise InboxError(f"cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise InboxError(f"has a file of more than {limit:,} bytes")
    return content
