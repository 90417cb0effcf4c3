"""The artifact in memory: images in, labels and probabilities out."""

from pathlib import Path

from service.quiet import tf

import numpy as np

BATCH = 256  # most images in one call of the network; more gain nothing and cost memory


class Recognizer:
    """A SavedModel with the signature `serving_default` of the artifact, loaded and warm."""

    def __init__(self, folder: Path) -> None:
        """Load `folder` and run it once, so that the first request finds it warm."""
        self._model = tf.saved_model.load(str(folder))  # owns the variables of the signature
        self._call = self._model.signatures["serving_default"]
        self.recognize(np.zeros((1, 28, 28), np.uint8))

    def recognize(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recognise images.

        Args:
            images: uint8 (N, 28, 28), white ink on black; N at least 1.

        Returns:
            Labels, int64 (N,), and probabilities, float32 (N, 10).
        """
        answers = [
            self._call(image=tf.constant(images[start : start + BATCH]))
            for start in range(0, len(images), BATCH)
        ]
        labels = np.concatenate([answer["label"].numpy() for answer in answers])
        probabilities = np.concatenate([answer["probabilities"].numpy() for answer in answers])
        return labels, probabilities
