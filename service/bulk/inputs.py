"""From what a user names to parts, and from a part to the bytes of pictures, one after another."""

import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain, islice
from math import ceil

import pyarrow as pa
from pyarrow import parquet
from pyarrow.fs import FileType

from service.bulk import BulkError, storage
from service.recognition.images import ImageError

MAX_BYTES = 16 << 20  # of a picture: what the service takes as a request
TAR = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$", re.IGNORECASE)
PARQUET = re.compile(r"\.parquet$", re.IGNORECASE)
MAGIC = re.compile(r"[*?[]")
# Columns of Parquet that are looked for, in this order.
PICTURES = ("image", "png", "jpg", "picture", "bytes", "content")
NAMES = ("path", "filename", "file_name", "file", "name")
REQUESTS = 64  # to a bucket at a time; as many pictures are in memory
READ = 64  # rows of Parquet at a time: as many pictures are in memory
TOO_LARGE = ImageError(f"The file is too large; the most is {MAX_BYTES:,} bytes.")
DAMAGE = (*(OSError, EOFError, zlib.error, lzma.LZMAError), tarfile.TarError, pa.ArrowException)

# The name of a picture, and its bytes or why there are none.
Picture = tuple[str, bytes | ImageError]


@dataclass(frozen=True)
class Part:
    """What is read, recognised and written in one go."""

    kind: str  # files, tar or parquet
    names: list[str]
    groups: list[int] = field(default_factory=list)  # row groups; none if the file tells of none


def parts(inputs: Sequence[str], size: int, least: int = 1) -> Iterator[Part]:
    """Cut inputs into parts, in an order that is always the same. Only Parquet files are opened.

    Args:
        inputs: absolute names of files and folders, or globs of them.
        size: most files of a part, and about as many rows of Parquet. A tar archive is one part.
        least: parts to make of few files, so that all cores have some.

    Raises:
        BulkError: one of them stands for no file.
    """
    names = chain.from_iterable(map(_files, inputs))
    first = list(islice(names, size * least))
    share = ceil(len(first) / least)  # is size, unless the first are all
    pictures: list[str] = []
    for name in chain(first, names):
        if TAR.search(name):
            yield Part("tar", [name])
        elif PARQUET.search(name):
            for groups in _groups(name, size):
                yield Part("parquet", [name], groups)
        else:
            pictures.append(name)
            if len(pictures) == share:
                yield Part("files", pictures)
                pictures = []
    if pictures:
        yield Part("files", pictures)


def pictures(part: Part, column: str | None) -> Iterator[Picture]:
    """Read the pictures of a part, one at a time. What cannot be read is among them as an error.

    Args:
        column: that has the pictures in Parquet; None looks for one.
    """
    if part.kind == "files":
        if "://" not in part.names[0]:
            for name in part.names:
                yield name, _file(name)
            return
        # From a bucket one takes long to come, so many are asked for at a time.
        with ThreadPoolExecutor(REQUESTS) as pool:
            for start in range(0, len(part.names), REQUESTS):
                names = part.names[start : start + REQUESTS]
                yield from zip(names, pool.map(_file, names), strict=True)
    elif part.kind == "tar":
        yield from _members(part.names[0])
    else:
        yield from _rows(part.names[0], part.groups, column)


def _files(name: str) -> Iterator[str]:
    """The files that an input stands for."""
    try:
        found = storage.kind(name)
        if found == FileType.NotFound and MAGIC.search(name):
            folder, pattern = _split(name)
            files = _matching(folder, pattern)
        elif found == FileType.Directory:
            files = _below(name)
        else:
            files = iter([name] if found != FileType.NotFound else [])
    except (OSError, ValueError) as error:
        raise BulkError(f"{name} cannot be read ({_reason(error)})") from error
    first = next(files, None)
    if first is None:
        raise BulkError(f"{name} stands for no file; name files, folders or globs that exist")
    yield first
    yield from files


def _below(folder: str) -> Iterator[str]:
    """All files in a folder. One that cannot be listed is told of as a file that cannot be read."""
    try:
        entries = storage.entries(folder)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_folder:
            yield from _below(entry.name)
        else:
            yield entry.name


def _split(name: str) -> tuple[str, list[str]]:
    """The folder before the first wildcard, and the segments from there on."""
    segments = name.split("/")
    first = next(n for n, segment in enumerate(segments) if MAGIC.search(segment))
    return "/".join(segments[:first]) or "/", segments[first:]


