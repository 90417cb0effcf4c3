"""The artifact that a worker serves, and how it comes to serve another without a pause.

The main process decides which (`service.watch`) and publishes that in a small file. Every worker
looks there each second, loads a new artifact beside the old one, and swaps. A request is answered
by one artifact from its beginning to its end.
"""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from wsgiref.types import WSGIEnvironment

import numpy as np

from service import access_log, metrics, reload
from service.recognition import engines
from service.recognition.engines import Recognizer
from service.reload import ModelStatus

ARTIFACT = "service.artifact"  # in the environment of a request: what answers it
THREADS = 2  # that recognise at the same time: the event loop, and the thread for long requests

logger = logging.getLogger(__name__)


class Artifact(NamedTuple):
    version: str
    recognizer: Recognizer


class Model:
    """The artifact that is served now."""

    def __init__(self, folder: Path, version: str, engine: str) -> None:
        self._engine = engine
        self._artifact = Artifact(version, engines.load(folder, engine, THREADS))
        self.statuses = [ModelStatus(version, "AVAILABLE")]
        metrics.current().model.labels(version).set(1)

    @property
    def version(self) -> str:
        return self._artifact.version

    def begin(self, environ: WSGIEnvironment) -> Artifact:
        """Choose what answers a request: what is served at its beginning, even if that changes."""
        return environ.setdefault(ARTIFACT, self._artifact)

    def recognize(
        self, images: np.ndarray, environ: WSGIEnvironment
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `engines.Recognizer`, and counted, as images of the request in `environ`."""
        labels, probabilities = self.begin(environ).recognizer.recognize(images)
        metrics.observe(labels, probabilities)
        environ[access_log.IMAGES] = len(labels)
        return labels, probabilities

    async def follow(self, private: Path) -> None:
        """Serve whatever is published in a folder, for ever."""
        while True:
            try:
                await self._catch_up(reload.published(private))
            except Exception:
                logger.exception("The published artifact cannot be loaded; trying again")
            await asyncio.sleep(reload.PERIOD)

    async def _catch_up(self, statuses: list[ModelStatus]) -> None:
        wanted = reload.available(statuses)
        if wanted.version != self.version:
            self.statuses = [
                replace(wanted, status="LOADING"),
                ModelStatus(self.version, "AVAILABLE"),
            ]
            load = partial(engines.load, Path(wanted.folder), self._engine, THREADS)
            loaded = await asyncio.get_running_loop().run_in_executor(None, load)
            metrics.current().model.labels(self.version).set(0)
            metrics.current().model.labels(wanted.version).set(1)
            self._artifact = Artifact(wanted.version, loaded)
        self.statuses = statuses
        metrics.current().refused.set(any(status.error for status in statuses))
