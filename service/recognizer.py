"""The artifact in memory: images in, labels and probabilities out."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from service.silence import silence

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

    def __init__(self, folder: Path) -> None:
        with silence():
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(str(folder / FLATBUFFER), num_threads=1)
            self._interpreter.allocate_tensors()
        signature = self._interpreter.get_signature_runner(SIGNATURE)
        outputs = signature.get_output_details()
        self._image = signature.get_input_details()["image"]["index"]
        self._label, self._probabilities = (
            outputs[name]["index"] for name in ("label", "probabilities")
        )
        self._lock = Lock()  # an interpreter has one set of tensors

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = np.empty(len(images), np.int64)
        probabilities = np.empty((len(images), 10), np.float32)
        # One at a time: a batch costs it as much an image, and another size a new plan.
        with self._lock:
            for number in range(len(images)):
                self._interpreter.set_tensor(self._image, images[number : number + 1])
                self._interpreter.invoke()
                labels[number] = self._interpreter.get_tensor(self._label)[0]
                probabilities[number] = self._interpreter.get_tensor(self._probabilities)[0]
        return labels, probabilities


class TensorFlow:
    """The SavedModel itself."""

    def __init__(self, folder: Path) -> None:
        from service.quiet import tf

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


ENGINES: dict[str, Callable[[Path], Recognizer]] = {"litert": LiteRT, "tensorflow": TensorFlow}


def load(folder: Path, engine: str) -> Recognizer:
    """Load the artifact in `folder` and run it once, so that the first request finds it warm."""
    recognizer = ENGINES[engine](folder)
    recognizer.recognize(np.zeros((1, 28, 28), np.uint8))
    return recognizer
