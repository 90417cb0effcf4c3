"""`params.yaml` as frozen, checked objects; the only module that reads it.

    params = load()
    params.train.epochs

An unknown key, a wrong type or a value out of range is a `ParamsError` of one line that names
the key.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stages import idx
from stages.stage import StageError

FILE = Path("params.yaml")

Fraction = Annotated[float, Field(ge=0, lt=1)]
Accuracy = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ParamsError(StageError):
    """`params.yaml` holds something that no stage could work with."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Idx(Section):
    mirrors: list[str] = Field(min_length=1)
    sha256: dict[str, Sha256]

    @field_validator("sha256")
    @classmethod
    def names_the_four_files(cls, sha256: dict[str, str]) -> dict[str, str]:
        if set(sha256) != set(idx.NAMES):
            raise ValueError(f"must have the keys {', '.join(idx.NAMES)}, and no other")
        return sha256


class Png(Section):
    mirrors: list[str] = Field(min_length=1)
    splits: list[Literal["training", "testing"]]

    @field_validator("splits")
    @classmethod
    def has_testing(cls, splits: list[str]) -> list[str]:
        if "testing" not in splits:
            raise ValueError("must hold testing, on which the export is checked")
        return splits


class Data(Section):
    name: str
    source: str
    classes: list[str] = Field(min_length=10, max_length=10)
    timeout: float = Field(gt=0, le=3600)
    idx: Idx
    png: Png


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
    def nothing(self) -> bool:
        """Whether images stay as they are."""
        return not (self.shift or self.rotation or self.scale or self.shear)


class Recipe(Section):
    batch_size: Count
    learning_rate: float = Field(gt=0)
    warmup: Fraction
    weight_decay: float = Field(ge=0)
    label_smoothing: Fraction
    averaging: Fraction
    nothing: Fraction
    augment: Augment


class Train(Section):
    epochs: Count
    seed: int = Field(ge=0, lt=2**31)
    validation: Count
    cnn: Recipe
    mlp: Recipe


class Evaluate(Section):
    rejected_labels: list[Annotated[int, Field(ge=0)]]


class MinAccuracy(Section):
    cnn: Accuracy
    mlp: Accuracy


class Export(Section):
    min_accuracy: MinAccuracy


class Params(Section):
    data: Data
    network: Network
    train: Train
    evaluate: Evaluate
    export: Export

    @property
    def recipe(self) -> Recipe:
        """The training recipe of the chosen kind of network."""
        return self.train.cnn if self.network.kind == "cnn" else self.train.mlp

    @property
    def min_accuracy(self) -> float:
        """The least test accuracy with which the chosen kind of network is exported."""
        least = self.export.min_accuracy
        return least.cnn if self.network.kind == "cnn" else least.mlp


def load(file: Path = FILE) -> Params:
    """Read and check all of `params.yaml`.

    Raises:
        ParamsError: the file cannot be read, is not YAML, or holds a key, a type or a value that
            is not allowed.
    """
    try:
        content = yaml.load(file.read_bytes(), Loader=_Loader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ParamsError(f"{file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(f"{file}: {'; '.join(map(_sentence, error.errors()))}") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats, as DVC reads them: PyYAML's YAML 1.1 takes 1e-3 for a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"{key} is not a known key"
        case "missing":
            return f"{key} is missing"
        case "model_type":
            return f"{key} must hold keys with values"
        case "value_error":
            return f"{key} {error['ctx']['error']}"
    found = error["input"]
    return f"{key}: {error['msg']}{'' if isinstance(found, dict | list) else f', found {found!r}'}"
