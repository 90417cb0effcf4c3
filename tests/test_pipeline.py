"""Tests of the pipeline with DVC's commands, in a repository with a slice of MNIST."""

import ast
import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile

import pytest
import yaml
from dvc.repo import Repo
from PIL import Image

from service.recognition import pin
from stages.__main__ import STAGES
from tests.conftest import ENVIRONMENT, FASHION, MNIST, PROJECT, take_from


def lock(repository):
    return (repository.path / "dvc.lock").read_text()


def test_first_run_writes_and_records_all_outputs(repository):
    assert repository.run("git", "status", "--porcelain") == ""
    assert "up to date" in repository.run("dvc", "status")
    recorded = yaml.safe_load(lock(repository))["stages"]
    assert tuple(recorded) == STAGES
    assert len(list((repository.path / "data/png/testing").rglob("*.png"))) == 500
    assert not (repository.path / "data/png/training").exists()
    assert list((repository.path / "data").glob(".*.partial")) == []


def test_second_run_runs_no_stage(repository):
    before = lock(repository)
    output = repository.run("dvc", "repro")
    assert "Data and pipelines are up to date." in output
    assert "Running stage" not in output
    assert lock(repository) == before


def test_forced_run_writes_the_same_bytes(scratch):
    before = lock(scratch)
    scratch.run("dvc", "repro", "--force")
    assert lock(scratch) == before
    assert scratch.run("git", "status", "--porcelain") == ""


def test_metrics_are_consistent(repository):
    metrics = json.loads(repository.run("dvc", "metrics", "show", "--json"))
    files = metrics[""]["data"]
    figures = files["data/evaluation/metrics.json"]["data"]
    with (repository.path / "data/evaluation/predictions.csv").open() as file:
        rows = [(row["label"], row["prediction"]) for row in csv.DictReader(file)]
    errors = sum(label != prediction for label, prediction in rows)
    assert figures["errors"] == errors
    assert figures["accuracy"] == pytest.approx(1 - errors / 500)
    kept = [row for number, row in enumerate(rows) if number not in (3, 5)]
    correct = sum(label == prediction for label, prediction in kept)
    assert figures["accuracy_without_rejected_labels"] == pytest.approx(correct / 498)
    sevens = [row for row in rows if row[0] == "7"]
    assert figures["recall"]["7"] == pytest.approx(sevens.count(("7", "7")) / len(sevens))
    assert set(files["data/training/metrics.json"]["data"]) == {"train", "validation", "step"}


def test_dvc_plots_contain_all_plots(scratch):
    scratch.run("dvc", "plots", "show", "--out", "plots")
    page = (scratch.path / "plots/index.html").read_text()
    for title in ("Accuracy after each epoch", "Cross-entropy after each", "Confusion matrix"):
        assert title in page
    assert "mistakes.png" in page
    with Image.open(scratch.path / "data/evaluation/mistakes.png") as picture:
        assert picture.width > 100


@pytest.fixture(scope="module")
def copied(repository, tmp_path_factory):
    return repository.clone(tmp_path_factory.mktemp("copied") / "repository")


@pytest.fixture
def edited(repository, copied):
    """A copy of `repository` in which a test may change only params.yaml."""
    shutil.copy(repository.path / "params.yaml", copied.path)
    return copied


