"""Hash every file that `dvc.lock` names, and say which are not as it says.

    make verify

DVC takes a file whose size and times are as before for unchanged (its issue 9652); this reads
every byte of what the stages read and wrote. It prints a line for each file that is missing,
differs, or is in a folder where it does not belong, and ends with status 1 if there is any. Which
file of a folder it is, DVC's cache knows; where that has gone, the folder is named.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from service.recognition.pin import directory_hash
from stages.common.runner import StageError, run

LOCK = Path("dvc.lock")

Files = dict[str, str]  # the MD5 of each file of a folder, by its path there


def pinned(lock: Path) -> list[tuple[str, str]]:
    """Give each path that a stage read or wrote, with its MD5.

    Raises:
        StageError: the lock cannot be read.
    """
    try:
        stages: dict[str, Any] = yaml.safe_load(lock.read_bytes())["stages"]
        entries = [
            entry
            for stage in stages.values()
            for entry in [*stage.get("deps", ()), *stage.get("outs", ())]
        ]
        return sorted({(entry["path"], entry["md5"]) for entry in entries})
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise StageError(
            f"{lock} is not a readable dvc.lock ({type(error).__name__}); restore it with "
            f"`git checkout {lock}`, or run `dvc repro`"
        ) from error


def differences(path: Path, md5: str, listing: Files | None) -> Iterator[str]:
    """Say what of a file or folder is not as it was when its MD5 was recorded.

    Args:
        listing: the files of a folder then, if known.
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
        if f"{directory_hash(files)}.dir" == md5:
            return
        if listing is None:
            yield f"{path} differs, in which file is not known"
            return
        for name in sorted({*files, *listing}):
            if name not in files:
                yield f"{path / name} is missing"
            elif name not in listing:
                yield f"{path / name} does not belong there"
            elif files[name] != listing[name]:
                yield f"{path / name} differs"


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _listing(repo: Repo, md5: str) -> Files | None:
    """Read what DVC's cache knows of a folder, if that is what the MD5 was made of."""
    if not md5.endswith(".dir"):
        return None
    try:
        entries = json.loads(Path(repo.cache.local.oid_to_path(md5)).read_bytes())
        files = {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return files if f"{directory_hash(files)}.dir" == md5 else None


def main() -> None:
    try:
        repo = Repo()
    except DvcException as error:
        raise StageError(str(error)) from error
    entries = pinned(LOCK)
    wrong = [
        line for path, md5 in entries for line in differences(Path(path), md5, _listing(repo, md5))
    ]
    if wrong:
        print("\n".join(wrong))
        raise StageError(
            f"{len(wrong)} not as {LOCK} says; run `dvc repro` if you changed it, otherwise remove "
            "it, and `dvc checkout` or `git checkout` brings it back"
        )
    print(f"all is as {LOCK} says: {len(entries)} files and folders")


if __name__ == "__main__":
    run("stages.commands.verify", main)
