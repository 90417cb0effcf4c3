"""Cut the inputs of a job into parts, and read the pictures of a part."""

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

MAX_BYTES = 16 << 20  # the maximum size of a picture in bytes, as in a request to the service
TAR = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$", re.IGNORECASE)
PARQUET = re.compile(r"\.parquet$", re.IGNORECASE)
MAGIC = re.compile(r"[*?[]")
# Names of Parquet columns, in order of preference.
PICTURE_COLUMNS = ("image", "png", "jpg", "picture", "bytes", "content")
NAME_COLUMNS = ("path", "filename", "file_name", "file", "name")
REQUESTS = 64  # concurrent requests to a bucket, and so pictures in memory
BATCH_ROWS = 64  # rows of Parquet read at a time, and so pictures in memory
TOO_LARGE = ImageError(f"The file is too large; the limit is {MAX_BYTES:,} bytes.")
DAMAGE = (*(OSError, EOFError, zlib.error, lzma.LZMAError), tarfile.TarError, pa.ArrowException)

# The name of a picture, and its bytes or the error that prevents reading them.
Picture = tuple[str, bytes | ImageError]


@dataclass(frozen=True)
class Part:
    """The pictures that a worker recognizes and writes to one output file."""

    kind: str  # files, tar or parquet
    names: list[str]
    groups: list[int] = field(default_factory=list)  # row groups; empty if they cannot be read


def parts(inputs: Sequence[str], size: int, least: int = 1) -> Iterator[Part]:
    """Cut inputs into parts, in a fixed order. Open only the Parquet files.

    Args:
        inputs: Absolute names of files and folders, or globs.
        size: The maximum number of files in a part, and about that of rows of Parquet. A tar
            archive is one part.
        least: The number of parts for few files, so that all cores have work.

    Yields:
        The parts.

    Raises:
        BulkError: An input matches no file, or cannot be read.
    """
    names = chain.from_iterable(map(_files, inputs))
    first = list(islice(names, size * least))
    share = ceil(len(first) / least)  # equals size, unless there are fewer than size * least files
    files: list[str] = []
    for name in chain(first, names):
        if TAR.search(name):
            yield Part("tar", [name])
        elif PARQUET.search(name):
            for groups in _groups(name, size):
                yield Part("parquet", [name], groups)
        else:
            files.append(name)
            if len(files) == share:
                yield Part("files", files)
                files = []
    if files:
        yield Part("files", files)


def read_pictures(part: Part, column: str | None) -> Iterator[Picture]:
    """Read the pictures of a part, one at a time.

    Args:
        part: The part.
        column: The Parquet column that contains the pictures, or None for the first of
            `PICTURE_COLUMNS` that exists.

    Yields:
        The name of each picture, and its bytes or the error that prevents reading them.
    """
    if part.kind == "files":
        if "://" not in part.names[0]:
            for name in part.names:
                yield name, _read_file(name)
            return
        # Buckets have a high latency, so read many files at the same time.
        with ThreadPoolExecutor(REQUESTS) as executor:
            for start in range(0, len(part.names), REQUESTS):
                names = part.names[start : start + REQUESTS]
                yield from zip(names, executor.map(_read_file, names), strict=True)
    elif part.kind == "tar":
        yield from _read_tar(part.names[0])
    else:
        yield from _read_parquet(part.names[0], part.groups, column)


def _files(name: str) -> Iterator[str]:
    """Yield the names of the files that an input matches."""
    try:
        kind = storage.kind(name)
        if kind == FileType.NotFound and MAGIC.search(name):
            folder, pattern = _split(name)
            files = _matching(folder, pattern)
        elif kind == FileType.Directory:
            files = _files_under(name)
        else:
            files = iter([name] if kind != FileType.NotFound else [])
    except (OSError, ValueError) as error:
        raise BulkError(f"{name} cannot be read ({_reason(error)})") from error
    first = next(files, None)
    if first is None:
        raise BulkError(f"{name} matches no file; name existing files or folders, or a glob")
    yield first
    yield from files


def _files_under(folder: str) -> Iterator[str]:
    """Yield the names of all files under a folder.

    A folder that cannot be listed counts as a file, so that the output reports its error.
    """
    try:
        entries = storage.entries(folder)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_folder:
            yield from _files_under(entry.name)
        else:
            yield entry.name


