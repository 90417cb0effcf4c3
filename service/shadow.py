"""Try a new artifact in the shadow of the one in service, before it takes over (`--shadow`).

During a trial, one more process recognizes copies of live images with both artifacts and compares
the answers. It has the lowest priority, so it runs in idle time. The workers send it a copy only
when it asks for one, and never wait for it.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from service import metrics, supervisor
from service.recognition import engines
from service.recognition.engines import Recognizer
from service.recognition.pin import PinError
from service.recognition.preprocessing import SIDE

LOWEST = 19  # priority of a process
CHECK = 1  # seconds after which a trial without images looks whether the service still runs


@dataclass(frozen=True)
class Comparison:
    """How two artifacts answered the same images: the one in service first, then the new one."""

    images: int
    disagreements: int  # images for which their labels differ
    confidence: tuple[float, float]  # mean probability of the predicted label
    seconds: tuple[float, float]  # median time for an image

    def __str__(self) -> str:
        (old, new), (before, now) = self.confidence, self.seconds
        return (
            f"another label for {self.disagreements:,} of {self.images:,} images "
            f"({self.disagreements / self.images:.2%}), a mean confidence of {new:.2%} instead of "
            f"{old:.2%}, and a median of {now * 1000:.3f} ms instead of {before * 1000:.3f} ms"
        )


@dataclass(frozen=True)
class Bounds:
    """How many images a trial has, and how far the new artifact may differ from the other."""

    images: int
    max_disagreement: float  # fraction of the images with another label
    max_confidence_loss: float  # of the mean confidence
    max_slowdown: float  # ratio of the median seconds

    def exceeded(self, found: Comparison) -> list[str]:
        """Return the options whose value the new artifact exceeds."""
        values = {
            "--shadow-max-disagreement": found.disagreements / found.images,
            "--shadow-max-confidence-loss": found.confidence[0] - found.confidence[1],
            "--shadow-max-slowdown": found.seconds[1] / found.seconds[0],
        }
        most = (self.max_disagreement, self.max_confidence_loss, self.max_slowdown)
        return [
            f"{option} {bound}"
            for (option, value), bound in zip(values.items(), most, strict=True)
            if not value <= bound  # a damaged network may have a confidence that is not a number
        ]


class Copies:
    """A queue of images. Create it before the fork of the processes that share it."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self.wanted = supervisor.Flag()

    def offer(self, images: np.ndarray) -> None:
        """Put copies of images into the queue if a trial wants one, as many as it has room for.

        Args:
            images: The images that the network received, uint8 (N, 28, 28).
        """
        if self.wanted.is_on():
            with suppress(OSError):  # the queue is full
                for image in images:
                    self._sender.send(image.tobytes())

    def empty(self) -> None:
        """Remove the images that the trial before has left."""
        self._receiver.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._receiver.recv(SIDE * SIDE)
        self._receiver.settimeout(CHECK)

    def take(self) -> np.ndarray:
        """Ask the workers for an image, and wait for it.

        Returns:
            The image, uint8 (1, 28, 28).

        Raises:
            TimeoutError: There was none for `CHECK` seconds.
        """
        self.wanted.turn_on()
        try:
            content = self._receiver.recv(SIDE * SIDE)
        finally:
            self.wanted.turn_off()  # else, the workers would try in vain to add to a full queue
        return np.frombuffer(content, np.uint8).reshape(1, SIDE, SIDE)


class Answer(NamedTuple):
    """What an artifact gave for an image."""

    label: int
    confidence: float  # the probability of the label
    seconds: float


class Artifact(NamedTuple):
    """A verified artifact."""

    version: str
    folder: Path


class Trial:
    """One trial, in a process of its own."""

    def __init__(
        self, copies: Copies, bounds: Bounds, engine: str, served: Artifact, new: Artifact
    ) -> None:
        """Start the trial.

        Args:
            copies: The queue that the workers fill.
            bounds: What the trial demands of the new artifact.
            engine: The inference library, `litert` or `tensorflow`.
            served: The artifact in service.
            new: The new artifact.
        """
        self._copies, self._bounds = copies, bounds
        self._new = f"the pinned artifact {new.version}"
        self._result, sender = Pipe(duplex=False)
        self.process = supervisor.start(
            _compare, copies, bounds.images, engine, (served, new), sender, os.getpid()
        )
        sender.close()

    def result(self, seconds: float) -> Comparison | None:
        """Wait some seconds for the end of the trial.

        Returns:
            The comparison, or None if the trial goes on.

        Raises:
            PinError: The new artifact exceeds the bounds, or the process has ended early.
        """
        if not self._result.poll(seconds):
            return None
        try:
            found = self._result.recv()
        except EOFError:
            raise PinError(
                f"{self._new} failed with live images; make another with `dvc repro`"
            ) from None
        if exceeded := self._bounds.exceeded(found):
            raise PinError(
                f"{self._new} exceeds {' and '.join(exceeded)}: it gave {found}; make another with "
                "`dvc repro`, or allow more"
            )
        return found

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self._copies.wanted.turn_off()  # only now, because the process turns it on
        self._result.close()


def _compare(
    copies: Copies,
    count: int,
    engine: str,
    artifacts: tuple[Artifact, Artifact],
    result: Connection,
    parent: int,
) -> None:
    """Recognize images with both artifacts, and send the `Comparison`."""
    os.nice(LOWEST)
    recognizers = [engines.load(each.folder, engine) for each in artifacts]
    counted = metrics.Shadow([each.version for each in artifacts])
    answers = np.empty((count, 2, 3))  # an `Answer` of each artifact to each image
    done = 0
    copies.empty()
    while done < count:
        try:
            image = copies.take()
        except TimeoutError:
            if os.getppid() != parent:  # the service was killed
                return
            continue
        # The second of the two finds the image in the processor's cache, so they take turns.
        order = 1 if done % 2 else -1
        pair = [_answer(recognizer, image) for recognizer in recognizers[::order]][::order]
        answers[done] = pair
        done += 1
        labels, confidences, seconds = zip(*pair, strict=True)
        counted.add(labels[0] != labels[1], confidences, seconds)
    result.send(_comparison(answers))


def _comparison(answers: np.ndarray) -> Comparison:
    labels, confidences, seconds = answers.transpose(2, 0, 1)
    return Comparison(
        images=len(answers),
        disagreements=int((labels[:, 0] != labels[:, 1]).sum()),
        confidence=tuple(confidences.mean(0).tolist()),
        seconds=tuple(np.median(seconds, 0).tolist()),
    )


def _answer(recognizer: Recognizer, image: np.ndarray) -> Answer:
    start = perf_counter()
    [label], [probabilities] = recognizer.recognize(image)
    return Answer(int(label), float(probabilities[label]), perf_counter() - start)
