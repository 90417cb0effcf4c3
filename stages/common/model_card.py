"""The model card: what the model is for, what it was made of, how good it is, where it ends.

After Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from typing import Any

from stages.common.params import Params

TEXT = """\
# Model card: {name}, `{kind}`

Written by `dvc repro export` from the figures of `dvc repro evaluate`; it belongs to the model in
`data/model` that the same `dvc.lock` pins.

## Use
Tells which of {classes} an image of 28 x 28 grey pixels shows, white on black and centred as in
{name}. Meant for learning, for demonstrations and as a start for models of one's own; not for
anything that somebody's money, health or rights hang on.

## Data
{name}: the training split without its last {validation:,} images, which served for validation and
for calibration; the test split for the figures below, and for nothing else. Source: {source}.

## Network
{parameters:,} parameters, {multiply_adds:,} multiply-adds an image; {epochs} epochs, seed {seed}.

## Figures
| on the test split | |
|---|---|
| accuracy | {accuracy:.2%} ({errors} wrong) |
| accuracy without images whose label people reject | {accuracy_without_rejected_labels:.2%} |
| lowest recall of a class | {lowest_recall:.2%} ({lowest_recall_class}) |
| expected calibration error | {expected_calibration_error:.2%} |
{robustness}

## Limits
- It answers with one of ten labels, whatever the image. {background}
- It knows what {name} shows: what is rare there, and common where you are, it will get wrong more
  often than the table says.
- The corruptions of the table have one strength each; stronger ones cost more.
"""


def model_card(chosen: Params, metrics: dict[str, Any]) -> str:
    """Markdown of the card, from the params and evaluation's metrics.json."""
    recall = metrics["recall"]
    lowest = min(recall, key=recall.__getitem__)
    return TEXT.format(
        **{key: value for key, value in metrics.items() if key != "robustness"},
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
            f"| accuracy under {name} | {value:.2%} |"
            for name, value in metrics["robustness"].items()
        ),
        background=(
            "Background images without a digit were part of its training and get a low confidence."
            if chosen.recipe.background_fraction
            else "It may be sure of a digit in a picture of noise."
        ),
    )
