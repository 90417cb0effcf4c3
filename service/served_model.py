"""Serve one artifact in a worker, and switch to another without a pause.

The main process (`service.reload`) publishes the artifact to serve in a small file. Every worker
reads this file once a second, loads a new artifact while the old one still serves, and then
switches. One artifact answers a request from beginning to end.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from wsgiref.types import WSGIEnvironment

import numpy as np

from service import access_log, metrics, reload
from service.recognition import engines, figures
from service.recognition.engines import Recognizer
from service.recognition.figures import Figures
from service.reload import ModelStatus
from service.shadow import Copies

ARTIFACT = "service.artifact"  # key in a request's WSGI environ: the artifact that answers it
THREADS = 2  # threads that recognize: the event loop, and the thread for long requests

logger = logging.getLogger(__name__)


class Artifact(NamedTuple):
    """A loaded artifact."""

    version: str
    sha256: str  # the SHA-256 of its manifest; empty if it is pinned by MD5 only
    recognizer: Recognizer
    figures: Figures | None  # what the pipeline measured; another artifact may have none


class Model:
    """The artifact that this worker serves now."""

    def __init__(
        self, folder: Path, version: str, sha256: str, engine: str, copies: Copies | None = None
    ) -> None:
        """Load the first artifact.

        Args:
            folder: The folder of the SavedModel.
            version: The version, as `dvc.lock` pins it.
            sha256: The SHA-256 of the artifact's manifest, or an empty string.
            engine: The inference library, `litert` or `tensorflow`.
            copies: The queue of the images for a trial of another artifact, or None.
        """
        self._engine = engine
        self._copies = copies
        self._artifact = _load(folder, version, sha256, engine)
        self.statuses = [ModelStatus(version, "AVAILABLE", sha256=sha256)]
        _count_for(self._artifact)

    @property
    def version(self) -> str:
        """The version of the artifact that this worker serves now."""
        return self._artifact.version

    def begin(self, environ: WSGIEnvironment) -> Artifact:
        """Return the artifact for a request: the one in service when the request began."""
        return environ.setdefault(ARTIFACT, self._artifact)

    def recognize(
        self,
        images: np.ndarray,
        environ: WSGIEnvironment,
        choose: Callable[[np.ndarray], list[int]] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Recognize the images of a request, and count them.

        Args:
            images: White digits on black, uint8 (N, 28, 28).
            environ: The WSGI environ of the request.
            choose: A function from the probabilities of all images to the indices of those that
                are digits, or None if all are.

        Returns:
            The labels of the digits, int64 (M,), and the probabilities, float32 (M, 10).
        """
        artifact = self.begin(environ)
        labels, probabilities = artifact.recognizer.recognize(images)
        if choose is not None:
            chosen = choose(probabilities)
            images, labels, probabilities = images[chosen], labels[chosen], probabilities[chosen]
        metrics.observe(artifact.version, images, labels, probabilities)
        if self._copies:
            self._copies.offer(images)
        environ[access_log.IMAGES] = len(labels)
        return labels, probabilities

    async def follow(self, private: Path) -> None:
        """Serve the artifact that `reload.publish` published in a folder, and follow changes."""
        while True:
            try:
                await self._catch_up(reload.published(private))
            except Exception:
                logger.exception("Cannot load the published artifact; trying again")
            metrics.current().publish()
            await asyncio.sleep(reload.PERIOD)

    async def _catch_up(self, statuses: list[ModelStatus]) -> None:
        wanted = reload.available(statuses)
        version, sha256 = self._artifact.version, self._artifact.sha256
        if (wanted.version, wanted.sha256) != (version, sha256):
            self.statuses = [
                replace(wanted, status="LOADING"),
                ModelStatus(version, "AVAILABLE", sha256=sha256),
            ]
            folder = Path(wanted.folder)
            load = partial(_load, folder, wanted.version, wanted.sha256, self._engine)
            loaded = await asyncio.get_running_loop().run_in_executor(None, load)
            _count_for(loaded)
            self._artifact = loaded
        self.statuses = statuses
        metrics.current().refused.set(any(status.error for status in statuses))


def _load(folder: Path, version: str, sha256: str, engine: str) -> Artifact:
    recognizer = engines.load(folder, engine, THREADS)
    return Artifact(version, sha256, recognizer, figures.read(folder))


def _count_for(artifact: Artifact) -> None:
    """Let the metrics count for this artifact from now on."""
    reference = artifact.figures.distributions if artifact.figures else None
    metrics.current().serve(artifact.version, artifact.sha256, reference)
