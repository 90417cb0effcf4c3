"""The artifact that a worker serves, and how it comes to serve another without a pause.

The main process decides which (`service.watch`) and publishes that in a small file. Every worker
looks there each second, loads a new artifact beside the old one, and swaps between two requests.
"""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from wsgiref.types import WSGIEnvironment

import numpy as np

from service import log, prometheus, published, recognizer
from service.published import State

logger = logging.getLogger(__name__)


class Model:
    """A recognizer and the version of its artifact, which change together."""

    def __init__(self, folder: Path, version: str, engine: str) -> None:
        self._engine = engine
        self._recognizer = recognizer.load(folder, engine)
        self.version = version
        self.states = [State(version, "AVAILABLE")]
        prometheus.MODEL.labels(version).set(1)

    def recognize(
        self, images: np.ndarray, environ: WSGIEnvironment
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `recognizer.Recognizer`, and counted, as images of the request in `environ`."""
        labels, probabilities = self._recognizer.recognize(images)
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
            load = partial(recognizer.load, Path(wanted.folder), self._engine)
            loaded = await asyncio.get_running_loop().run_in_executor(None, load)
            # On the event loop, so between two requests.
            prometheus.MODEL.labels(self.version).set(0)
            prometheus.MODEL.labels(wanted.version).set(1)
            self._recognizer, self.version = loaded, wanted.version
        self.states = states
        prometheus.REFUSED.set(any(state.error for state in states))
