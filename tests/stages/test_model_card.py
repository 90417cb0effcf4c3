from stages.common import determinism, params
from stages.common.model_card import model_card
from tests.conftest import PROJECT

SHA256 = "5a" * 32
MACHINE = "x86_64, AVX2 and FMA, CPU"
METRICS = {
    "accuracy": 0.9968,
    "errors": 32,
    "accuracy_without_rejected_labels": 0.9975,
    "expected_calibration_error": 0.0012,
    "parameters": 12345,
    "multiply_adds": 6789000,
    "recall": {"7": 0.991, "8": 0.999},
    "robustness": {"shot_noise": 0.98, "fog": 0.09},
    "robustness_mean": 0.535,
    "robustness_lowest": 0.09,
    "robustness_calibration_error": 0.061,
    "handwriting": {
        "semeion": {"accuracy": 0.987, "expected_calibration_error": 0.008, "unsure": 0.002},
    },
    "unsure": {"digits": 0.0007, "non_digits": 0.93},
}


def test_card_shows_the_metrics():
    chosen = params.load(PROJECT / "params.yaml")
    text = model_card(chosen, METRICS, MACHINE, SHA256)
    assert text.startswith(f"# Model card: {chosen.data.name}, `{chosen.network.kind}`\n")
    assert f"\nSHA-256 of data/model.sha256: `{SHA256}`\n" in text
    assert determinism.recorded_class(text) == MACHINE
    assert "| accuracy | 99.68% (32 errors) |" in text
    assert "| lowest recall of a class | 99.10% (7) |" in text
    assert "| mean accuracy | 53.50% |\n| mean expected calibration error | 6.10% |" in text
    assert "| accuracy under shot noise | 98.00% |\n| accuracy under fog | 9.00% |" in text
    assert "| semeion | 98.70% | 0.80% |" in text
    assert "is below 50% on 93% of the letters" in text
    assert "on 0.07% of the digits" in text
    assert "12,345 parameters and computes 6,789,000 multiply-adds per image" in text


def test_card_in_the_artifact_names_no_hash():
    chosen = params.load(PROJECT / "params.yaml")
    inside = model_card(chosen, METRICS, MACHINE)
    outside = model_card(chosen, METRICS, MACHINE, SHA256)
    assert "SHA-256" not in inside
    assert "The card describes the\nmodel whose folder contains it.\n\nTrained on" in inside
    assert inside.partition("Trained on")[2] == outside.partition("Trained on")[2]


def test_card_describes_what_the_training_adds():
    chosen = params.load(PROJECT / "params.yaml")
    text = model_card(chosen, METRICS, MACHINE, SHA256)
    names = " and ".join(f"{source.name} ({source.license})" for source in chosen.data.handwriting)
    assert f"{chosen.recipe.handwriting_fraction:.0%} of the digits in each batch: {names}." in text
    drawn = f"make up {chosen.recipe.drawn_digit_fraction:.0%} of the digits in each batch."
    assert f"several countries {drawn}" in text
    assert "Each batch also contains letters" in text
    assert "distorts the images" in text


def test_card_of_a_training_that_adds_nothing():
    chosen = params.load(PROJECT / "params.yaml")
    alone = chosen.model_copy(update={"network": chosen.network.model_copy(update={"kind": "mlp"})})
    text = model_card(alone, METRICS | {"handwriting": {}}, MACHINE, SHA256)
    assert "The training uses only MNIST, without distortion." in text
    assert "No other handwriting was measured." in text
