"""Tests of the check that the inputs of a stage stay the same.

tests/test_pipeline.py tests it with DVC.
"""

import os

import pytest

from stages.common.inputs import Inputs
from stages.common.runner import StageError

PIPELINE = """
stages:
  train:
    cmd: python -m stages train
    params:
      - train.epochs
      - train.${network.kind}
    deps:
      - data/idx
      - train.py
"""
PARAMS = """
network: {kind: cnn}
train: {epochs: 1, seed: 1, cnn: {batch_size: 10}, mlp: {batch_size: 10}}
"""


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "train.py").write_text("1")
    (tmp_path / "data/idx").mkdir(parents=True)
    (tmp_path / "data/idx/images").write_text("images")
    return Inputs("train")


def edit(file, old, new):
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: edit(folder / "train.py", "1", "2"), "train.py"),
        (lambda folder: (folder / "train.py").unlink(), "train.py"),
        (lambda folder: edit(folder / "data/idx/images", "i", "j"), "data/idx/images"),
        (lambda folder: (folder / "data/idx/labels").touch(), "data/idx/labels"),
        (lambda folder: (folder / "data/idx/images").unlink(), "data/idx/images"),
        (
            lambda folder: edit(folder / "params.yaml", "epochs: 1", "epochs: 2"),
            "train.epochs in params.yaml",
        ),
        (
            lambda folder: edit(
                folder / "params.yaml", "cnn: {batch_size: 10", "cnn: {batch_size: 2"
            ),
            "train.cnn in params.yaml",
        ),
    ],
)
def test_a_change_of_an_input_is_an_error(inputs, tmp_path, change, named):
    change(tmp_path)
    with pytest.raises(StageError, match=f"^{named} changed while the stage ran, so nothing was"):
        inputs.check()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        lambda folder: os.utime(folder / "data/idx/images"),
        lambda folder: edit(folder / "train.py", "1", "1"),
        lambda folder: edit(folder / "params.yaml", "seed: 1", "seed: 2"),
        lambda folder: edit(folder / "params.yaml", "mlp: {batch_size: 10", "mlp: {batch_size: 2"),
        lambda folder: (folder / "another.py").touch(),
    ],
)
def test_a_change_of_anything_else_is_none(inputs, tmp_path, change):
    change(tmp_path)
    inputs.check()


def test_a_change_that_keeps_size_and_time_is_found(inputs, tmp_path):
    file = tmp_path / "train.py"
    before = file.stat()
    file.write_text("2")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StageError, match=r"train\.py changed"):
        inputs.check()
