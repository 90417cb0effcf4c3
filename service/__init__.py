"""Recognize handwritten digits over HTTP with exactly the artifact that dvc.lock pins.

python -m service            # a production server
service.create_app()         # the application, for any other WSGI server
service.load()               # the model, for any Python program
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from service.loading import LoadedModel

__version__ = "0.2.0"


def create_app(
    lock: str | Path = "dvc.lock", engine: str = "litert", allow_md5_only: bool = False
) -> "Flask":
    """Verify and load the pinned artifact, and return the WSGI application that serves it.

    TensorFlow does not survive a fork, so call this function in the worker process.

    Args:
        lock: The path of the lock file. The artifact is `data/model` in the same folder.
        engine: The inference library, `litert` or `tensorflow`.
        allow_md5_only: Whether to accept a lock file that pins no SHA-256 (see `pin.read`).

    Returns:
        The Flask application.

    Raises:
        service.recognition.pin.PinError: The lock file pins no artifact, or the files on disk
            differ from the pinned artifact.
    """
    # Import here, so that the pipeline can use service.recognition.images without Flask.
    from service.api import app
    from service.api.limits import Limits
    from service.recognition import pin
    from service.served_model import Model

    pinned = pin.read(Path(lock), allow_md5_only)
    with TemporaryDirectory(prefix="mnist-model-") as private:
        folder = Path(private) / pinned.version
        pin.copy(pinned, folder)
        return app.create(Model(folder, pinned.version, pinned.sha256, engine), Limits())


def load(
    source: str | Path = ".",
    rev: str | None = None,
    engine: str = "litert",
    threads: int = 1,
    allow_md5_only: bool = False,
) -> "LoadedModel":
    """Verify and load the artifact that a repository pins, for use in any Python program.

    A checkout that contains its artifact needs neither DVC nor git. In all other cases, DVC fetches
    the artifact into a temporary folder.

    Args:
        source: The URL or the path of a git repository, or the path of a checkout. The default is
            the current directory.
        rev: Any git revision, such as a commit or a tag of DVC's artifact registry
            (`mnist@v1.0.0`). The default is the files of the checkout, or the default branch of a
            repository.
        engine: The inference library, `litert` or `tensorflow`.
        threads: The number of threads that may recognize images at the same time; further threads
            wait.
        allow_md5_only: Whether to accept a revision that pins the artifact by MD5 only.

    Returns:
        The loaded model.

    Raises:
        service.recognition.pin.PinError: The repository or the revision cannot be read, it pins no
            artifact, or the artifact cannot be fetched or differs from the pinned one.
    """
    from service import loading

    return loading.load(source, rev, engine, threads, allow_md5_only)
