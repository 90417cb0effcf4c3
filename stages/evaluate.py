"""Measure the trained network on the test split.

    dvc repro evaluate
    dvc metrics show; dvc plots show

Reads `data/network/`, `data/idx/` and `evaluate` in params.yaml; writes `data/evaluation/`:
metrics.json, and to plot: predictions.csv (a row an image, in order), reliability.csv (a row a
bin of confidence), robustness.csv (a row a corruption) and mistakes.png.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.common import idx, image_corruptions, metrics, network, params
from stages.common.runner import StageError, atomic_directory

FOLDER = Path("data/evaluation")
METRICS, PREDICTIONS, MISTAKES = "metrics.json", "predictions.csv", "mistakes.png"
RELIABILITY, ROBUSTNESS = "reliability.csv", "robustness.csv"

GALLERY = (8, 4)  # most pictures across and down
ZOOM = 4  # screen pixels along a pixel
TILE = (144, 160)  # screen pixels of a picture with its two lines of text


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    rejected: list[int],
    robustness: dict[str, float],
) -> dict[str, Any]:
    """The figures of metrics.json.

    Args:
        probabilities: float32 (N, 10).
        labels: uint8 (N,).
        classes: the names of labels 0 to 9.
        rejected: indices of images whose label is held to be wrong.
        robustness: accuracy by corruption.

    Raises:
        StageError: `rejected` names an image that is not there.
    """
    if max(rejected, default=0) >= len(labels):
        raise StageError(
            f"evaluate.rejected_labels holds {max(rejected)}, but the test split ends at "
            f"{len(labels) - 1}"
        )
    predictions = probabilities.argmax(1)
    accepted = np.delete(np.arange(len(labels)), rejected)
    bins = metrics.calibration_bins(probabilities, labels)
    return {
        "accuracy": metrics.accuracy(probabilities, labels),
        "accuracy_without_rejected_labels": metrics.accuracy(
            probabilities[accepted], labels[accepted]
        ),
        "errors": int((predictions != labels).sum()),
        "loss": metrics.cross_entropy(probabilities, labels),
        "expected_calibration_error": metrics.expected_calibration_error(bins),
        "robustness": robustness,
        "precision": dict(zip(classes, metrics.precision(predictions, labels), strict=True)),
        "recall": dict(zip(classes, metrics.recall(predictions, labels), strict=True)),
    }


def gallery(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> Image.Image:
    """Draw the mistakes made with most confidence, worst first.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        probabilities: float32 (N, 10).
        classes: the names of labels 0 to 9.

    Returns:
        A grey picture; under each image its id, its label, the answer and the confidence.
    """
    predictions, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][: GALLERY[0] * GALLERY[1]]
    across = min(GALLERY[0], max(len(worst), 1))
    down = max(-(-len(worst) // across), 1)
    picture = Image.new("L", (across * TILE[0], down * TILE[1]), 255)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    if not len(worst):
        draw.text((TILE[0] / 2, TILE[1] / 2), "no mistakes", 0, font, anchor="mm")
    for place, number in enumerate(worst):
        left, top = place % across * TILE[0], place // across * TILE[1]
        side = 28 * ZOOM
        image = Image.fromarray(images[number]).resize((side, side), Image.Resampling.NEAREST)
        picture.paste(image, (left + (TILE[0] - side) // 2, top + 8))
        said = (
            f"{classes[labels[number]]} taken for {classes[predictions[number]]}\n"
            f"#{number}, {confidence[number]:.1%} sure"
        )
        middle = (left + TILE[0] / 2, top + side + 12)
        draw.multiline_text(middle, said, 0, font, anchor="ma", align="center")
    return picture


def _write_table(file: Path, columns: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    with file.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def main() -> None:
    chosen = params.load()
    images, labels = idx.load(Path("data/idx"), "testing")
    model = network.load(Path("data/network"))
    seen = network.probabilities(model, images)
    robustness = {
        name: metrics.accuracy(network.probabilities(model, bad), labels)
        for name, bad in image_corruptions.corrupted(images).items()
    }
    classes, rejected = chosen.data.classes, chosen.evaluate.rejected_labels
    figures = evaluate(seen, labels, classes, rejected, robustness)
    figures["parameters"] = model.count_params()
    figures["multiply_adds"] = network.multiply_adds(model)
    with atomic_directory(FOLDER) as folder:
        (folder / METRICS).write_text(json.dumps(figures, indent=2) + "\n")
        answers = zip(labels.tolist(), seen.argmax(1).tolist(), strict=True)
        _write_table(folder / PREDICTIONS, ("label", "prediction"), answers)
        bins = map(astuple, metrics.calibration_bins(seen, labels))
        _write_table(folder / RELIABILITY, ("confidence", "accuracy", "images"), bins)
        rows = {"none": figures["accuracy"], **robustness}.items()
        _write_table(folder / ROBUSTNESS, ("corruption", "accuracy"), rows)
        gallery(images, labels, seen, classes).save(folder / MISTAKES)
    print(
        f"{figures['accuracy']:.2%} of {len(labels):,} test images right, {figures['errors']} wrong"
    )
