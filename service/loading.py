"""Load the model in any Python program: `service.load` calls this module.

DVC and git are needed only to fetch an artifact that is not in a checkout. This module verifies
every artifact, because neither `dvc get` nor `dvc artifacts get` does.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from service.recognition import engines, pin
from service.recognition.engines import Recognizer
from service.recognition.images import ImageError, decode
from service.recognition.pin import Pin, PinError
from service.recognition.preprocessing import SIDE

LOCK = "dvc.lock"


@dataclass(frozen=True)
class LoadedModel:
    """A verified artifact that an engine has loaded. Several threads may share it."""

    version: str  # the MD5 of the artifact, 32 hexadecimal digits, as in `X-Model-Version`
    sha256: str  # the SHA-256 of the artifact's manifest
    recognizer: Recognizer

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recognize images in MNIST's form.

        Args:
            images: Images, uint8 (N, 28, 28), white ink on black.

        Returns:
            The labels, int64 (N,), and the probabilities of all labels, float32 (N, 10).

        Raises:
            ValueError: The array has another dtype or shape.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
            raise ValueError(
                f"images is {images.dtype} {images.shape}; it must be uint8 (N, {SIDE}, {SIDE})"
            )
        if not len(images):
            return np.empty(0, np.int64), np.empty((0, 10), np.float32)
        return self.recognizer.recognize(images)

    def recognize_files(self, paths: Iterable[str | Path]) -> tuple[np.ndarray, np.ndarray]:
        """Recognize picture files with one digit each, as the service does by default.

        Args:
            paths: PNG, JPEG, BMP, GIF and WebP files, of any size and color.

        Returns:
            The labels, int64 (N,), and the probabilities of all labels, float32 (N, 10), in the
            order of the files.

        Raises:
            OSError: A file cannot be read.
            service.recognition.images.ImageError: A file is not a picture, is damaged, or has too
                many pixels. The text begins with the path of the file.
            service.recognition.images.NoInkError: A picture is blank. This class is a subclass of
                ImageError, and its text begins with the path, too.
        """
        images = [_decode(Path(path)) for path in paths]
        return self.recognize(np.array(images, np.uint8).reshape(-1, SIDE, SIDE))


def load(
    source: str | Path, rev: str | None, engine: str, threads: int, allow_md5_only: bool
) -> LoadedModel:
    """Verify and load an artifact; see `service.load`."""
    with TemporaryDirectory(prefix="mnist-model-") as private:
        folder = Path(private)
        if rev is None and Path(source, pin.ARTIFACT).exists():
            pinned = pin.read(Path(source, LOCK), allow_md5_only)
            pin.copy(pinned, folder / pinned.version)
        else:
            pinned = _fetch(source, rev, folder, allow_md5_only)
        recognizer = engines.load(folder / pinned.version, engine, threads)
    return LoadedModel(pinned.version, pinned.sha256, recognizer)


def _decode(path: Path) -> np.ndarray:
    try:
        return decode(path.read_bytes())
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from error


def _fetch(source: str | Path, rev: str | None, folder: Path, allow_md5_only: bool) -> Pin:
    """Fetch an artifact with DVC, and verify it.

    Args:
        source: The URL or the path of a repository, or the path of a checkout.
        rev: A git revision. If it is None, the default branch, or the files of the checkout.
        folder: A private folder. The artifact's version becomes the name of its directory in it.
        allow_md5_only: Whether to accept a revision that pins the artifact by MD5 only.

    Returns:
        The artifact's entry in `dvc.lock` at that revision.

    Raises:
        PinError: DVC or git is missing, the repository or the revision cannot be read, no artifact
            is pinned there, or the artifact cannot be fetched or is damaged.
    """
    place = str(source) if rev is None else f"{source} at {rev}"
    try:
        from dvc.api import DVCFileSystem
    except ImportError as error:
        raise PinError(
            f"{pin.ARTIFACT} of {place} must be fetched with DVC, which is not installed; install "
            "this project's extra `pipeline`, or run `pip install 'dvc[ssh]'`"
        ) from error
    if not Path(source, ".dvc").is_dir():
        source, rev = _clone(source, rev, folder / "clone"), None
    fetched = folder / "fetched"
    with closing(DVCFileSystem(str(source), rev=rev)) as files:
        remedy = "choose another revision or repository"
        with _explained(f"{LOCK} of {place} cannot be read", remedy):
            files.get_file(LOCK, str(fetched / LOCK))
            with suppress(FileNotFoundError):
                files.get_file(pin.MANIFEST, str(fetched / pin.MANIFEST))
        try:
            pinned = pin.read(fetched / LOCK, allow_md5_only)
        except PinError as error:
            raise PinError(str(error).replace(f"{fetched}/", f"{place}: ")) from error
        remedy = f"run `dvc push {pin.ARTIFACT}` in a checkout that has it"
        with _explained(f"DVC cannot fetch {pin.ARTIFACT} {pinned.version} of {place}", remedy):
            files.get(pin.ARTIFACT, str(pinned.folder), recursive=True)
    try:
        pin.copy(pinned, folder / pinned.version)
    except PinError as error:
        reason, _, _ = str(error).replace(f"{fetched}/", f"{place}: ").partition(";")
        raise PinError(
            f"{reason}; remove the damaged files from DVC's remote or cache, and {remedy}"
        ) from error
    return pinned


def _clone(source: str | Path, rev: str | None, target: Path) -> Path:
    """Clone a git repository, and check out a revision.

    DVC can clone a repository itself, but as of DVC 3.67, it leaves the clone and its cache in the
    temporary folder.

    Args:
        source: The URL or the path of the repository.
        rev: A git revision, or None for the default branch.
        target: The folder to create.

    Returns:
        The target.

    Raises:
        PinError: git is missing, or the repository or the revision cannot be read.
    """
    with _explained(f"{source} cannot be cloned", "check the address and your access to it"):
        _git("clone", "--quiet", "--", str(source), str(target))
    if rev is not None:
        with _explained(f"{source} has no revision {rev}", "choose a branch, a tag or a commit"):
            _git("-C", str(target), "checkout", "--quiet", rev, "--")
    # By default, DVC 3.67 keeps its index of each repository in /var/tmp.
    settings = target / ".dvc/config.local"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(f"[core]\nsite_cache_dir = {target / '.dvc/tmp'}\n")
    return target


def _git(*command: str) -> None:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}  # do not ask for a password
    subprocess.run(["git", *command], env=environment, check=True, capture_output=True, text=True)


@contextmanager
def _explained(problem: str, remedy: str) -> Iterator[None]:
    """Replace any exception by a `PinError` that is one sentence."""
    try:
        yield
    except Exception as error:  # DVC and its remotes raise many types
        text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise PinError(f"{problem} ({' '.join(text.split())}); {remedy}") from error
