"""The parameters in `params.yaml` as validated, immutable objects.

    params = load()
    params.train.epochs

Only this module reads `params.yaml`. An unknown key, a wrong type or a value out of range raises a
`ParamsError`, whose text of one line names the key and the allowed values.
"""

from pathlib import Path
from reprlib import repr as shortened
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.common import idx
from stages.common.runner import StageError

FILE = Path("params.yaml")
MAX_ERRORS = 5  # errors in one message

Fraction = Annotated[float, Field(ge=0, lt=1)]
Portion = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[float, Field(ge=0, le=28)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ParamsError(StageError):
    """`params.yaml` is not readable or not valid."""


class Section(BaseModel):
    """The base class of all sections of `params.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Idx(Section):
    mirrors: list[str] = Field(min_length=1)
    sha256: dict[str, Sha256]

    @field_validator("sha256")
    @classmethod
    def has_four_files(cls, sha256: dict[str, str]) -> dict[str, str]:
        if set(sha256) != set(idx.NAMES):
            raise ValueError(f"must have exactly the keys {', '.join(idx.NAMES)}")
        return sha256


class Png(Section):
    mirrors: list[str] = Field(min_length=1)
    splits: list[Literal["training", "testing"]]

    @field_validator("splits")
    @classmethod
    def has_testing(cls, splits: list[str]) -> list[str]:
        if "testing" not in splits:
            raise ValueError("must contain testing, which `export` needs")
        return splits


class Handwriting(Section):
    name: str = Field(pattern="^[a-z0-9_]+$")
    path: str
    sha256: Sha256
    license: str
    held_back: Fraction


class Font(Section):
    package: str
    file: str
    sha256: Sha256


class Fonts(Section):
    mirrors: list[str] = Field(min_length=1)
    training: list[Font] = Field(min_length=1)
    testing: list[Font] = Field(min_length=1)

    @field_validator("testing")
    @classmethod
    def are_not_for_training(cls, testing: list[Font], info: ValidationInfo) -> list[Font]:
        trained = {font.sha256 for font in info.data.get("training", ())}
        for font in testing:
            if font.sha256 in trained:
                raise ValueError(f"must not contain {font.file}, which is in training, too")
        return testing


class Shares(Section):
    letters: Portion
    shapes: Portion
    scribbles: Portion
    numbers: Portion

    @model_validator(mode="after")
    def are_not_all_zero(self) -> "Shares":
        if not self.letters + self.shapes + self.scribbles + self.numbers:
            raise ValueError("must not all be 0")
        return self


class NonDigits(Section):
    training: Count
    testing: Count
    seed: int = Field(ge=0, lt=2**31)
    shares: Shares


class DrawnDigits(Section):
    training: Count
    seed: int = Field(ge=0, lt=2**31)


class Data(Section):
    name: str
    source: str
    classes: list[str] = Field(min_length=10, max_length=10)
    timeout: float = Field(gt=0, le=3600)
    idx: Idx
    png: Png
    fonts: Fonts
    drawn_digits: DrawnDigits
    non_digits: NonDigits
    handwriting: list[Handwriting]

    @field_validator("handwriting")
    @classmethod
    def has_distinct_names(cls, handwriting: list[Handwriting]) -> list[Handwriting]:
        if len({source.name for source in handwriting}) < len(handwriting):
            raise ValueError("must have a different name for each source")
        return handwriting


class Cnn(Section):
    filters: list[Count] = Field(min_length=4, max_length=4)


class Mlp(Section):
    hidden: list[Count]


class Network(Section):
    kind: Literal["cnn", "mlp"]
    cnn: Cnn
    mlp: Mlp


class Augment(Section):
    shift: float = Field(ge=0, le=14)
    rotation: float = Field(ge=0, le=180)
    scale: Fraction
    shear: float = Field(ge=0, lt=90)

    @property
    def is_identity(self) -> bool:
        """Whether the augmentation leaves images unchanged."""
        return not (self.shift or self.rotation or self.scale or self.shear)


class Photometric(Section):
    """The largest amount of each effect; 0 disables it."""

    fraction: Fraction
    bend: Pixels = 0.0
    stroke: Portion = 0.0
    outline: Portion = 0.0
    displacement: Pixels = 0.0
    blur: Portion = 0.0
    motion: Pixels = 0.0
    lines: Portion = 0.0
    gaps: Portion = 0.0
    cut: Pixels = 0.0
    spots: Portion = 0.0
    stripes: Portion = 0.0
    contrast: Portion = 0.0
    brightness: Portion = 0.0
    gradient: Portion = 0.0
    fog: Portion = 0.0
    noise: Portion = 0.0
    impulses: Portion = 0.0


class Recipe(Section):
    batch_size: Count
    learning_rate: float = Field(gt=0)
    warmup_fraction: Fraction
    weight_decay: float = Field(ge=0)
    ema_decay: Fraction
    handwriting_fraction: Fraction
    drawn_digit_fraction: Fraction
    non_digit_fraction: Fraction
    background_fraction: Fraction
    augment: Augment
    photometric: Photometric

    @model_validator(mode="after")
    def leaves_a_part_of_each_batch(self) -> "Recipe":
        if self.handwriting_fraction + self.drawn_digit_fraction >= 1:
            raise ValueError(
                "must have handwriting_fraction and drawn_digit_fraction that add up to less than 1"
            )
        return self


class Train(Section):
    strategy: Literal["single", "mirrored", "multi_worker"]
    epochs: Count
    seed: int = Field(ge=0, lt=2**31)
    validation_size: Count
    cnn: Recipe
    mlp: Recipe


class Evaluate(Section):
    rejected_labels: list[Annotated[int, Field(ge=0)]]


class Pictures(Section):
    images: Count


class MinAccuracy(Section):
    cnn: Portion
    mlp: Portion


class Export(Section):
    min_accuracy: MinAccuracy
    max_loss: Portion
    significance: Portion


class Params(Section):
    data: Data
    threads: Count
    network: Network
    train: Train
    evaluate: Evaluate
    pictures: Pictures
    export: Export

    @property
    def recipe(self) -> Recipe:
        """The training recipe of the chosen kind of network."""
        return self.train.cnn if self.network.kind == "cnn" else self.train.mlp

    @property
    def min_accuracy(self) -> float:
        """The test accuracy that `export` requires of the chosen kind of network."""
        minimum = self.export.min_accuracy
        return minimum.cnn if self.network.kind == "cnn" else minimum.mlp


def load(file: Path = FILE) -> Params:
    """Read and validate all of `params.yaml`.

    Raises:
        ParamsError: The file cannot be read, is not YAML, or contains an unknown key, a wrong
            type or a value out of range.
    """
    content = parse(file)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        # A misspelled key causes two errors: one for an unknown key and one for a missing key. The
        # first is more helpful.
        errors = sorted(error.errors(), key=lambda one: one["type"] == "missing")
        sentences = [*map(_sentence, errors[:MAX_ERRORS])]
        if len(errors) > MAX_ERRORS:
            sentences.append(f"and {len(errors) - MAX_ERRORS} more")
        raise ParamsError(f"{file}: {'; '.join(sentences)}") from error


def parse(file: Path) -> Any:
    """Read YAML 1.2 with the parser that DVC uses.

    Raises:
        ParamsError: The file cannot be read, or is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(file.read_bytes().decode())
    except OSError as error:
        raise ParamsError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise ParamsError(f"{file} is not YAML: {_line(error.problem)} in line {line}") from error
    # Values such as 2024-13-45 and `!!int ''` raise ValueError and LookupError.
    except (YAMLError, LookupError, ValueError) as error:
        raise ParamsError(f"{file} is not YAML: {_line(error)}") from error


def _sentence(error: Any) -> str:
    key = _line(".".join(str(part) for part in error["loc"])) or "the file"
    match error["type"]:
        case "extra_forbidden":
            *sections, _ = error["loc"]
            return f"{key} is not a known key; the known keys are {_keys(sections)}"
        case "missing":
            return f"{key} is missing"
        case "model_type":
            return f"{key} must contain the keys {_keys(error['loc'])}"
        case "value_error":
            return f"{key} {error['ctx']['error']}"
    value = error["input"]
    return f"{key}: {error['msg']}" + (
        "" if isinstance(value, dict | list) else f", not {shortened(value)}"
    )


def _line(text: object) -> str:
    return " ".join(str(text).split())[:200]


def _keys(sections: list[Any]) -> str:
    model: Any = Params
    for name in sections:
        model = model.model_fields[name].annotation
    return ", ".join(model.model_fields)
