"""Access files on this machine and in buckets by name: a path, or a URI such as s3://bucket/key."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import NamedTuple
from uuid import uuid4

from pyarrow import NativeFile
from pyarrow.fs import FileSelector, FileSystem, FileType

HIDDEN = "."  # prefix of the names to skip


class Entry(NamedTuple):
    """A file or folder in a folder."""

    name: str
    is_folder: bool


def absolute(name: str) -> str:
    """Return the name that is valid in every process on every node."""
    return name.rstrip("/") if "://" in name else os.path.abspath(name)  # noqa: PTH100


def locate(name: str) -> tuple[FileSystem, str]:
    """Return the file system of a name, and the path in it.

    Raises:
        ValueError: No file system has the name's URI scheme.
        OSError: The file system cannot be reached.
    """
    scheme, separator, path = name.partition("://")
    if not separator:
        return _system("/"), name
    bucket = path.partition("/")[0]
    return _system(f"{scheme}://{bucket}"), path


@cache
def _system(root: str) -> FileSystem:
    return FileSystem.from_uri(root)[0]


def kind(name: str) -> FileType:
    """Return whether a name is a file, a folder or missing."""
    system, path = locate(name)
    return system.get_file_info(path).type


def entries(folder: str) -> list[Entry]:
    """List the files and folders in a folder, sorted by name.

    A link to a folder counts as a file that cannot be read, because links may form a loop.

    Raises:
        OSError: The folder cannot be listed.
    """
    scheme, separator, path = folder.rpartition("://")
    if separator:
        infos = locate(folder)[0].get_file_info(FileSelector(path))
        listed = [
            Entry(f"{scheme}://{info.path}", info.type == FileType.Directory)
            for info in infos
            if not info.base_name.startswith(HIDDEN)
        ]
    else:
        # pyarrow 26 follows links, and cannot list a folder that contains a name that is not UTF-8.
        with os.scandir(folder) as scan:
            listed = [
                Entry(entry.path, entry.is_dir(follow_symlinks=False))
                for entry in scan
                if not entry.name.startswith(HIDDEN)
                and (entry.is_dir() or entry.is_file() or entry.is_symlink())
            ]
    return sorted(listed)


@contextmanager
def written_whole(name: str) -> Iterator[NativeFile]:
    """Open a file to write that appears under its name only when it is complete.

    Until then, its name begins with an underscore, so that readers of a folder of Parquet files
    skip it.

    Args:
        name: The name of the file. An existing file is replaced.

    Yields:
        The stream to write to.
    """
    system, path = locate(name)
    folder, _, base = path.rpartition("/")
    partial = f"{folder}/_{base}.{uuid4().hex}"
    try:
        with system.open_output_stream(partial) as stream:
            yield stream
        system.move(partial, path)
    except BaseException:
        with suppress(OSError):
            system.delete_file(partial)
        raise
