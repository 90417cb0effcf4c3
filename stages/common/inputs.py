"""Refuse to write outputs if an input of the stage changed while the stage ran.

DVC hashes the inputs of a stage after the run (DVC issue 11058). Without this check, an edit during
the run would make dvc.lock tie the outputs of the old code to the new code.
"""

# 10,000 objects of pathlib would take as long as all other work here:
# ruff: noqa: PTH113, PTH116, PTH123

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common import params
from stages.common.runner import StageError

PIPELINE = Path("dvc.yaml")

# The kernel sets the time of the last change (ctime), so an edit always changes the identity.
Identity = tuple[int, ...]


class Inputs:
    """The inputs that dvc.yaml lists for a stage, as they are when this object is created."""

    def __init__(self, stage: str) -> None:
        definition = params.parse(PIPELINE)["stages"][stage]
        self._paths: list[str] = definition.get("deps", [])
        self._params = _identity(str(params.FILE))
        content = params.parse(params.FILE)
        keys = [_resolved(key, content) for key in definition.get("params", [])]
        self._values = {key: _value(content, key) for key in keys}
        self._files = {file: (_identity(file), _digest(file)) for file in self._list()}

    def check(self) -> None:
        """Compare the inputs with those of the start.

        A file is read again only if its identity has changed.

        Raises:
            StageError: A file or parameter has changed, or is new or missing. The text names it.
        """
        changed = next(self._changes(), None)
        if changed:
            raise StageError(
                f"{changed} changed while the stage ran, so nothing was written; "
                "run `dvc repro` again"
            )

    def _changes(self) -> Iterator[str]:
        now = set(self._list())
        yield from sorted(now ^ self._files.keys())
        for file, (identity, digest) in self._files.items():
            if _identity(file) != identity and _digest(file) != digest:
                yield file
        if _identity(str(params.FILE)) == self._params:
            return
        content = params.parse(params.FILE)
        for key, value in self._values.items():
            if _value(content, key) != value:
                yield f"{key} in {params.FILE}"

    def _list(self) -> Iterator[str]:
        for path in self._paths:
            if os.path.isfile(path):
                yield path
            for folder, _, names in os.walk(path):
                yield from (f"{folder}/{name}" for name in names)


def _resolved(key: str, content: Any) -> str:
    """Replace `${network.kind}` and the like by their values, as DVC does."""
    return re.sub(r"\$\{([^}]*)\}", lambda match: str(_value(content, match[1])), key)


def _value(content: Any, key: str) -> Any:
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _identity(file: str) -> Identity:
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(file: str) -> bytes:
    with open(file, "rb", buffering=0) as stream:
        return hashlib.sha256(stream.read()).digest()
