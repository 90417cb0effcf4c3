"""Verify that the artifact on disk is the one that `dvc.lock` pins.

The hash of a directory is the one of DVC 3: the MD5 of a JSON list of its files, each with its MD5
and its path, sorted by path. The service also uses this hash as the version of the artifact.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ARTIFACT = "data/model"  # the path in dvc.yaml, relative to dvc.lock
REMEDY = (
    f"run `dvc repro` to make it, `dvc checkout --force {ARTIFACT}` to restore it, or "
    f"`dvc pull {ARTIFACT}` to fetch it"
)


class PinError(Exception):
    """No artifact can be served; the text is one sentence with the reason and the remedy."""


@dataclass(frozen=True)
class Pin:
    """The artifact's entry in `dvc.lock`."""

    folder: Path  # the directory of the artifact
    version: str  # the MD5 of that directory, 32 hexadecimal digits


def entries(lock: Path, *kinds: str) -> dict[str, dict[str, Any]]:
    """Read the entries of `dvc.lock`, of all stages together.

    Args:
        lock: The path of `dvc.lock`.
        kinds: `deps`, `outs`, or both.

    Returns:
        The entry of each path.

    Raises:
        PinError: The file is missing or broken.
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
    """Read the artifact's entry in `dvc.lock`.

    Args:
        lock: The path of `dvc.lock`.

    Raises:
        PinError: The file is missing or broken, has no such entry, or has the format of DVC 2.
    """
    entry = entries(lock, "outs").get(ARTIFACT)
    if entry is None:
        raise PinError(f"{lock} has no entry for {ARTIFACT}; run `dvc repro`")
    version, suffix = str(entry.get("md5", ""))[:32], str(entry.get("md5", ""))[32:]
    if entry.get("hash") != "md5":
        raise PinError(
            f"{lock} pins {ARTIFACT} in DVC 2's format, expected DVC 3's with `hash: md5`; "
            "run `dvc repro` with DVC 3"
        )
    if suffix != ".dir" or not set(version) <= set("0123456789abcdef"):
        raise PinError(f"{lock} has no directory hash for {ARTIFACT}; run `dvc repro`")
    return Pin(lock.parent / ARTIFACT, version)


def copy(pinned: Pin, target: Path) -> None:
    """Copy the pinned artifact to a new directory, and verify the copy by its hash.

    The caller serves the copy. If the target is private, no other user can change the files between
    the check and their use.

    Args:
        pinned: The artifact's entry in `dvc.lock`.
        target: The directory to create.

    Raises:
        PinError: The artifact is missing, or its bytes differ from the pinned ones. The target does
            not exist then.
    """
    try:
        target.mkdir()
        version, count = _copy(pinned.folder, target)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise PinError(
            f"{pinned.folder} cannot be copied ({error.strerror}), expected the artifact "
            f"{pinned.version}; {REMEDY}"
        ) from error
    if version != pinned.version:
        shutil.rmtree(target)
        raise PinError(
            f"{pinned.folder} is not the pinned artifact: expected {pinned.version}, "
            f"found {version} ({count} files); {REMEDY}"
        )


def directory_hash(files: dict[str, str]) -> str:
    """Return DVC 3's hash of a directory, without its suffix `.dir`.

    Args:
        files: The MD5 of each file by its path in the directory, with forward slashes.

    Returns:
        The hash, 32 hexadecimal digits.
    """
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest()


def _copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy a directory and read each file once; return its hash and the number of its files."""
    files = {}
    if not source.is_dir():
        source.stat()  # raises the specific error of a missing or forbidden path
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
