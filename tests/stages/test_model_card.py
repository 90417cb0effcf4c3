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
}


def test_card_shows_the_metrics():
    chosen = params.load(PROJECT / "params.yaml")
    text = model_card(chosen, METRICS, SHA256, MACHINE)
    assert text.startswith(f"# Model card: {chosen.data.name}, `{chosen.network.kind}`\n")
    assert f"\nSHA-256 of data/model.sha256: `{SHA256}`\n" in text
    assert determinism.recorded_class(text) == MACHINE
    assert "| accuracy | 99.68% (32 errors) |" in text
    assert "| lowest recall of a class | 99.10% (7) |" in text
    assert "| mean accuracy | 53.50% |\n| mean expected calibration error | 6.10% |" in text
    assert "| accuracy under shot noise | 98.00% |\n| accuracy under fog | 9.00% |" in text
    assert "12,345 parameters and computes 6,789,000 multiply-adds per image" in text


def test_card_describes_the_training_on_background_images():
    chosen = params.load(PROJECT / "params.yaml")
    kind = chosen.network.kind
    for fraction, sentence in (
        (0.04, "its confidence on them is low"),
        (0.0, "a high confidence for an image of noise"),
    ):
        recipe = chosen.recipe.model_copy(update={"background_fraction": fraction})
        train = chosen.train.model_copy(update={kind: recipe})
        assert sentence in model_card(
            chosen.model_copy(update={"train": train}), METRICS, SHA256, MACHINE
        )
