import base64
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from service.recognition import distributions, engines, figures
from service.recognition.images import decode
from stages import export
from stages.common import network
from stages.common.runner import StageError
from tests.c_api import Graph


def files(folder):
    return {
        file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


def png_files(repository, testing):
    folder = repository.path / "data/png/testing"
    return [
        (folder / str(label) / f"{number}.png").read_bytes()
        for number, label in enumerate(testing[1])
    ]


def test_serving_default_recognizes_images(repository, testing, predictions):
    model = tf.saved_model.load(str(repository.path / "data/model"))
    outputs = model.signatures["serving_default"](image=tf.constant(testing[0]))
    assert outputs["label"].dtype == tf.int64
    assert outputs["probabilities"].dtype == tf.float32
    np.testing.assert_array_equal(outputs["label"], predictions)
    np.testing.assert_array_equal(tf.argmax(outputs["probabilities"], 1), predictions)
    np.testing.assert_allclose(tf.reduce_sum(outputs["probabilities"], 1), 1, rtol=1e-5)


def test_recognize_png_recognizes_png_files(repository, testing, predictions):
    model = tf.saved_model.load(str(repository.path / "data/model"))
    contents = tf.constant(png_files(repository, testing))
    outputs = model.signatures["recognize_png"](png_bytes=contents)
    np.testing.assert_array_equal(outputs["label"], predictions)
    assert outputs["probabilities"].shape == (len(predictions), 10)


def test_saved_model_cli_shows_the_signatures(repository):
    output = repository.run("saved_model_cli", "show", "--dir", "data/model", "--all")
    assert "tag-set: 'serve'" in output
    for name in ("serving_default", "recognize_png"):
        assert f"signature_def['{name}']" in output
    assert "dtype: DT_UINT8\n        shape: (-1, 28, 28)" in output
    assert "dtype: DT_STRING\n        shape: (-1)" in output
    assert output.count("dtype: DT_INT64\n        shape: (-1)") >= 2
    assert output.count("dtype: DT_FLOAT\n        shape: (-1, 10)") >= 2


def test_c_api_runs_the_graph_on_raw_pixels(repository, testing, predictions):
    graph = Graph(repository.path / "data/mnistmodel", "model")
    pixels = testing[0].reshape(-1, 784).astype(np.float32)  # 0 to 255
    np.testing.assert_array_equal(graph.run("inputdata", pixels, "inference"), predictions)


def test_sha256sum_verifies_the_artifact(scratch):
    check = ("sha256sum", "--check", "data/model.sha256")
    lines = scratch.run(*check).splitlines()
    names = sorted(str(name) for name in files(scratch.path / "data/model"))
    assert lines == [f"data/model/{name}: OK" for name in names]
    assert "data/model.sha256" in scratch.run("git", "ls-files", "data")
    file = scratch.path / "data/model/saved_model.pb"
    content = file.read_bytes()
    file.unlink()  # the file may be a link to DVC's cache
    file.write_bytes(content + b"x")
    assert "data/model/saved_model.pb: FAILED\n" in scratch.run(*check, status=1)


def test_model_card_names_the_sha256_of_the_manifest(repository, sha256):
    card = (repository.path / "data/model_card.md").read_text()
    assert f"SHA-256 of data/model.sha256: `{sha256}`" in card


def test_the_artifact_has_its_figures(repository, testing, predictions):
    data = repository.path / "data"
    found = figures.read(data / "model")
    assert found is not None
    assert found.metrics == json.loads((data / "evaluation/metrics.json").read_text())
    np.testing.assert_array_equal(
        found.confusion,
        [
            np.bincount(predictions[testing[1] == label], minlength=10).tolist()
            for label in range(10)
        ],
    )
    file = data / "evaluation/distributions.json"
    assert found.distributions == distributions.parse(json.loads(file.read_text()))
    assert found.distributions.label.counts == np.bincount(predictions, minlength=10).tolist()
    card = (data / "model_card.md").read_text()
    assert found.card.partition("Trained on")[2] == card.partition("Trained on")[2]


def test_the_most_confident_mistakes_come_first(repository, testing, predictions):
    images, labels = testing
    artifact = repository.path / "data/model"
    found = figures.read(artifact)
    assert found is not None
    _, probabilities = engines.load(artifact, "litert").recognize(images)
    wrong = np.flatnonzero(predictions != labels)
    confidence = probabilities.max(1)
    assert len(found.mistakes) == min(len(wrong), 32)
    shown = [mistake.id for mistake in found.mistakes]
    assert set(shown) <= set(wrong)
    assert [mistake.confidence for mistake in found.mistakes] == pytest.approx(
        sorted(confidence[wrong], reverse=True)[:32], abs=1e-3
    )
    for mistake in found.mistakes:
        assert (mistake.label, mistake.prediction) == (labels[mistake.id], predictions[mistake.id])
        pixels = decode(base64.b64decode(mistake.png))
        np.testing.assert_array_equal(pixels, images[mistake.id])


def test_a_network_without_mistakes_has_none(repository, tmp_path, testing):
    table = tmp_path / "predictions.csv"
    rows = [f"{label},{label}" for label in testing[1]]
    table.write_text("\n".join(["label,prediction", *rows]))
    model = network.load(repository.path / "data/network")
    assert export.worst_mistakes(model, repository.path / "data/png/testing", table) == []
    assert np.trace(export.confusion_matrix(table)) == len(rows)


def test_exports_contain_no_empty_folder_and_no_fingerprint(repository):
    for name in ("data/model", "data/mnistmodel"):
        folder = repository.path / name
        assert all(any(files(path)) for path in folder.rglob("*") if path.is_dir())
        assert not (folder / "fingerprint.pb").exists()


def check(repository, predictions):
    """Compare the exports of a repository with `predictions`, a file."""
    data = repository.path / "data"
    return export.check(data / "model", data / "mnistmodel", data / "png/testing", predictions)


def test_an_export_whose_labels_differ_from_evaluate_leaves_the_previous_one(scratch, predictions):
    before = files(scratch.path / "data/model")
    table = scratch.path / "data/evaluation/predictions.csv"
    lines = table.read_text().splitlines()
    label, prediction = lines[1 + 7].split(",")
    lines[1 + 7] = f"{label},{(int(prediction) + 1) % 10}"
    table.write_text("\n".join(lines))
    output = scratch.run(sys.executable, "-m", "stages", "export", status=1)
    assert f"data/png/testing/{label}/7.png as {predictions[7]}, but evaluate predicted" in output
    assert files(scratch.path / "data/model") == before


def test_probabilities_of_litert_that_differ_are_an_error(repository, monkeypatch):
    predictions = repository.path / "data/evaluation/predictions.csv"
    assert check(repository, predictions) == 500
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(StageError, match=r"model.tflite differs from .*; the limit is -1.0$"):
        check(repository, predictions)


def test_a_missing_png_file_is_an_error(repository, testing, tmp_path):
    lines = (repository.path / "data/evaluation/predictions.csv").read_text().splitlines()
    (tmp_path / "predictions.csv").write_text("\n".join([*lines, lines[1]]))
    label, _ = lines[1].split(",")
    with pytest.raises(StageError, match=f"{label}/500.png is missing; run `dvc repro png`"):
        check(repository, tmp_path / "predictions.csv")


def test_a_network_worse_than_that_of_the_last_commit_is_refused(scratch, monkeypatch):
    scratch.edit_params(lambda params: params["export"].update(max_loss=0.0))
    metrics = scratch.path / "data/evaluation/metrics.json"
    content = json.loads(metrics.read_text())
    content["accuracy"] -= 0.002
    metrics.write_text(json.dumps(content))
    before = files(scratch.path / "data/model")
    monkeypatch.chdir(scratch.path)
    with pytest.raises(StageError, match=r"more than export.max_loss \(0.0\) below .* unchanged$"):
        export.main()
    assert files(scratch.path / "data/model") == before
