"""Tests of the comparison with the network of the last commit, in a real git repository."""

import json
import subprocess
from math import comb
from typing import Any

import pytest
import yaml

from stages.common import gate, params
from tests.conftest import PROJECT

BEFORE: dict[str, Any] = {
    "accuracy": 0.9956,
    "handwriting": {
        "semeion": {"digits": 416, "accuracy": 407 / 416},
        "optdigits": {"digits": 923, "accuracy": 922 / 923},
    },
}


@pytest.fixture(scope="module")
def chosen():
    return params.load(PROJECT / "params.yaml")


@pytest.fixture
def commit(tmp_path, monkeypatch, chosen):
    """Return a function that commits a run with `BEFORE`, and enter the repository."""
    monkeypatch.chdir(tmp_path)

    def run(*command):
        subprocess.run(["git", *command], check=True, capture_output=True)

    def committed(kind=chosen.network.kind, sha256=chosen.data.idx.sha256, before=BEFORE):
        recorded = {"export": {"network.kind": kind}, "download": {"data.idx": {"sha256": sha256}}}
        stages = {name: {"params": {"params.yaml": found}} for name, found in recorded.items()}
        gate.METRICS.parent.mkdir(parents=True)
        gate.METRICS.write_text(json.dumps(before))
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
        run("init", "--quiet")
        run("add", "--all")
        run("-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--message=A run")
        gate.METRICS.write_text("not committed")

    return committed


def changed(accuracy=BEFORE["accuracy"], **errors):
    handwriting = {
        name: {**found, "accuracy": 1 - errors[name] / found["digits"]} if name in errors else found
        for name, found in BEFORE["handwriting"].items()
    }
    return {"accuracy": accuracy, "handwriting": handwriting}


@pytest.mark.parametrize(
    "now",
    [
        changed(),
        changed(0.9946),  # a loss of exactly 0.001
        changed(0.9999, semeion=0),
        changed(semeion=20),  # more than twice as many errors, with a probability of 0.028
        {"accuracy": 0.9956, "handwriting": {}},
    ],
)
def test_a_network_that_is_not_worse_passes(commit, chosen, now):
    commit()
    assert gate.refusal(chosen, now) is None


def test_a_loss_of_test_accuracy_is_refused(commit, chosen):
    commit()
    assert gate.refusal(chosen, changed(0.9945)) == (
        "the test accuracy of 0.9945 is more than export.max_loss (0.001) below the 0.9956 of the "
        "last commit"
    )


def test_significantly_more_errors_in_a_source_are_refused(commit, chosen):
    commit()
    assert gate.refusal(chosen, changed(semeion=24)) == (
        "the network makes 24 errors in 416 held-back digits of semeion, but that of the last "
        "commit makes 9 in 416; the probability of such a difference by chance is 0.0059, below "
        "export.significance (0.01)"
    )


@pytest.mark.parametrize("other", [{"kind": "mlp"}, {"sha256": {"train-images-idx3-ubyte": "0"}}])
def test_networks_of_other_kinds_and_data_sets_are_not_compared(commit, chosen, other):
    commit(**other)
    assert gate.refusal(chosen, changed(0.5)) is None


@pytest.mark.parametrize("handwriting", [{}, {"handwriting": {"semeion": {"accuracy": 1.0}}}])
def test_older_metrics_are_compared_as_far_as_they_go(commit, chosen, handwriting):
    commit(before={"accuracy": 0.9956, **handwriting})
    assert gate.refusal(chosen, changed(semeion=416)) is None
    assert "export.max_loss" in (gate.refusal(chosen, changed(0.5)) or "")


def test_without_a_commit_nothing_is_compared(tmp_path, monkeypatch, chosen):
    monkeypatch.chdir(tmp_path)
    assert gate.refusal(chosen, changed(0.5)) is None


def test_the_probability_is_that_of_fishers_exact_test():
    """Of 8 errors, 7 or 8 are in one of two samples of 10."""
    expected = (comb(8, 7) * comb(12, 3) + comb(12, 2)) / comb(20, 10)
    assert gate.probability(7, 10, 1, 10) == pytest.approx(expected)
    assert gate.probability(0, 10, 0, 10) == 1
    assert gate.probability(900, 10_000, 44, 10_000) < 1e-100
