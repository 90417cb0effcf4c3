"""The model card: intended use, data, network, metrics and limits of the model.

It follows Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from typing import Any

from stages.common.params import Params

TEXT = """\
# Model card: {name}, `{kind}`

`dvc repro export` writes this card from the metrics of `dvc repro evaluate`. The card describes the
model in `data/model` that the same `dvc.lock` pins.

SHA-256 of data/model.sha256: `{sha256}`

Trained on: {machine}

## Use
The model recognizes which of {classes} a gray image of 28 x 28 pixels shows. The digit must be
white on black and centered as in {name}. The model is intended for learning, for demonstrations
and as a basis for other models. Do not use it for decisions that affect people's money, health or
rights.

## Data
The training uses {name}'s training split without its last {validation:,} images. Those images serve
for validation and calibration. The test split serves only for the metrics below. Source: {source}.

## Network
The network has {parameters:,} parameters and computes {multiply_adds:,} multiply-adds per image. It
was trained for {epochs} epochs with seed {seed}.

## Metrics
| metric on the test split | value |
|---|---|
| accuracy | {accuracy:.2%} ({errors} errors) |
| accuracy without the images whose label most reviewers reject | \
{accuracy_without_rejected_labels:.2%} |
| lowest recall of a class | {lowest_recall:.2%} ({lowest_recall_class}) |
| expected calibration error | {expected_calibration_error:.2%} |

The corruptions below are those of MNIST-C (Mu and Gilmer, "MNIST-C: A Robustness Benchmark for
Computer Vision", 2019).

| metric on the corrupted test split | value |
|---|---|
| mean accuracy | {robustness_mean:.2%} |
| mean expected calibration error | {robustness_calibration_error:.2%} |
{robustness}

## Limits
- The model returns one of ten labels for every image. {background}
- The model makes more errors on images that are rare in {name} than the first table shows.
- The second table shows one strength of each corruption. Stronger ones lower the accuracy further.
"""


def model_card(chosen: Params, metrics: dict[str, Any], sha256: str, machine: str) -> str:
    """Write the model card in Markdown.

    Args:
        chosen: The parameters of the run.
        metrics: The content of evaluation's metrics.json.
        sha256: The SHA-256 of the artifact's manifest.
        machine: The class of the machine that trained the network.
    """
    recall = metrics["recall"]
    lowest = min(recall, key=recall.__getitem__)
    return TEXT.format(
        **{key: value for key, value in metrics.items() if key != "robustness"},
        sha256=sha256,
        machine=machine,
        name=chosen.data.name,
        source=chosen.data.source,
        kind=chosen.network.kind,
        classes=", ".join(chosen.data.classes),
        validation=chosen.train.validation_size,
        epochs=chosen.train.epochs,
        seed=chosen.train.seed,
        lowest_recall=recall[lowest],
        lowest_recall_class=lowest,
        robustness="\n".join(
            f"| accuracy under {name.replace('_', ' ')} | {value:.2%} |"
            for name, value in metrics["robustness"].items()
        ),
        background=(
            "It was also trained on images without a digit, so its confidence on them is low."
            if chosen.recipe.background_fraction
            else "It may return a high confidence for an image of noise."
        ),
    )
