"""The model card: intended use, data, network, metrics and limits of the model.

It follows Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from typing import Any

from stages.common.params import Params

TEXT = """\
# Model card: {name}, `{kind}`

`dvc repro export` writes this card from the metrics of `dvc repro evaluate`. {subject}

Trained on: {machine}

## Use
The model recognizes which of {classes} a gray image of 28 x 28 pixels shows. The digit must be
white on black and centered as in {name}. The model is intended for learning, for demonstrations
and as a basis for other models. Do not use it for decisions that affect people's money, health or
rights.

## Data
The training uses {name}'s training split without its last {validation:,} images. Those images serve
for validation and calibration. The test split serves only for the metrics below. Source: {source}.

{additions}

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

{handwriting}

## Limits
- The model returns one of ten labels for every image. {background}
- The model makes more errors on images that are rare in {name} than the first table shows.
- The second table shows one strength of each corruption. Stronger ones lower the accuracy further.
"""

# A card in the artifact cannot name the hash of the files of which it is one.
INSIDE = "The card describes the\nmodel whose folder contains it."
OUTSIDE = """\
The card describes the
model in `data/model` that the same `dvc.lock` pins.

SHA-256 of data/model.sha256: `{sha256}`"""


def model_card(
    chosen: Params, metrics: dict[str, Any], machine: str, sha256: str | None = None
) -> str:
    """Write the model card in Markdown.

    Args:
        chosen: The parameters of the run.
        metrics: The content of evaluation's metrics.json.
        machine: The class of the machine that trained the network.
        sha256: The SHA-256 of the artifact's manifest, or None for the card in the artifact.
    """
    recall = metrics["recall"]
    lowest = min(recall, key=recall.__getitem__)
    return TEXT.format(
        **{key: value for key, value in metrics.items() if not isinstance(value, dict)},
        subject=OUTSIDE.format(sha256=sha256) if sha256 else INSIDE,
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
        additions=_additions(chosen),
        handwriting=_handwriting(metrics),
        robustness="\n".join(
            f"| accuracy under {name.replace('_', ' ')} | {value:.2%} |"
            for name, value in metrics["robustness"].items()
        ),
        background=(
            f"Its confidence is below 50% on {metrics['unsure']['non_digits']:.0%} of the letters, "
            f"shapes, scribbles and numbers of a test set, and on "
            f"{metrics['unsure']['digits']:.2%} of the digits in the test split."
        ),
    )


def _additions(chosen: Params) -> str:
    """Describe what the training adds to the data set, in one paragraph."""
    recipe, sentences = chosen.recipe, []
    if chosen.data.handwriting and recipe.handwriting_fraction:
        names = " and ".join(f"{one.name} ({one.license})" for one in chosen.data.handwriting)
        sentences.append(
            f"Other handwriting, of which a part is held back for testing, makes up "
            f"{recipe.handwriting_fraction:.0%} of the digits in each batch: {names}."
        )
    if recipe.drawn_digit_fraction:
        sentences.append(
            f"Digits that a program draws in the handwriting styles of several countries make up "
            f"{recipe.drawn_digit_fraction:.0%} of the digits in each batch."
        )
    if recipe.non_digit_fraction or recipe.background_fraction:
        sentences.append(
            "Each batch also contains letters, shapes, scribbles, numbers and noise. Their target "
            "is an equal probability of all labels."
        )
    if not recipe.augment.is_identity or recipe.photometric.fraction:
        sentences.append("The training distorts the images at random.")
    return " ".join(sentences) or f"The training uses only {chosen.data.name}, without distortion."


def _handwriting(metrics: dict[str, Any]) -> str:
    """Return the table of the other handwriting."""
    rows = [
        f"| {name} | {found['accuracy']:.2%} | {found['expected_calibration_error']:.2%} |"
        for name, found in metrics["handwriting"].items()
    ]
    header = ["| other handwriting | accuracy | expected calibration error |", "|---|---|---|"]
    return "\n".join([*header, *rows] if rows else ["No other handwriting was measured."])