@pytest.mark.parametrize(
    ("section", "change", "changed"),
    [
        (("data",), {"name": "Digits"}, ["export"]),
        (("data", "idx"), {"mirrors": ["/another/folder"]}, ["download"]),
        (("data",), {"handwriting": []}, ["handwriting", "train", "evaluate", "export"]),
        (("data", "png"), {"splits": ["testing", "training"]}, ["png"]),
        (("data", "drawn_digits"), {"seed": 2}, ["drawn_digits"]),
        (("data", "fonts"), {"mirrors": ["/another/folder"]}, ["non_digits"]),
        (("data", "non_digits"), {"seed": 2}, ["non_digits"]),
        (("network",), {"kind": "mlp"}, ["train", "export"]),
        (("network", "cnn"), {"filters": [8, 8, 8, 8]}, ["train"]),
        (("network", "mlp"), {"hidden": [8]}, []),  # network.kind is cnn
        (("train",), {"epochs": 4}, ["train", "export"]),
        (("train",), {"seed": 2}, ["train", "export"]),
        (("train",), {"validation_size": 100}, ["non_digits", "train", "export"]),
        (("train", "cnn"), {"batch_size": 100}, ["train", "export"]),
        (("train", "cnn", "augment"), {"shift": 1.0}, ["train", "export"]),
        (("train", "mlp"), {"batch_size": 10}, []),
        (("evaluate",), {"rejected_labels": []}, ["evaluate"]),
        (("export", "min_accuracy"), {"cnn": 0.5}, ["export"]),
        (("export", "min_accuracy"), {"mlp": 0.4}, []),
        (("export",), {"max_loss": 0.2}, ["export"]),
    ],
)
def test_changed_parameter_affects_the_stages_that_read_it(
    edited, section, change, changed, monkeypatch
):
    def edit(params):
        for name in section:
            params = params[name]
        params.update(change)

    edited.edit_params(edit)
    monkeypatch.chdir(edited.path)  # DVC names stages relative to the current folder
    with Repo() as opened:
        assert list(opened.status()) == changed


def test_stage_does_not_run_if_its_inputs_stay_the_same(scratch):
    """The download has another mirror, but its files are the same."""
    shutil.copytree(MNIST, scratch.path / "copy")
    scratch.edit_params(lambda params: params["data"]["idx"].update(mirrors=["copy"]))
    output = scratch.run("dvc", "repro")
    run = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    assert run == ["download"]


def test_experiments_in_the_workspace_and_from_the_queue_can_be_compared(scratch):
    scratch.run(
        "dvc", "exp", "run", "--name=mlp", "-S", "network.kind=mlp", "-S", "train.epochs=1",
        "evaluate",
    )  # fmt: skip
    difference = scratch.run("dvc", "metrics", "diff")
    assert "accuracy" in difference
    assert "Change" in difference
    config = json.loads((scratch.path / "data/network/network.json").read_text())
    assert config["config"]["name"] == "mlp"

    scratch.run("dvc", "exp", "run", "--queue", "--name=few", "-S", "train.epochs=2", "train")
    scratch.run("dvc", "exp", "run", "--run-all")
    table = scratch.run("dvc", "exp", "show", "--csv")
    rows = {row["Experiment"]: row for row in csv.DictReader(io.StringIO(table))}
    assert [rows[name]["network.kind"] for name in ("mlp", "few")] == ["mlp", "mlp"]
    assert [rows[name]["train.epochs"] for name in ("mlp", "few")] == ["1", "2"]
    assert float(rows["mlp"]["accuracy"]) > 0.5
    assert "revision" in scratch.run("dvc", "plots", "diff", "mlp", "few", "--show-vega",
        "--targets", "data/training/plots/custom/loss.json")  # fmt: skip


def test_parameters_select_another_data_set_of_the_same_format(scratch):
    names = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat"]
    names += ["Sandal", "Shirt", "Sneaker", "Bag", "Boot"]

    def edit(params):
        take_from(params, FASHION)
        params["data"].update(name="Fashion-MNIST", source="Zalando SE; MIT", classes=names)
        params["network"]["kind"] = "mlp"
        params["train"]["validation_size"] = 100

    scratch.edit_params(edit)
    scratch.run("dvc", "repro", "export")
    metrics = json.loads((scratch.path / "data/evaluation/metrics.json").read_text())
    assert list(metrics["recall"]) == names
    card = (scratch.path / "data/model_card.md").read_text()
    assert "Fashion-MNIST" in card
    assert "Zalando" in card


