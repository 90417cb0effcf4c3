"""The artifact in memory: images in, labels and probabilities out."""

from collections.abc import Callable
from pathlib import Path
from queue import LifoQueue
from typing import Any, Protocol

import numpy as np

MODEL = "mnist"  # as protocols that name a model call it
SIGNATURE = "serving_default"
# The same network for LiteRT. Loaders of a SavedModel pass over `assets.extra`.
FLATBUFFER = Path("assets.extra/model.tflite")
BATCH = 256  # most images in one call of TensorFlow; more gain nothing and cost memory


class Recognizer(Protocol):
    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recognise images.

        Args:
            images: uint8 (N, 28, 28), white ink on black; N at least 1.

        Returns:
            Labels, int64 (N,), and probabilities, float32 (N, 10).
        """


class LiteRT:
    """The artifact's flatbuffer: small, quick to start, and quick with single images."""

    def __init__(self, folder: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        interpreters = [
            Interpreter(str(folder / FLATBUFFER), num_threads=1) for _ in range(threads)
        ]
        for interpreter in interpreters:
            interpreter.allocate_tensors()
        signature = interpreters[0].get_signature_runner(SIGNATURE)
        outputs = signature.get_output_details()
        self._image = signature.get_input_details()["image"]["index"]
        self._label, self._probabilities = (
            outputs[name]["index"] for name in ("label", "probabilities")
        )
        # An interpreter has one set of tensors, so each thread takes one for itself: the one that
        # was used last, whose weights are in the processor's cache.
        self._free: LifoQueue[Any] = LifoQueue()
        for interpreter in interpreters:
            self._free.put(interpreter)

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = np.empty(len(images), np.int64)
        probabilities = np.empty((len(images), 10), np.float32)
        interpreter = self._free.get()
        try:
            # LiteRT gains nothing from batching, and a new batch size reallocates its tensors.
            for number in range(len(images)):
                interpreter.set_tensor(self._image, images[number : number + 1])
                interpreter.invoke()
                labels[number] = interpreter.get_tensor(self._label)[0]
                probabilities[number] = interpreter.get_tensor(self._probabilities)[0]
        finally:
            self._free.put(interpreter)
        return labels, probabilities


class TensorFlow:
    """The SavedModel itself."""

    def __init__(self, folder: Path, threads: int) -> None:  # any number of them may call it
        import tensorflow as tf

        self._constant = tf.constant
        self._model = tf.saved_model.load(str(folder))  # owns the variables of the signature
        self._call = self._model.signatures[SIGNATURE]

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = [
            self._call(image=self._constant(images[start : start + BATCH]))
            for start in range(0, len(images), BATCH)
        ]
        labels = np.concatenate([answer["label"].numpy() for answer in answers])
        probabilities = np.concatenate([answer["probabilities"].numpy() for answer in answers])
        return labels, probabilities


ENGINES: dict[str, Callable[[Path, int], Recognizer]] = {"litert": LiteRT, "tensorflow": TensorFlow}


def load(folder: Path, engine: str, threads: int = 1) -> Recognizer:
    """Load the artifact in `folder` and run it once, so that the first request finds it warm.

    Args:
        threads: how many threads can recognise images at the same time.
    """
    recognizer = ENGINES[engine](folder, threads)
    for _ in range(threads):
        recognizer.recognize(np.zeros((1, 28, 28), np.uint8))
    return recognizer
