"""From `dvc.lock` to verified bytes: the artifact that is served is the one that is pinned.

A directory's hash is DVC 3's: the MD5 of the JSON list of its files, each with its MD5 and its
path, sorted by path. It names the artifact here too, wherever a version is shown.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ARTIFACT = "data/model"  # as dvc.yaml names it, relative to dvc.lock
REMEDY = (
    f"run `dvc repro` to make it, `dvc checkout --force {ARTIFACT}` to restore it, or "
    f"`dvc pull {ARTIFACT}` to fetch it"
)


class PinError(Exception):
    """No artifact can be served; the text is the one sentence that says why and what to run."""


@dataclass(frozen=True)
class Pin:
    """What `dvc.lock` says of the artifact."""

    folder: Path
    version: str  # the MD5 of the directory, 32 hexadecimal digits


def entries(lock: Path, *kinds: str) -> dict[str, dict[str, Any]]:
    """Read what `dvc.lock` records of the paths of all stages.

    Args:
        kinds: `deps`, `outs`, or both.

    Returns:
        The entry of each path.

    Raises:
        PinError: the lock is missing or broken.
    """
    try:
        stages = yaml.safe_load(lock.read_bytes())["stages"].values()
        return {
            entry["path"]: entry
            for stage in stages
            for kind in kinds
            for entry in stage.get(kind, ())
        }
    except FileNotFoundError:
        raise PinError(
            f"{lock} does not exist, so no artifact is pinned; run `dvc repro`"
        ) from None
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise PinError(
            f"{lock} is not a readable dvc.lock ({type(error).__name__}); restore it with "
            f"`git checkout {lock}`, or run `dvc repro`"
        ) from error


def read(lock: Path) -> Pin:
    """Find the artifact's entry in `dvc.lock`.

    Raises:
        PinError: the lock is missing or broken, has no such entry, or is of DVC 2's format.
    """
    entry = entries(lock, "outs").get(ARTIFACT)
    if entry is None:
        raise PinError(f"{lock} pins no {ARTIFACT}; run `dvc repro`")
    version, suffix = str(entry.get("md5", ""))[:32], str(entry.get("md5", ""))[32:]
    if entry.get("hash") != "md5":
        raise PinError(
            f"{lock} pins {ARTIFACT} in DVC 2's format, expected an entry with `hash: md5` as "
            "DVC 3 writes it; run `dvc repro` with DVC 3"
        )
    if suffix != ".dir" or not set(version) <= set("0123456789abcdef"):
        raise PinError(f"{lock} pins {ARTIFACT} with no directory hash; run `dvc repro`")
    return Pin(lock.parent / ARTIFACT, version)


def copy(pin: Pin, target: Path) -> None:
    """Copy the pinned artifact to a new folder, every byte of which was hashed on its way.

    Between check and use nobody can change a copy in a folder of one's own.

    Raises:
        PinError: the artifact is not there, or its bytes are not the pinned ones; there is no
            copy then.
    """
    try:
        target.mkdir()
        found, count = _copy(pin.folder, target)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise PinError(
            f"{pin.folder} cannot be copied ({error.strerror}), expected the artifact "
            f"{pin.version}; {REMEDY}"
        ) from error
    if found != pin.version:
        shutil.rmtree(target)
        raise PinError(
            f"{pin.folder} is not the pinned artifact: expected {pin.version}, found {found} "
            f"({count} files); {REMEDY}"
        )


def directory_hash(files: dict[str, str]) -> str:
    """DVC 3's hash of a directory, without its suffix `.dir`.

    Args:
        files: the MD5 of each file by its path in the directory, with forward slashes.
    """
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest()


def _copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy a folder, each file read once; return its hash and how many files it has."""
    files = {}
    if not source.is_dir():
        source.stat()  # says which: missing, or not allowed
        raise NotADirectoryError(20, "not a directory")
    for file in source.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            path = file.relative_to(source).as_posix()
            files[path] = hashlib.md5(content, usedforsecurity=False).hexdigest()
            copied = target / path
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(content)
    return directory_hash(files), len(files)
