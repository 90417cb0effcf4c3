"""The fixtures of the tests of a review: a folder with the digits of the pipeline, and an inbox."""

import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.commands.review import source
from stages.common import idx
from tests.api.conftest import blank, browser, browser_errors
from tests.conftest import ENVIRONMENT, PROJECT, load_slice

__all__ = ["blank", "browser", "browser_errors"]  # fixtures for these tests, too
VERSION = "0123456789abcdef" * 2
TESTING, LABELS = load_slice("testing")
TRAINING, TRAINING_LABELS = load_slice("training")
SEMEION = slice(100, 120)  # the test images of the slice that stand for another source's


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository with the project's params.yaml and the digits of the slice.

    The test split has the first 100 test images of the slice.
    """
    path = tmp_path_factory.mktemp("review")
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=path, env=ENVIRONMENT, check=True)
    shutil.copy(PROJECT / "params.yaml", path)
    data = path / "data"
    (data / "handwriting").mkdir(parents=True)
    (data / "sources").mkdir()
    none = TRAINING[:50], TRAINING_LABELS[:50]
    idx.save(data / "idx", {"training": none, "testing": (TESTING[:100], LABELS[:100])})
    semeion = TESTING[SEMEION], LABELS[SEMEION]
    idx.save(data / "handwriting/semeion", {"training": none, "testing": semeion})
    return path


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of `template` that the test may change."""
    path = tmp_path / "project"
    shutil.copytree(template, path)
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty inbox."""
    path = tmp_path / "inbox"
    path.mkdir()
    return path


def png(number: int, side: int = 28) -> bytes:
    """Return a test image of the slice as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(TESTING[number]).resize((side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def send(inbox: Path, content: bytes, label: int, extension: str = "png", **facts: Any) -> str:
    """Write a correction as the service does, and return the SHA-256 of its picture."""
    sha256 = hashlib.sha256(content).hexdigest()
    folder = inbox / str(label)
    folder.mkdir(exist_ok=True)
    (folder / f"{sha256}.{extension}").write_bytes(content)
    values = {
        "sha256": sha256,
        "label": label,
        "answered": (label + 1) % 10,
        "confidence": 0.5,
        "version": VERSION,
        "time": "2026-11-29T09:10:11+00:00",
    }
    (folder / f"{sha256}.json").write_text(json.dumps(values | facts))
    return sha256


def numbers_of(part: str, count: int) -> list[int]:
    """Return test images of the slice that the stage would put into a part of the source."""
    found = []
    for number in range(SEMEION.stop, len(LABELS)):
        sha256 = hashlib.sha256(png(number)).hexdigest()
        share = int(hashlib.sha256(sha256.encode()).hexdigest()[:8], 16) / 2**32
        if (share < source.HELD_BACK) == (part == "testing"):
            found.append(number)
    return found[:count]
