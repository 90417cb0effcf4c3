"""Measure the trained network on the test split.

    dvc repro evaluate
    dvc metrics show; dvc plots show

The stage reads `data/network/`, the parts for testing in `data/idx/`, `data/handwriting/` and
`data/non_digits/`, and `data.classes`, `data.handwriting` and `evaluate` in params.yaml. It writes
`data/evaluation/`:

- metrics.json
- distributions.json: the distributions of confidence, label and ink, to compare with traffic
- predictions.csv: one row for each image, in order
- reliability.csv: one row for each bin of confidence
- robustness.csv: one row for each image corruption
- mistakes.png: the most confident mistakes on MNIST
- handwriting_mistakes.png: the same for the other handwriting
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, astuple
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.recognition import distributions
from stages.common import idx, image_corruptions, metrics, network, params, paths
from stages.common.outputs import atomic_directory
from stages.common.runner import StageError

METRICS, PREDICTIONS, MISTAKES = "metrics.json", "predictions.csv", "mistakes.png"
RELIABILITY, ROBUSTNESS = "reliability.csv", "robustness.csv"
HANDWRITING_MISTAKES = "handwriting_mistakes.png"
DISTRIBUTIONS = "distributions.json"
UNSURE = 0.5  # metrics.json counts the images whose confidence is below this

GALLERY = (8, 4)  # the largest number of columns and rows
ZOOM = 4  # scale of the images
TILE = (144, 160)  # width and height of an image with its caption, in pixels


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    rejected: list[int],
    corrupted: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Compute the content of metrics.json.

    Args:
        probabilities: The probability of each label, float32 (N, 10).
        labels: The true labels, uint8 (N,).
        classes: The names of labels 0 to 9.
        rejected: The indices of images whose published label most reviewers reject.
        corrupted: The probabilities on the same images under each corruption, float32 (N, 10), by
            the name of the corruption. There is at least one.

    Raises:
        StageError: `rejected` contains an index that the test split does not have.
    """
    if max(rejected, default=0) >= len(labels):
        raise StageError(
            f"evaluate.rejected_labels contains {max(rejected)}, but the last index of the test "
            f"split is {len(labels) - 1}"
        )
    predictions = probabilities.argmax(1)
    accepted = np.delete(np.arange(len(labels)), rejected)
    robustness = {name: metrics.accuracy(outputs, labels) for name, outputs in corrupted.items()}
    return {
        "accuracy": metrics.accuracy(probabilities, labels),
        "accuracy_without_rejected_labels": metrics.accuracy(
            probabilities[accepted], labels[accepted]
        ),
        "errors": int((predictions != labels).sum()),
        "loss": metrics.cross_entropy(probabilities, labels),
        "expected_calibration_error": _calibration_error(probabilities, labels),
        "robustness": robustness,
        "robustness_mean": fmean(robustness.values()),
        "robustness_lowest": min(robustness.values()),
        "robustness_calibration_error": fmean(
            _calibration_error(outputs, labels) for outputs in corrupted.values()
        ),
        "precision": dict(zip(classes, metrics.precision(predictions, labels), strict=True)),
        "recall": dict(zip(classes, metrics.recall(predictions, labels), strict=True)),
    }


def on_handwriting(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, float]:
    """Compute the metrics of one source of handwriting.

    Args:
        images: uint8 (N, 28, 28). An image is black if the service found no digit in its picture,
            which counts as an error.
        labels: The true labels, uint8 (N,).
        probabilities: The probability of each label, float32 (N, 10).
    """
    correct = (probabilities.argmax(1) == labels) & images.any((1, 2))
    return {
        "digits": len(labels),
        "accuracy": float(correct.mean()),
        "expected_calibration_error": _calibration_error(probabilities, labels),
        "unsure": unsure(probabilities),
    }


def unsure(probabilities: np.ndarray) -> float:
    """Return the fraction of images whose confidence is below `UNSURE`.

    Args:
        probabilities: The probability of each label, float32 (N, 10).
    """
    return float((probabilities.max(1) < UNSURE).mean())


def gallery(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> Image.Image:
    """Draw the most confident mistakes, in order of confidence.

    Args:
        images: uint8 (N, 28, 28).
        labels: The true labels, uint8 (N,).
        probabilities: The probability of each label, float32 (N, 10).
        classes: The names of labels 0 to 9.

    Returns:
        A gray picture. The caption of each image shows its label, the prediction, its id and the
        confidence.
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
        caption = (
            f"{classes[labels[number]]} taken for {classes[predictions[number]]}\n"
            f"#{number}, {confidence[number]:.1%} sure"
        )
        middle = (left + TILE[0] / 2, top + side + 12)
        draw.multiline_text(middle, caption, 0, font, anchor="ma", align="center")
    return picture


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return metrics.expected_calibration_error(metrics.calibration_bins(probabilities, labels))


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


def _write_table(file: Path, columns: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    with file.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def main() -> None:
    with atomic_directory(paths.EVALUATION) as folder:
        _run(folder)


def _run(folder: Path) -> None:
    chosen = params.load()
    images, labels = idx.load(paths.IDX, "testing")
    model = network.load(paths.NETWORK)
    probabilities = network.probabilities(model, images)
    corrupted = {
        name: network.probabilities(model, changed)
        for name, changed in image_corruptions.corrupted(images).items()
    }
    classes, rejected = chosen.data.classes, chosen.evaluate.rejected_labels
    figures = evaluate(probabilities, labels, classes, rejected, corrupted)
    others = {
        source.name: idx.load(paths.HANDWRITING / source.name, "testing")
        for source in chosen.data.handwriting
    }
    outputs = {name: network.probabilities(model, pixels) for name, (pixels, _) in others.items()}
    figures["handwriting"] = {
        name: on_handwriting(*others[name], found) for name, found in outputs.items()
    }
    non_digits, _ = idx.load(paths.NON_DIGITS, "testing")
    figures["unsure"] = {
        "digits": unsure(probabilities),
        "non_digits": unsure(network.probabilities(model, non_digits)),
    }
    figures["parameters"] = model.count_params()
    figures["multiply_adds"] = network.multiply_adds(model)
    _write_json(folder / METRICS, figures)
    features = distributions.features(images, probabilities.argmax(1), probabilities)
    _write_json(folder / DISTRIBUTIONS, asdict(distributions.measure(features)))
    predictions = zip(labels.tolist(), features.label, strict=True)
    _write_table(folder / PREDICTIONS, ("label", "prediction"), predictions)
    bins = map(astuple, metrics.calibration_bins(probabilities, labels))
    _write_table(folder / RELIABILITY, ("confidence", "accuracy", "images"), bins)
    rows = {"none": figures["accuracy"], **figures["robustness"]}.items()
    _write_table(folder / ROBUSTNESS, ("corruption", "accuracy"), rows)
    gallery(images, labels, probabilities, classes).save(folder / MISTAKES)
    pixels, targets = (
        np.concatenate(part) for part in zip(idx.NONE, *others.values(), strict=True)
    )
    found = np.concatenate([np.empty((0, 10), np.float32), *outputs.values()])
    gallery(pixels, targets, found, classes).save(folder / HANDWRITING_MISTAKES)
    print(
        f"accuracy {figures['accuracy']:.2%} on {len(labels):,} test images, "
        f"{figures['errors']} errors"
    )
