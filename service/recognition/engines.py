"""Load the artifact and run it: images in, labels and probabilities out."""

from collections.abc import Callable
from pathlib import Path
from queue import LifoQueue
from typing import Any, Protocol

import numpy as np

from service.recognition.quiet import hidden_standard_error

MODEL = "mnist"  # the name of the model in protocols that need one
SIGNATURE = "serving_default"
# The same network for LiteRT. Loaders of a SavedModel ignore `assets.extra`.
FLATBUFFER = Path("assets.extra/model.tflite")
BATCH = 256  # images per call of TensorFlow; larger batches are no faster and cost memory


class Recognizer(Protocol):
    """An engine that has loaded the artifact."""

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recognize images.

        Args:
            images: Images, uint8 (N, 28, 28), white ink on black; N is at least 1.

        Returns:
            The labels, int64 (N,), and the probabilities of all labels, float32 (N, 10).
        """


class LiteRT:
    """The artifact's flatbuffer in LiteRT: small, and fast to start and with single images."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the artifact in `folder` for up to `threads` concurrent calls."""
        from ai_edge_litert.interpreter import Interpreter

        file = str(folder / FLATBUFFER)
        # LiteRT 2.3 logs a line about its delegate in each process that loads a model, and has no
        # setting for its log in Python.
        with hidden_standard_error():
            interpreters = [Interpreter(file, num_threads=1) for _ in range(threads)]
            for interpreter in interpreters:
                interpreter.allocate_tensors()
        signature = interpreters[0].get_signature_runner(SIGNATURE)
        outputs = signature.get_output_details()
        self._image = signature.get_input_details()["image"]["index"]
        self._label, self._probabilities = (
            outputs[name]["index"] for name in ("label", "probabilities")
        )
        # An interpreter has only one set of tensors, so each call takes one for itself. The queue
        # is last in, first out, because the processor's cache holds the weights of the interpreter
        # that ran last.
        self._free: LifoQueue[Any] = LifoQueue()
        for interpreter in interpreters:
            self._free.put(interpreter)

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Recognizer.recognize`."""
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
    """The SavedModel in TensorFlow."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the artifact in `folder`. TensorFlow allows any number of concurrent calls."""
        # TensorFlow 2.21 logs at import that it uses oneDNN, whatever the log level is.
        with hidden_standard_error():
            import tensorflow as tf

        self._constant = tf.constant
        self._model = tf.saved_model.load(str(folder))  # owns the variables of the signature
        self._call = self._model.signatures[SIGNATURE]

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Recognizer.recognize`."""
        outputs = [
            self._call(image=self._constant(images[start : start + BATCH]))
            for start in range(0, len(images), BATCH)
        ]
        labels = np.concatenate([output["label"].numpy() for output in outputs])
        probabilities = np.concatenate([output["probabilities"].numpy() for output in outputs])
        return labels, probabilities


ENGINES: dict[str, Callable[[Path, int], Recognizer]] = {"litert": LiteRT, "tensorflow": TensorFlow}


def load(folder: Path, engine: str, threads: int = 1) -> Recognizer:
    """Load the artifact, and run it so that the first request does not pay for the warm-up.

    Args:
        folder: The directory of the artifact.
        engine: A key of `ENGINES`.
        threads: The number of threads that may recognize images concurrently.

    Returns:
        The loaded engine.
    """
    recognizer = ENGINES[engine](folder, threads)
    for _ in range(threads):
        recognizer.recognize(np.zeros((1, 28, 28), np.uint8))
    return recognizer
