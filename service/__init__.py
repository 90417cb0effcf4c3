"""Recognize handwritten digits over HTTP with exactly the artifact that dvc.lock pins.

python -m service            # a production server
service.create_app()         # the application, for any other WSGI server
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

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
