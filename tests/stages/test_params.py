import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from stages.common import params
from tests.conftest import PROJECT


def test_params_yaml_of_the_project_is_valid():
    assert params.load(PROJECT / "params.yaml").network.kind == "cnn"


def test_recipe_depends_on_the_kind_of_network():
    chosen = params.load(PROJECT / "params.yaml")
    mlp = chosen.model_copy(update={"network": chosen.network.model_copy(update={"kind": "mlp"})})
    assert (chosen.recipe, mlp.recipe) == (chosen.train.cnn, chosen.train.mlp)


def test_numbers_have_the_values_that_dvc_reads(tmp_path):
    file = tmp_path / "params.yaml"
    text = (PROJECT / "params.yaml").read_text()
    text = text.replace("learning_rate: 0.01", "learning_rate: 1e-2").replace(
        "seed: 1", "seed: 010"
    )
    file.write_text(text)
    chosen = params.load(file).train
    read = load_yaml(str(file))["train"]
    assert chosen.mlp.learning_rate == read["mlp"]["learning_rate"] == 0.01
    assert chosen.seed == read["seed"] == 10


def test_dvc_experiments_keep_the_comments(tmp_path):
    file = tmp_path / "params.yaml"
    text = (PROJECT / "params.yaml").read_text()
    file.write_text(text)
    apply_overrides(str(file), ["train.epochs=3"])
    assert params.load(file).train.epochs == 3
    changed = file.read_text()
    assert [line.strip() for line in changed.splitlines() if line.strip().startswith("#")] == [
        line.strip() for line in text.splitlines() if line.strip().startswith("#")
    ]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("train.epoch", 3, "train.epoch is not a known key; the known keys are strategy, epochs"),
        (
            "epochs",
            3,
            "epochs is not a known key; the known keys are data, threads, network, train",
        ),
        ("train.epochs", None, "train.epochs: Input should be a valid integer, not None"),
        ("train.epochs", "3", "train.epochs: Input should be a valid integer, not '3'"),
        ("train.epochs", 2.5, "train.epochs: Input should be a valid integer, not 2.5"),
        ("train.epochs", True, "train.epochs: Input should be a valid integer, not True"),
        ("train.epochs", 0, "greater than or equal to 1, not 0"),
        ("train.epochs", 10**30, "train.epochs: Input should be less than or equal to 1000000"),
        ("train.cnn.weight_decay", float("inf"), "Input should be a finite number, not inf"),
        ("train.cnn.ema_decay", 1.0, "train.cnn.ema_decay: Input should be less than 1"),
        ("train.cnn.learning_rate", float("nan"), "train.cnn.learning_rate"),
        ("train.cnn.augment.shift", -1, "train.cnn.augment.shift"),
        (
            "train.cnn.handwriting_fraction",
            0.95,
            "train.cnn must have handwriting_fraction and drawn_digit_fraction that add up to less",
        ),
        ("train.mlp", [], "train.mlp must contain the keys batch_size, learning_rate"),
        ("network.kind", "rnn", "network.kind: Input should be 'cnn' or 'mlp', not 'rnn'"),
        ("network.cnn.filters", [8, 8], "network.cnn.filters: List should have at least 4"),
        ("network.mlp.hidden", [0], "network.mlp.hidden.0"),
        ("data.timeout", 0, "data.timeout: Input should be greater than 0, not 0"),
        ("data.idx.mirrors", [], "data.idx.mirrors: List should have at least 1"),
        (
            "data.idx.sha256",
            {},
            "data.idx.sha256 must have exactly the keys train-images-idx3-ubyte",
        ),
        ("data.png.splits", ["training"], "data.png.splits must contain testing"),
        ("data.fonts.training", [], "data.fonts.training: List should have at least 1"),
        ("data.fonts.testing.0.sha256", "0", "data.fonts.testing.0.sha256: String should match"),
        (
            "data.fonts.testing.0.sha256",
            yaml.safe_load((PROJECT / "params.yaml").read_text())["data"]["fonts"]["training"][0][
                "sha256"
            ],
            "data.fonts.testing must not contain annie-use-your-telescope-latin-400-normal.woff",
        ),
        (
            "data.non_digits.shares",
            dict.fromkeys(("letters", "shapes", "scribbles", "numbers"), 0.0),
            "data.non_digits.shares must not all be 0",
        ),
        ("data.non_digits.shares.letters", 45, "less than or equal to 1, not 45"),
        ("export.min_accuracy.cnn", 99.3, "export.min_accuracy.cnn: Input should be less than or"),
    ],
)
def test_invalid_value_is_reported_in_one_line_with_its_key(tmp_path, key, value, sentence):
    content = yaml.safe_load((PROJECT / "params.yaml").read_text())
    *sections, last = key.split(".")
    section = content
    for name in sections:
        section = section[int(name) if name.isdigit() else name]
    section[last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(params.ParamsError) as error:
        params.load(file)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "",
            "the file must contain the keys data, threads, network, train, evaluate",
        ),
        ("- 1", "the file must contain the keys"),
        ("7", "the file must contain the keys"),
        ("train: [", "is not YAML: "),
        ("{}", "data is missing"),
        ("1: 2", "1: Keys should be strings"),
        ("train: {}\ntrain: {}", 'is not YAML: found duplicate key "train"'),
        ("train: !!python/object/apply:os.getcwd []", "is not YAML: could not determine a con"),
        ("train: 2024-13-45", "is not YAML: month must be in 1..12"),
        ("train: !!int ''", "is not YAML: "),
        ("train: " + "9" * 5000, "is not YAML: Exceeds the limit"),
        ("a: \0", "is not YAML: unacceptable character #x0000"),
        (b"name: \xff", "is not UTF-8: invalid start byte at byte 6"),
        ("train: {}".encode("utf-16"), "is not UTF-8"),
        ("".join(f"key{n}: 1\n" for n in range(2000)), "; and 2002 more"),
        (f"? {'x' * 60_000}\n: 1", "is not a known key; the known keys are data"),
    ],
)
def test_invalid_file_is_reported_in_one_short_line(tmp_path, content, sentence):
    file = tmp_path / "params.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(params.ParamsError) as error:
        params.load(file)
    message = str(error.value).removeprefix(str(file))
    assert sentence in message
    assert "\n" not in message
    assert len(message) < 1000


def test_missing_file_is_reported(tmp_path):
    with pytest.raises(params.ParamsError, match="cannot be read: No such file"):
        params.load(tmp_path / "params.yaml")
