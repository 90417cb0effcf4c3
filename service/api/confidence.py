"""Explain why a result is less certain than the parameter `min_confidence` requires."""

import numpy as np

# The second label is about as likely as the first if its probability is at least this fraction of
# the first's.
CLOSE = 0.5
# If the likeliest label has less than LIKELY, and the two likeliest together have less than CLEAR,
# the picture is probably not a digit. static/reading.js has the same two constants.
LIKELY = 0.5
CLEAR = 0.9


def doubt(probabilities: np.ndarray, min_confidence: float, many: bool) -> str | None:
    """Explain the first doubtful digit of a picture.

    Args:
        probabilities: The probabilities of the labels of each digit, float32 (N, 10).
        min_confidence: The smallest probability that the likeliest label of each digit must have.
        many: Whether the sentence says which digit is doubtful.

    Returns:
        A sentence, or None if no digit is doubtful.
    """
    # NumPy compares in float32, so that 0.9 is the same number here as in the response.
    doubtful = probabilities.max(1) < min_confidence
    if not doubtful.any():
        return None
    number = int(doubtful.argmax())
    subject = f"Digit {number + 1} from the left" if many else "The picture"
    limit = f"no label reaches the required confidence of {min_confidence}"
    return f"{subject} is unclear: {_readings(probabilities[number])}; {limit}."


def _readings(row: np.ndarray) -> str:
    """Describe what a digit may be, from the probabilities of the labels, float32 (10,)."""
    first, second = np.argsort(-row, kind="stable")[:2].tolist()
    best, other = _reading(first, row), _reading(second, row)
    if row[first] < LIKELY and row[first] + row[second] < CLEAR:
        return f"it is probably not a digit, and the likeliest reading is {best}"
    if row[second] >= CLOSE * row[first]:
        return f"it could be {best} or {other}"
    return f"it is probably {best}"


def _reading(label: int, row: np.ndarray) -> str:
    # Rounded down, so that the percentage never appears to reach the required confidence.
    return f"{'an' if label == 8 else 'a'} {label} ({int(100 * row[label])}%)"