def test_model_below_the_minimum_accuracy_leaves_the_previous_one_in_place(scratch, tmp_path):
    before = yaml.safe_load(lock(scratch))["stages"]["export"]
    scratch.edit_params(lambda params: params["export"]["min_accuracy"].update(cnn=1.0))
    output = scratch.run("dvc", "repro", status=None)
    [error] = [line for line in output.splitlines() if line.startswith("stages.export: ")]
    assert error.startswith("stages.export: the test accuracy of 0.")
    assert "below export.min_accuracy.cnn (1.0)" in error
    assert "Traceback" not in output
    assert list((scratch.path / "data").glob(".*.partial")) == []
    assert yaml.safe_load(lock(scratch))["stages"]["export"] == before
    pin.copy(pin.read(scratch.path / "dvc.lock"), tmp_path / "copy")  # raises if it differs


def test_edit_during_a_stage_is_not_recorded(scratch):
    before = yaml.safe_load(lock(scratch))["stages"]["train"]
    scratch.edit_params(lambda params: params["train"].update(epochs=1000))
    with subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=scratch.path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if "epoch 1/1000" in line:
                break
        with (scratch.path / "stages/train.py").open("a") as code:
            code.write("# an edit\n")
        output = process.stdout.read()
    assert process.returncode != 0
    assert (
        "stages.train: stages/train.py changed while the stage ran, so nothing was written; "
        "run `dvc repro` again" in output
    )
    assert yaml.safe_load(lock(scratch))["stages"]["train"] == before
    assert not (scratch.path / "data/network").exists()


def test_invalid_parameter_leaves_the_outputs_in_place(scratch):
    scratch.edit_params(lambda params: params["data"]["idx"].update(mirrors=[]))
    output = scratch.run(sys.executable, "-m", "stages", "download", status=1)
    assert output.startswith("stages.download: params.yaml: data.idx.mirrors: ")
    assert len(list((scratch.path / "data/idx").iterdir())) == 4


def test_failed_download_leaves_the_outputs_in_place(scratch):
    scratch.edit_params(lambda params: params["data"]["idx"].update(mirrors=["/no/such/folder"]))
    output = scratch.run(sys.executable, "-m", "stages", "download", status=1)
    assert "/no/such/folder: the folder does not exist" in output
    assert "Traceback" not in output
    assert len(list((scratch.path / "data/idx").iterdir())) == 4
    assert list((scratch.path / "data").glob(".*.partial")) == []


def test_png_files_do_not_depend_on_the_mirror(scratch):
    published = scratch.path / "mnist_png.tar.gz"
    with tarfile.open(published, "w:gz") as archive:
        archive.add(scratch.path / "data/png", "mnist_png")
    scratch.edit_params(lambda params: params["data"]["png"].update(mirrors=[str(published)]))
    before = yaml.safe_load(lock(scratch))["stages"]["png"]["outs"]
    output = scratch.run("dvc", "repro", "png")
    assert f"{published}: every image equals its IDX image" in output
    assert yaml.safe_load(lock(scratch))["stages"]["png"]["outs"] == before


def test_deleted_outputs_are_restored_from_the_run_cache(scratch):
    before = lock(scratch)
    for name in ("data/network", "data/model"):
        shutil.rmtree(scratch.path / name)
    output = scratch.run("dvc", "repro")
    assert "epoch" not in output
    assert lock(scratch) == before


@pytest.mark.parametrize("stage", STAGES)
def test_deps_list_exactly_the_modules_that_the_stage_imports(stage):
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    declared = {path for path in stages[stage]["deps"] if path.endswith(".py")}
    imported = imported_modules(f"stages/{stage}.py")
    if "stages/common/network.py" in imported:
        # The command imports it before the stage, and the results depend on it.
        imported.add("stages/common/determinism.py")
    assert declared == imported


def imported_modules(path):
    """Return a module and all modules of the project that it imports, directly or indirectly."""
    modules, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current in modules:
            continue
        modules.add(current)
        for node in ast.walk(ast.parse((PROJECT / current).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            files = [name.replace(".", "/") + ".py" for name in names]
            waiting += [file for file in files if (PROJECT / file).exists()]
    return modules
