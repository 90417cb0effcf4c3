"""Measure the trained network on the test split.

    dvc repro evaluate
    dvc metrics show; dvc plots show

Reads `data/network/`, `data/idx/` and `evaluate` in params.yaml; writes `data/evaluation/`:
metrics.json, predictions.csv (a row an image, in order) and mistakes.png.
"""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages import idx, metrics, network, params
from stages.stage import StageError, run, whole_folder

FOLDER = Path("data/evaluation")
METRICS, PREDICTIONS, MISTAKES = "metrics.json", "predictions.csv", "mistakes.png"

GALLERY = (8, 4)  # most pictures across and down
ZOOM = 4  # screen pixels along a pixel
TILE = (144, 160)  # screen pixels of a picture with its two lines of text


def evaluate(
    probabilities: np.ndarray, labels: np.ndarray, rejected: list[int]
) -> dict[str, object]:
    """The figures of metrics.json.

    Args:
        probabilities: float32 (N, 10).
        labels: uint8 (N,).
        rejected: indices of images whose label is held to be wrong.

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
    return {
        "accuracy": metrics.accuracy(probabilities, labels),
        "accuracy_without_rejected_labels": metrics.accuracy(
            probabilities[accepted], labels[accepted]
        ),
        "errors": int((predictions != labels).sum()),
        "loss": metrics.cross_entropy(probabilities, labels),
        "expected_calibration_error": metrics.expected_calibration_error(probabilities, labels),
        "precision": metrics.precision(predictions, labels),
        "recall": metrics.recall(predictions, labels),
    }


def gallery(images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> Image.Image:
    """Draw the mistakes made with most confidence, worst first.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        probabilities: float32 (N, 10).

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
            f"{labels[number]} taken for {predictions[number]}\n"
            f"#{number}, {confidence[number]:.1%} sure"
        )
        middle = (left + TILE[0] / 2, top + side + 12)
        draw.multiline_text(middle, said, 0, font, anchor="ma", align="center")
    return picture


def main() -> None:
    chosen = params.load()
    images, labels = idx.load(Path("data/idx"), "testing")
    seen = network.probabilities(network.load(Path("data/network")), images)
    figures = evaluate(seen, labels, chosen.evaluate.rejected_labels)
    with whole_folder(FOLDER) as folder:
        (folder / METRICS).write_text(json.dumps(figures, indent=2) + "\n")
        with (folder / PREDICTIONS).open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["label", "prediction"])
            rows.writerows(zip(labels.tolist(), seen.argmax(1).tolist(), strict=True))
        gallery(images, labels, seen).save(folder / MISTAKES)
    print(
        f"{figures['accuracy']:.2%} of {len(labels):,} test images right, {figures['errors']} wrong"
    )


if __name__ == "__main__":
    run(main)