def _matching(folder: str, pattern: list[str]) -> Iterator[str]:
    """The files in a folder that match a glob; of a folder that matches, all. ** is any depth."""
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        yield from _matching(folder, rest or ["*"])
    try:
        entries = storage.entries(folder)
    except OSError:
        return
    for name, is_folder in entries:
        if first == "**":
            if is_folder and rest:
                yield from _matching(name, pattern)
        elif fnmatchcase(name.rpartition("/")[2], first):
            if rest:
                if is_folder:
                    yield from _matching(name, rest)
            elif is_folder:
                yield from _below(name)
            else:
                yield name


def _groups(name: str, size: int) -> Iterator[list[int]]:
    """Row groups of a Parquet file that have about `size` rows together."""
    try:
        system, path = storage.locate(name)
        with system.open_input_file(path) as stream:
            metadata = parquet.read_metadata(stream)
    except DAMAGE:
        yield []  # the part that reads it will say why
        return
    groups: list[int] = []
    rows = 0
    for number in range(metadata.num_row_groups):
        groups.append(number)
        rows += metadata.row_group(number).num_rows
        if rows >= size:
            yield groups
            groups, rows = [], 0
    if groups:
        yield groups


def _file(name: str) -> bytes | ImageError:
    try:
        system, path = storage.locate(name)
        with system.open_input_file(os.fsencode(path)) as stream:
            return TOO_LARGE if stream.size() > MAX_BYTES else stream.read()
    except OSError as error:
        return ImageError(f"The file cannot be read: {_reason(error)}.")


class _Member(tarfile.TarInfo):
    """A member of an archive that reports a damaged header.

    For `tarfile`, a header that it cannot read, or that is cut off, ends the archive.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _members(name: str) -> Iterator[Picture]:
    """The pictures of a tar archive, as they come."""
    try:
        system, path = storage.locate(name)
        with (
            system.open_input_stream(path, compression=None) as raw,
            tarfile.open(fileobj=raw, mode="r|*", tarinfo=_Member) as archive,
        ):
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep all
                hidden = os.path.basename(member.name).startswith(storage.HIDDEN)  # noqa: PTH119
                if member.isfile() and not hidden:
                    stream = archive.extractfile(member)
                    assert stream is not None  # a regular file always has one
                    content = TOO_LARGE if member.size > MAX_BYTES else stream.read()
                    yield f"{name}/{member.name}", content
    except DAMAGE as error:
        yield name, ImageError(f"The archive is damaged or cut off: {_reason(error)}.")


def _rows(name: str, groups: list[int], column: str | None) -> Iterator[Picture]:
    """The pictures in row groups of a Parquet file."""
    try:
        system, path = storage.locate(name)
        with (
            system.open_input_file(path) as stream,
            parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            pictures, names = _columns(file.schema_arrow, column)
            wanted = [pictures] if names is None else [pictures, names]
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            for group in groups:
                row = sum(sizes[:group])
                try:
                    for batch in file.iter_batches(READ, row_groups=[group], columns=wanted):
                        yield from _batch(name, row, batch, pictures, names)
                        row += len(batch)
                except DAMAGE as error:
                    reason = _reason(error)
                    last = sum(sizes[: group + 1]) - 1
                    yield (
                        f"{name}/{row}",
                        ImageError(f"The rows {row} to {last} cannot be read: {reason}."),
                    )
    except (*DAMAGE, ImageError) as error:
        yield name, ImageError(f"The Parquet file cannot be read: {_reason(error)}.")


def _columns(schema: pa.Schema, column: str | None) -> tuple[str, str | None]:
    """Which columns have the pictures and their names."""
    wanted = PICTURES if column is None else (column,)
    pictures = next((name for name in wanted if name in schema.names and _has(schema, name)), None)
    if pictures is None:
        raise ImageError(
            f"it has no column of bytes named {' or '.join(wanted)}; see the option --column"
        )
    for name in NAMES:
        if name in schema.names and pa.types.is_string(schema.field(name).type):
            return pictures, name
    return pictures, None


def _has(schema: pa.Schema, name: str) -> bool:
    """Whether a column has bytes, as they are or in the way of Hugging Face's data sets."""
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _batch(
    name: str, first: int, batch: pa.RecordBatch, pictures: str, names: str | None
) -> Iterator[Picture]:
    said = batch.column(names).to_pylist() if names else [None] * len(batch)
    for number, picture in enumerate(batch.column(pictures).to_pylist()):
        path, content = said[number], picture
        if isinstance(picture, dict):
            path, content = path or picture.get("path"), picture["bytes"]
        content = content or b""
        yield f"{name}/{path or first + number}", TOO_LARGE if len(content) > MAX_BYTES else content


def _reason(error: Exception) -> str:
    """In one line, without the path, which is said beside it."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
