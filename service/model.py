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

from service import log, prometheus, published, recognizer
from service.published import State
from service.recognizer import Recognizer

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
        self._artifact = Artifact(version, recognizer.load(folder, engine, THREADS))
        self.states = [State(version, "AVAILABLE")]
        prometheus.MODEL.labels(version).set(1)

    @property
    def version(self) -> str:
        return self._artifact.version

    def begin(self, environ: WSGIEnvironment) -> Artifact:
        """Choose what answers a request: what is served at its beginning, even if that changes."""
        return environ.setdefault(ARTIFACT, self._artifact)

    def recognize(
        self, images: np.ndarray, environ: WSGIEnvironment
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `recognizer.Recognizer`, and counted, as images of the request in `environ`."""
        labels, probabilities = self.begin(environ).recognizer.recognize(images)
        prometheus.observe(labels, probabilities)
        environ[log.IMAGES] = len(labels)
        return labels, probabilities

    async def follow(self, private: Path) -> None:
        """Serve whatever is published in a folder, for ever."""
        while True:
            try:
                await self._catch_up(published.read(private))
            except Exception:
                logger.exception("The published artifact cannot be loaded; trying again")
            await asyncio.sleep(published.PERIOD)

    async def _catch_up(self, states: list[State]) -> None:
        wanted = published.available(states)
        if wanted.version != self.version:
            self.states = [replace(wanted, state="LOADING"), State(self.version, "AVAILABLE")]
            load = partial(recognizer.load, Path(wanted.folder), self._engine, THREADS)
            loaded = await asyncio.get_running_loop().run_in_executor(None, load)
            prometheus.MODEL.labels(self.version).set(0)
            prometheus.MODEL.labels(wanted.version).set(1)
            self._artifact = Artifact(wanted.version, loaded)
        self.states = states
        prometheus.REFUSED.set(any(state.error for state in states))
