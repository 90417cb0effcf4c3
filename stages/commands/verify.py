"""Check every file that `dvc.lock` lists against its MD5.

    make verify

DVC treats a file as unchanged if its size and modification time match (DVC issue 9652). This
command reads every byte of the inputs and outputs of the stages. It prints one line for each file
that is missing, differs, or is not listed, and then exits with status 1. DVC's cache contains the
list of files in a folder. Without the cache, the command reports the folder instead of the file.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from service.recognition import pin
from stages.common.runner import StageError, run

LOCK = Path("dvc.lock")

Files = dict[str, str]  # the MD5 of each file of a folder, by its path in the folder


def pinned(lock: Path) -> list[tuple[str, str]]:
    """Return each path that a stage reads or writes, with its MD5, sorted by path.

    The MD5 of a folder ends in `.dir`.

    Raises:
        StageError: The lock is missing or is not a valid dvc.lock.
    """
    try:
        entries = pin.entries(lock, "deps", "outs")
        return sorted((path, entry.get("md5", "")) for path, entry in entries.items())
    except pin.PinError as error:
        raise StageError(str(error)) from error


def differences(path: Path, md5: str, listing: Files | None) -> Iterator[str]:
    """Yield a sentence for each difference between a file or folder and its recorded MD5.

    Args:
        path: The file or folder.
        md5: The recorded MD5, which ends in `.dir` for a folder.
        listing: The recorded files of the folder, if known.
    """
    if not path.exists():
        yield f"{path} is missing"
    elif not md5.endswith(".dir"):
        if _md5(path) != md5:
            yield f"{path} differs"
    else:
        files = {
            file.relative_to(path).as_posix(): _md5(file)
            for file in path.rglob("*")
            if file.is_file()
        }
        if f"{pin.directory_hash(files)}.dir" == md5:
            return
        if listing is None:
            yield f"{path} differs; DVC's cache does not list its files"
            return
        for name in sorted({*files, *listing}):
            if name not in files:
                yield f"{path / name} is missing"
            elif name not in listing:
                yield f"{path / name} is not listed"
            elif files[name] != listing[name]:
                yield f"{path / name} differs"


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _listing(repo: Repo, md5: str) -> Files | None:
    """Read the files of a folder from DVC's cache, if that list has the recorded MD5."""
    if not md5.endswith(".dir"):
        return None
    try:
        entries = json.loads(Path(repo.cache.local.oid_to_path(md5)).read_bytes())
        files = {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return files if f"{pin.directory_hash(files)}.dir" == md5 else None


def main() -> None:
    try:
        repo = Repo()
    except DvcException as error:
        raise StageError(str(error)) from error
    entries = pinned(LOCK)
    lines = [
        line for path, md5 in entries for line in differences(Path(path), md5, _listing(repo, md5))
    ]
    if lines:
        print("\n".join(lines))
        raise StageError(
            f"{len(lines)} differences from {LOCK}; if you made the changes, run `dvc repro`, "
            "otherwise remove these files and restore them with `dvc checkout` or `git checkout`"
        )
    print(f"all {len(entries)} files and folders match {LOCK}")


if __name__ == "__main__":
    run("stages.commands.verify", main)
