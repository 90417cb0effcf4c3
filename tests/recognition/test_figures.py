"""The figures that an artifact carries, or does not."""

import json
import logging

import pytest

from service.recognition import figures
from service.recognition.distributions import Distribution, Distributions
from service.recognition.figures import Figures, Mistake

CONTENT = {
    "name": "MNIST",
    "classes": list("0123456789"),
    "metrics": dict.fromkeys(figures.METRICS, 0.99),
    "confusion": [[1] * 10] * 10,
    "mistakes": [{"id": 7, "label": 1, "prediction": 2, "confidence": 0.9, "png": "aaaa"}],
    "distributions": {
        name: {"edges": [1, 2], "counts": [3, 4, 5]} for name in ("confidence", "label", "ink")
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / figures.FILE).parent.mkdir()
    (tmp_path / figures.FILE).write_text(json.dumps(CONTENT))
    (tmp_path / figures.CARD).write_text("# Card")
    return tmp_path


def test_read_returns_the_figures_and_the_card(folder):
    assert figures.read(folder) == Figures(
        name="MNIST",
        classes=list("0123456789"),
        metrics=dict.fromkeys(figures.METRICS, 0.99),
        confusion=[[1] * 10] * 10,
        mistakes=[Mistake(7, 1, 2, 0.9, "aaaa")],
        card="# Card",
        distributions=Distributions(*[Distribution([1, 2], [3, 4, 5])] * 3),
    )


def test_figures_without_distributions_are_read(folder):
    content = {name: value for name, value in CONTENT.items() if name != "distributions"}
    (folder / figures.FILE).write_text(json.dumps(content))
    found = figures.read(folder)
    assert found is not None
    assert found.distributions is None


@pytest.mark.parametrize("missing", [figures.FILE, figures.CARD])
def test_an_artifact_without_a_file_has_no_figures(folder, missing, caplog):
    (folder / missing).unlink()
    assert figures.read(folder) is None
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"[]", b"7", b"{}"),
        json.dumps(CONTENT | {"mistakes": [{"id": 7}]}).encode(),
        json.dumps(CONTENT | {"another": 1}).encode(),
        json.dumps(CONTENT | {"distributions": {"ink": {"edges": [], "counts": [1]}}}).encode(),
        json.dumps(CONTENT | {"distributions": [1]}).encode(),
        json.dumps(CONTENT | {"metrics": {"accuracy": 0.99}}).encode(),
    ],
)
def test_a_file_of_another_format_is_logged_and_ignored(folder, content, caplog):
    (folder / figures.FILE).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert figures.read(folder) is None
    (record,) = caplog.records
    assert record.getMessage() == (
        "assets.extra/figures.json has another format than this version of the service reads"
    )
