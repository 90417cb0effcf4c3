"""Find where the network looked, by covering parts of the image."""

import numpy as np

from service.recognition.engines import Recognizer
from service.recognition.preprocessing import SIDE

# A patch of 7 x 7 pixels hides a stroke of MNIST (2 to 4 pixels wide) and a part of its
# neighborhood, but not the digit. With smaller patches, the probability often does not fall at all.
REACH = 3  # pixels from the center of a patch to its edge
STEP = 3  # pixels between the centers of neighboring patches
CENTERS = np.arange(0, SIDE, STEP)
DECIMALS = 3


def explain(recognizer: Recognizer, image: np.ndarray) -> np.ndarray:
    """Return how much the network's answer depends on each part of an image.

    A patch of background covers one part of the image after another. The more the probability of
    the label falls, the more the network depends on that part. The method is that of Zeiler and
    Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 4.2. Their patch
    is gray; this one is black, as the background is, so that it adds no ink. It therefore shows
    which ink supports the label, and not which gaps do.

    Args:
        recognizer: The engine that gave the answer.
        image: White ink on black, uint8 (28, 28).

    Returns:
        For each pixel, how much the probability of the label falls if a patch covers the pixel,
        from 0 to 1, float32 (28, 28). The number is the mean over the patches that cover the pixel,
        and nearer patches weigh more, so that the map is smooth. It is 0 where the probability
        rises.
    """
    places, variants = [], [image]
    for row, y in enumerate(CENTERS):
        for column, x in enumerate(CENTERS):
            patch = (
                slice(max(y - REACH, 0), y + REACH + 1),
                slice(max(x - REACH, 0), x + REACH + 1),
            )
            if image[patch].any():  # without ink, covering the patch changes nothing
                covered = image.copy()
                covered[patch] = 0
                places.append((row, column))
                variants.append(covered)
    labels, probabilities = recognizer.recognize(np.stack(variants))
    falls = np.zeros((len(CENTERS), len(CENTERS)))
    for place, probability in zip(places, probabilities[1:, labels[0]], strict=True):
        falls[place] = max(probabilities[0, labels[0]] - probability, 0)
    return (_WEIGHTS @ falls @ _WEIGHTS.T).round(DECIMALS).clip(0, 1).astype(np.float32)


def _weights() -> np.ndarray:
    """Return the weight of each patch for each pixel along one axis, float64 (28, patches)."""
    distances = np.abs(np.arange(SIDE)[:, np.newaxis] - CENTERS)
    weights = np.maximum(REACH + 1 - distances, 0)
    return weights / weights.sum(1, keepdims=True)


_WEIGHTS = _weights()
