import sys

import numpy as np
import tensorflow as tf

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
    answers = model.signatures["serving_default"](image=tf.constant(testing[0]))
    assert answers["label"].dtype == tf.int64
    assert answers["probabilities"].dtype == tf.float32
    np.testing.assert_array_equal(answers["label"], predictions)
    np.testing.assert_array_equal(tf.argmax(answers["probabilities"], 1), predictions)
    np.testing.assert_allclose(tf.reduce_sum(answers["probabilities"], 1), 1, rtol=1e-5)


def test_recognize_png_gives_the_same_for_png_files(repository, testing, predictions):
    model = tf.saved_model.load(str(repository.path / "data/model"))
    contents = tf.constant(png_files(repository, testing))
    answers = model.signatures["recognize_png"](png_bytes=contents)
    np.testing.assert_array_equal(answers["label"], predictions)
    assert answers["probabilities"].shape == (len(predictions), 10)


def test_saved_model_cli_shows_the_contract(repository):
    said = repository.run("saved_model_cli", "show", "--dir", "data/model", "--all")
    assert "tag-set: 'serve'" in said
    for name in ("serving_default", "recognize_png"):
        assert f"signature_def['{name}']" in said
    assert "dtype: DT_UINT8\n        shape: (-1, 28, 28)" in said
    assert "dtype: DT_STRING\n        shape: (-1)" in said
    assert said.count("dtype: DT_INT64\n        shape: (-1)") >= 2
    assert said.count("dtype: DT_FLOAT\n        shape: (-1, 10)") >= 2


def test_the_c_api_loads_the_graph_and_runs_it_on_raw_pixels(repository, testing, predictions):
    graph = Graph(repository.path / "data/mnistmodel", "model")
    pixels = testing[0].reshape(-1, 784).astype(np.float32)  # 0 to 255
    np.testing.assert_array_equal(graph.run("inputdata", pixels, "inference"), predictions)


def test_the_same_weights_export_to_the_same_bytes(scratch):
    before = {name: files(scratch.path / name) for name in ("data/model", "data/mnistmodel")}
    scratch.run(sys.executable, "-m", "stages", "export")
    assert before == {name: files(scratch.path / name) for name in before}


def test_the_exports_hold_files_only_and_no_random_identifier(repository):
    for name in ("data/model", "data/mnistmodel"):
        folder = repository.path / name
        assert all(any(files(path)) for path in folder.rglob("*") if path.is_dir())
        assert not (folder / "fingerprint.pb").exists()


def test_a_model_below_the_least_accuracy_is_not_exported(scratch):
    before = files(scratch.path / "data/model")
    scratch.edit_params(lambda params: params["export"]["min_accuracy"].update(cnn=1.0))
    said = scratch.run(sys.executable, "-m", "stages", "export", status=1)
    assert said.startswith("stages.export: the test accuracy of 0.")
    assert "below export.min_accuracy.cnn (1.0)" in said
    assert said.count("\n") == 1
    assert files(scratch.path / "data/model") == before
    assert sorted(path.name for path in (scratch.path / "data").glob(".*.partial")) == []


def test_a_picture_with_another_answer_is_named_and_nothing_is_exported(scratch, predictions):
    before = files(scratch.path / "data/model")
    table = scratch.path / "data/evaluation/predictions.csv"
    lines = table.read_text().splitlines()
    label, prediction = lines[1 + 7].split(",")
    lines[1 + 7] = f"{label},{(int(prediction) + 1) % 10}"
    table.write_text("\n".join(lines))
    said = scratch.run(sys.executable, "-m", "stages", "export", status=1)
    assert f"data/png/testing/{label}/7.png for {predictions[7]}, evaluation for" in said
    assert files(scratch.path / "data/model") == before


def test_another_answer_of_litert_is_named_and_nothing_is_exported(scratch):
    before = files(scratch.path / "data/model")
    module = scratch.path / "stages/export.py"
    module.write_text(module.read_text().replace("TOLERANCE = 1e-3", "TOLERANCE = -1.0"))
    said = scratch.run(sys.executable, "-m", "stages", "export", status=1)
    assert "assets.extra/model.tflite differs from TensorFlow by" in said
    assert "; the most is -1.0\n" in said
    assert files(scratch.path / "data/model") == before


def test_a_missing_picture_is_named(scratch, testing):
    missing = f"data/png/testing/{testing[1][7]}/7.png"
    (scratch.path / missing).unlink()
    said = scratch.run(sys.executable, "-m", "stages", "export", status=1)
    assert said == f"stages.export: {missing} is missing; run `dvc repro png`\n"