def _split(name: str) -> tuple[str, list[str]]:
    """Split a glob into the folder before the first wildcard and the segments after that folder."""
    segments = name.split("/")
    first = next(n for n, segment in enumerate(segments) if MAGIC.search(segment))
    return "/".join(segments[:first]) or "/", segments[first:]


def _matching(folder: str, pattern: list[str]) -> Iterator[str]:
    """Yield the files in a folder that match a glob, and all files under folders that match it.

    The segment ** matches any number of folders.
    """
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
                yield from _files_under(name)
            else:
                yield name


def _groups(name: str, size: int) -> Iterator[list[int]]:
    """Yield lists of row groups of a Parquet file, each with about `size` rows."""
    try:
        system, path = storage.locate(name)
        with system.open_input_file(path) as stream:
            metadata = parquet.read_metadata(stream)
    except DAMAGE:
        yield []  # the worker that reads the part will report the error
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


def _read_file(name: str) -> bytes | ImageError:
    try:
        system, path = storage.locate(name)
        with system.open_input_file(os.fsencode(path)) as stream:
            return TOO_LARGE if stream.size() > MAX_BYTES else stream.read()
    except OSError as error:
        return ImageError(f"The file cannot be read: {_reason(error)}.")


class _Member(tarfile.TarInfo):
    """A member of an archive that raises an error if the archive is damaged.

    Python's `tarfile` takes a damaged header, and the end of a truncated file, for the end of the
    archive. Since gh-121285 this includes a truncated extended header.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _read_tar(name: str) -> Iterator[Picture]:
    """Yield the pictures of a tar archive in their order."""
    try:
        system, path = storage.locate(name)
        with (
            system.open_input_stream(path, compression=None) as raw,
            tarfile.open(fileobj=raw, mode="r|*", tarinfo=_Member) as archive,
        ):
            while (member := archive.next()) is not None:
                # As of Python 3.13, `tarfile` would keep every member in memory.
                archive.members = []  # type: ignore[attr-defined]
                hidden = os.path.basename(member.name).startswith(storage.HIDDEN)  # noqa: PTH119
                if member.isfile() and not hidden:
                    stream = archive.extractfile(member)
                    assert stream is not None  # a regular file always has content
                    content = TOO_LARGE if member.size > MAX_BYTES else stream.read()
                    yield f"{name}/{member.name}", content
    except DAMAGE as error:
        yield name, ImageError(f"The archive is damaged or cut off: {_reason(error)}.")


def _read_parquet(name: str, groups: list[int], column: str | None) -> Iterator[Picture]:
    """Yield the pictures in row groups of a Parquet file."""
    try:
        system, path = storage.locate(name)
        with (
            system.open_input_file(path) as stream,
            parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            picture_column, name_column = _columns(file.schema_arrow, column)
            columns = [picture_column] if name_column is None else [picture_column, name_column]
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            for group in groups:
                row = sum(sizes[:group])
                try:
                    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                        yield from _batch(name, row, batch, picture_column, name_column)
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
    """Return the column of the pictures, and the column of their names if there is one.

    Raises:
        ImageError: The file has no column of pictures.
    """
    candidates = PICTURE_COLUMNS if column is None else (column,)
    picture_column = next(
        (name for name in candidates if name in schema.names and _has_bytes(schema, name)), None
    )
    if picture_column is None:
        raise ImageError(
            f"it has no column of bytes named {' or '.join(candidates)}; see the option --column"
        )
    for name in NAME_COLUMNS:
        if name in schema.names and pa.types.is_string(schema.field(name).type):
            return picture_column, name
    return picture_column, None


def _has_bytes(schema: pa.Schema, name: str) -> bool:
    """Return whether a column contains bytes, either plain or in a struct as Hugging Face does."""
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _batch(
    name: str, first: int, batch: pa.RecordBatch, picture_column: str, name_column: str | None
) -> Iterator[Picture]:
    paths = batch.column(name_column).to_pylist() if name_column else [None] * len(batch)
    for number, picture in enumerate(batch.column(picture_column).to_pylist()):
        path, content = paths[number], picture
        if isinstance(picture, dict):
            path, content = path or picture.get("path"), picture["bytes"]
        content = content or b""
        yield f"{name}/{path or first + number}", TOO_LARGE if len(content) > MAX_BYTES else content


def _reason(error: Exception) -> str:
    """Return the reason of an error in one line, without the path, which the caller adds."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
