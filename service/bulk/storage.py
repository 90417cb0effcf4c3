"""Files on this machine and in buckets, by their names: a path, or a URI such as s3://bucket/key."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import NamedTuple
from uuid import uuid4

from pyarrow import NativeFile
from pyarrow.fs import FileSelector, FileSystem, FileType

HIDDEN = "."  # how names begin that are passed over


class Entry(NamedTuple):
    name: str
    is_folder: bool


def absolute(name: str) -> str:
    """The name by which every process on every node finds it."""
    return name.rstrip("/") if "://" in name else os.path.abspath(name)  # noqa: PTH100


def locate(name: str) -> tuple[FileSystem, str]:
    """The file system that a name is of, and the path in it.

    Raises:
        ValueError, OSError: there is none, or it is not reached.
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
    system, path = locate(name)
    return system.get_file_info(path).type


def entries(folder: str) -> list[Entry]:
    """The files and folders in a folder, sorted.

    Links to folders count as files, which cannot be read: links may go round in a circle.

    Raises:
        OSError: it cannot be listed.
    """
    scheme, separator, path = folder.rpartition("://")
    if separator:
        found = locate(folder)[0].get_file_info(FileSelector(path))
        listed = [
            Entry(f"{scheme}://{info.path}", info.type == FileType.Directory)
            for info in found
            if not info.base_name.startswith(HIDDEN)
        ]
    else:
        # pyarrow follows links, and cannot list a folder with a name that is not UTF-8.
        with os.scandir(folder) as found:
            listed = [
                Entry(entry.path, entry.is_dir(follow_symlinks=False))
                for entry in found
                if not entry.name.startswith(HIDDEN)
                and (entry.is_dir() or entry.is_file() or entry.is_symlink())
            ]
    return sorted(listed)


@contextmanager
def written_whole(name: str) -> Iterator[NativeFile]:
    """Give a stream; what was written gets its name at the end, or never.

    Its name until then begins so that readers of a folder of Parquet files pass over it.
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
