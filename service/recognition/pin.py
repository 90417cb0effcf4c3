"""Verify that the artifact on disk is the one that `dvc.lock` pins.

The hash of a directory is the one of DVC 3: the MD5 of a JSON list of its files, each with its MD5
and its path, sorted by path. The service also uses this hash as the version of the artifact.

An attacker can make two directories with one MD5 (DVC issue 3069). Therefore `dvc.lock` also pins a
manifest with the SHA-256 of each file, and the artifact must match both. Git tracks the manifest.
"""

import errno
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from service.recognition import manifest

ARTIFACT = "data/model"  # the path in dvc.yaml, relative to dvc.lock
MANIFEST = "data/model.sha256"
REMEDY = (
    f"run `dvc repro` to make it, `dvc checkout --force {ARTIFACT}` to restore it, or "
    f"`dvc pull {ARTIFACT}` to fetch it"
)


class PinError(Exception):
    """No artifact can be served; the text is one sentence with the reason and the remedy."""


@dataclass(frozen=True)
class Pin:
    """The artifact's entry in `dvc.lock`, and its manifest."""

    folder: Path  # the directory of the artifact
    version: str  # the MD5 of that directory, 32 hexadecimal digits
    sha256: str  # the SHA-256 of the manifest, 64 hexadecimal digits; empty without a manifest
    files: dict[str, str] | None  # the SHA-256 of each file by its path in the directory


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


def describe(version: str, sha256: str) -> str:
    """Return how messages name an artifact.

    Args:
        version: The MD5 of the artifact.
        sha256: The SHA-256 of its manifest, or an empty string.
    """
    return f"{version} ({f'SHA-256 {sha256}' if sha256 else 'pinned by MD5 only'})"


def read(lock: Path, allow_md5_only: bool = False) -> Pin:
    """Read the artifact's entry in `dvc.lock`, and its manifest.

    Args:
        lock: The path of `dvc.lock`.
        allow_md5_only: Whether to accept a lock file that pins no manifest. A manifest that it pins
            is always checked.

    Raises:
        PinError: The lock file or the manifest is missing or broken, the lock file does not pin the
            artifact and this manifest, or it has the format of DVC 2.
    """
    outputs = entries(lock, "outs")
    entry = outputs.get(ARTIFACT)
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
    folder = lock.parent / ARTIFACT
    if MANIFEST in outputs:
        return Pin(folder, version, *_read_manifest(lock, str(outputs[MANIFEST].get("md5"))))
    if allow_md5_only:
        return Pin(folder, version, "", None)
    raise PinError(
        f"{lock} pins {ARTIFACT} by MD5 only, for which an attacker can make two folders with one "
        "hash; run `dvc repro`, or accept this with --allow-md5-only"
    )


def of_folder(folder: Path, sha256: str) -> Pin:
    """Return the pin of an artifact without a lock file.

    Args:
        folder: The directory of the artifact.
        sha256: The SHA-256 of the manifest, which the files in the directory determine.

    Raises:
        PinError: The directory cannot be read, or its files have another manifest.
    """
    try:
        md5s, sha256s = _read_files(folder)
        content = manifest.render(sha256s, ARTIFACT)
    except OSError as error:
        raise PinError(
            f"{folder} cannot be read ({error.strerror}), expected the artifact with the SHA-256 "
            f"{sha256}; name the folder of the artifact with --artifact"
        ) from error
    except UnicodeError as error:
        raise PinError(
            f"{folder} has a file whose name is not UTF-8; copy the artifact again"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise PinError(
            f"{folder} is not the pinned artifact: expected the SHA-256 {sha256}, found {found} "
            f"({len(md5s)} files); copy the artifact again, or correct --pin"
        )
    # A path with a line break could imitate another manifest. `copy` compares the parsed one.
    return Pin(folder, directory_hash(md5s), sha256, manifest.parse(content, ARTIFACT))


def _read_manifest(lock: Path, md5: str) -> tuple[str, dict[str, str]]:
    """Read the manifest with this MD5; return its SHA-256 and the SHA-256 of each file."""
    file = lock.parent / MANIFEST
    remedy = f"restore it with `git checkout {file}`, or run `dvc repro`"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PinError(f"{file} cannot be read ({error.strerror}); {remedy}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise PinError(
            f"{file} is not the pinned manifest: expected {md5}, found {found}; {remedy}"
        )
    try:
        return hashlib.sha256(content).hexdigest(), manifest.parse(content, ARTIFACT)
    except ValueError as error:
        raise PinError(f"{file} {error}; {remedy}") from error


def copy(pinned: Pin, target: Path) -> None:
    """Copy the pinned artifact to a new directory, and verify the copy by its hashes.

    The caller serves the copy. If the target is private, no other user can change the files between
    the check and their use.

    Args:
        pinned: The artifact's entry in `dvc.lock`.
        target: The directory to create.

    Raises:
        PinError: The artifact is missing, its bytes differ from the pinned ones, or the disk of the
            target is full. The target does not exist then.
    """
    try:
        target.mkdir()
        md5s, sha256s = _read_files(pinned.folder, target)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        if error.errno == errno.ENOSPC:
            raise PinError(
                f"{pinned.folder} cannot be copied to {target.parent} ({error.strerror}); free "
                "some space there, or set TMPDIR to another folder"
            ) from error
        raise PinError(
            f"{pinned.folder} cannot be copied ({error.strerror}), expected the artifact "
            f"{pinned.version}; {REMEDY}"
        ) from error
    version = directory_hash(md5s)
    difference = "" if pinned.files is None else _first_difference(pinned.files, sha256s)
    if version != pinned.version or difference:
        shutil.rmtree(target)
        found = "the same MD5" if version == pinned.version else version
        raise PinError(
            f"{pinned.folder} is not the pinned artifact: expected {pinned.version}, "
            f"found {found}{difference} ({len(md5s)} files); {REMEDY}"
        )


def _first_difference(expected: dict[str, str], found: dict[str, str]) -> str:
    """Return the rest of a sentence that names the first differing file, or an empty string."""
    for path in sorted(expected.keys() | found.keys()):
        if path not in found:
            return f", without {path}"
        if path not in expected:
            return f", with {path}, which {MANIFEST} does not list"
        if expected[path] != found[path]:
            return f", with another SHA-256 of {path}"
    return ""


def directory_hash(files: dict[str, str]) -> str:
    """Return DVC 3's hash of a directory, without its suffix `.dir`.

    Args:
        files: The MD5 of each file by its path in the directory, with forward slashes.

    Returns:
        The hash, 32 hexadecimal digits.
    """
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest()


def _read_files(source: Path, target: Path | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """Read each file of a directory once, and copy it if there is a target.

    Returns:
        The MD5 and the SHA-256 of each file by its path in the directory.
    """
    md5s, sha256s = {}, {}
    if not source.is_dir():
        source.stat()  # raises the specific error of a missing or forbidden path
        raise NotADirectoryError(20, "not a directory")
    for file in source.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            path = file.relative_to(source).as_posix()
            md5s[path] = hashlib.md5(content, usedforsecurity=False).hexdigest()
            sha256s[path] = hashlib.sha256(content).hexdigest()
            if target:
                copied = target / path
                copied.parent.mkdir(parents=True, exist_ok=True)
                copied.write_bytes(content)
    return md5s, sha256s
