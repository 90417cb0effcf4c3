"""The service: pictures in over HTTP, digits out, from exactly the artifact that dvc.lock pins.

python -m service            # a production server
service.create_app()         # the application, for any other WSGI server
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

__version__ = "0.2.0"


def create_app(lock: str | Path = "dvc.lock", engine: str = "litert") -> "Flask":
    """Verify and load the artifact that `lock` pins; return the WSGI application over it.

    TensorFlow does not survive a fork: call this in the worker process.

    Args:
        engine: what computes, `litert` or `tensorflow`.

    Raises:
        service.recognition.pin.PinError: there is no such artifact.
    """
    # Imported here so that the pipeline can use service.recognition.images without Flask.
    from service.api import app
    from service.api.limits import Limits
    from service.recognition import pin
    from service.served_model import Model

    pinned = pin.read(Path(lock))
    with TemporaryDirectory(prefix="mnist-model-") as private:
        folder = Path(private) / pinned.version
        pin.copy(pinned, folder)
        return app.create(Model(folder, pinned.version, engine), Limits())
