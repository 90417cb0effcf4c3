"""The figures of a model that travel in its artifact: metrics, confusion matrix, worst mistakes.

The stage `export` writes them, together with the model card. `GET /model/` shows them, except the
distributions, with which `/metrics` compares the traffic. Another artifact may lack them.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.recognition import distributions
from service.recognition.distributions import Distributions

# Loaders of a SavedModel ignore `assets.extra`.
FILE = Path("assets.extra/figures.json")
CARD = Path("assets.extra/model_card.md")
# Metrics that the page shows. An artifact of another version of the pipeline may lack some.
METRICS = {
    "accuracy",
    "accuracy_without_rejected_labels",
    "errors",
    "expected_calibration_error",
    "handwriting",
    "parameters",
    "precision",
    "recall",
    "robustness",
    "robustness_mean",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mistake:
    """A test image that the model recognizes as another label."""

    id: int  # the index in the test split
    label: int
    prediction: int
    confidence: float  # the probability of the prediction
    png: str  # the PNG file, in base64


@dataclass(frozen=True)
class Figures:
    """What the pipeline measured of a model on the test split."""

    name: str  # the data set
    classes: list[str]  # the names of labels 0 to 9
    metrics: dict[str, Any]  # the content of evaluation's metrics.json, at least `METRICS`
    confusion: list[list[int]]  # test images by their label (row) and the prediction (column)
    mistakes: list[Mistake]  # the most confident ones, in order of confidence
    card: str  # the model card, in Markdown
    distributions: Distributions | None  # of the test split


def read(artifact: Path) -> Figures | None:
    """Read the figures of an artifact.

    Args:
        artifact: The folder of the artifact.

    Returns:
        The figures, or None if the artifact has none. If its files have another format, the log
        says so.
    """
    try:
        content = json.loads((artifact / FILE).read_bytes())
        mistakes = [Mistake(**mistake) for mistake in content.pop("mistakes")]
        if missing := METRICS - content["metrics"].keys():
            raise KeyError(*missing)
        found = content.pop("distributions", None)
        return Figures(
            **content,
            mistakes=mistakes,
            card=(artifact / CARD).read_text(),
            distributions=distributions.parse(found) if found else None,
        )
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError):
        logger.warning("%s has another format than this version of the service reads", FILE)
        return None
