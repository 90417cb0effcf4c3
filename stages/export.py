"""Export the trained network in two formats, if it is good enough.

    dvc repro export
    saved_model_cli show --dir data/model --all
    sha256sum --check data/model.sha256

The stage reads `data/network/`, `data/evaluation/`, `data/png/` and `export` in params.yaml. It
writes:

- `data/model/`, the artifact: a SavedModel with the signatures `serving_default` (images) and
  `recognize_png` (PNG files). Its folder `assets.extra` contains the same network for LiteRT, the
  figures of `evaluate` in figures.json, and the model card, which the service shows.
- `data/model.sha256`, its manifest: the SHA-256 of each file of the artifact.
- `data/mnistmodel/`: a frozen graph in a SavedModel for the TensorFlow C API.
- `data/model_card.md`: the intended use, the metrics and the limits of the model.

The stage rejects a network whose test accuracy is too low, or that is worse than the network of the
last commit (see `stages.common.gate`).

All inputs are pixels of 0 to 255. Before the stage replaces the previous outputs, a new process
loads the exports, recognizes every PNG file of the test split, and compares the labels with the
predictions of `evaluate`.
"""

import base64
import csv
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from service.recognition import engines, figures, images, manifest, quiet
from stages import evaluate
from stages.common import determinism, gate, network, params, paths
from stages.common.model_card import model_card
from stages.common.outputs import atomic_directory, write_atomically
from stages.common.runner import StageError

DECIMALS = 4  # of the confidence of a mistake
TOLERANCE = 1e-3  # largest allowed difference of a probability between LiteRT and TensorFlow

Outputs = dict[str, tf.Tensor]


class Artifact(tf.Module):
    """The network with the signatures of the artifact."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="artifact")
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec((None, 28, 28), tf.uint8, "image")])
    def recognize(self, image: tf.Tensor) -> Outputs:
        """Recognize images.

        Args:
            image: White ink on black, uint8 (N, 28, 28).

        Returns:
            `label`, int64 (N,), and `probabilities`, float32 (N, 10).
        """
        probabilities = tf.nn.softmax(self.model(tf.cast(image, tf.float32), training=False))
        return {"label": tf.argmax(probabilities, 1), "probabilities": probabilities}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "png_bytes")])
    def recognize_png(self, png_bytes: tf.Tensor) -> Outputs:
        """Recognize PNG files.

        Args:
            png_bytes: The content of PNG files of 28 x 28 pixels, string (N,).

        Returns:
            The outputs of `recognize`.
        """
        image = tf.map_fn(_decode_png, png_bytes, fn_output_signature=_IMAGE)
        return self.recognize(image)


_IMAGE = tf.TensorSpec((28, 28), tf.uint8)


def _decode_png(content: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.io.decode_png(content, channels=1)[..., 0], _IMAGE.shape)


def export_artifact(model: keras.Model, folder: Path) -> None:
    """Write the artifact to an empty folder.

    Equal weights give equal bytes if this is the first export of the process. The output of
    `tf.saved_model.save` is not reproducible (TensorFlow issue 54067): fingerprint.pb contains a
    random number, and the order of the maps in saved_model.pb varies. This function removes
    fingerprint.pb, which loaders do not need, and serializes saved_model.pb again.
    """
    module = Artifact(model)
    signatures = {engines.SIGNATURE: module.recognize, "recognize_png": module.recognize_png}
    tf.saved_model.save(module, str(folder), signatures)
    _convert(folder, folder / engines.FLATBUFFER)
    (folder / "fingerprint.pb").unlink()
    (folder / "assets").rmdir()  # DVC does not restore empty folders
    file = folder / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _convert(saved_model: Path, file: Path) -> None:
    """Convert `serving_default` to a LiteRT flatbuffer in float32."""
    loaded = tf.saved_model.load(str(saved_model))
    function = loaded.signatures[engines.SIGNATURE]
    # As of TensorFlow 2.21, the network that `from_saved_model` converts returns NaN.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], loaded)
    flatbuffer = converter.convert()
    file.parent.mkdir()
    file.write_bytes(flatbuffer)


def export_graph(model: keras.Model, folder: Path) -> None:
    """Write the network as a frozen graph for the TensorFlow C API, with the tag `model`.

    The operation `inputdata` takes pixels of 0 to 255, float32 (N, 784). The operation `inference`
    returns labels, int64 (N,). The weights are constants of the graph.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, 784), tf.float32, "inputdata")])
    def infer(pixels: tf.Tensor) -> tf.Tensor:
        return tf.argmax(model(tf.reshape(pixels, (-1, 28, 28)), training=False), 1)

    frozen = convert_variables_to_constants_v2(infer.get_concrete_function())
    with tf.Graph().as_default() as complete:
        (labels,) = tf.graph_util.import_graph_def(
            frozen.graph.as_graph_def(), return_elements=[frozen.outputs[0].name], name=""
        )
        tf.identity(labels, "inference")
    saved = SavedModel(saved_model_schema_version=1)
    meta_graph = saved.meta_graphs.add(graph_def=complete.as_graph_def())
    meta_graph.meta_info_def.tags.append("model")
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString(deterministic=True))


def list_files(artifact: Path) -> bytes:
    """Return the content of the artifact's manifest, with the SHA-256 of each file."""
    files = {
        file.relative_to(artifact).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in artifact.rglob("*")
        if file.is_file()
    }
    return manifest.render(files, paths.MODEL.as_posix())


def check(artifact: Path, graph: Path, png: Path, predictions: Path) -> int:
    """Recognize every PNG file of the test split with each export, and compare the results.

    The code of the service decodes the PNG files.

    Args:
        artifact: The exported artifact.
        graph: The exported graph for the C API.
        png: The folder of the test split's PNG files.
        predictions: The predictions.csv of `evaluate`, with one row for each test image.

    Returns:
        The number of PNG files.

    Raises:
        StageError: A PNG file is missing, a label differs from the prediction of `evaluate`, or a
            probability of LiteRT differs from TensorFlow's by more than `TOLERANCE`. The text
            names the first missing or differing file.
    """
    labels_of, expected = _read(predictions)
    files = [png / str(label) / f"{number}.png" for number, label in enumerate(labels_of)]
    missing = next((file for file in files if not file.exists()), None)
    if missing:
        raise StageError(f"{missing} is missing; run `dvc repro png`")
    pictures = np.stack([images.decode(file.read_bytes()) for file in files])
    labels, probabilities = engines.load(artifact, "tensorflow").recognize(pictures)
    lite_labels, lite_probabilities = engines.load(artifact, "litert").recognize(pictures)
    for export, recognized in (
        (artifact, labels),
        (artifact / engines.FLATBUFFER, lite_labels),
        (graph, _infer(graph, pictures)),
    ):
        if (recognized != expected).any():
            first = int((recognized != expected).argmax())
            raise StageError(
                f"{export} recognizes {files[first]} as {recognized[first]}, but evaluate "
                f"predicted {expected[first]}; run `dvc repro --force evaluate export`"
            )
    differences = np.abs(lite_probabilities - probabilities).max(1)
    if differences.max() > TOLERANCE:
        raise StageError(
            f"{artifact / engines.FLATBUFFER} differs from TensorFlow by "
            f"{differences.max():.2g} in a probability of {files[int(differences.argmax())]}; "
            f"the limit is {TOLERANCE}"
        )
    return len(files)


def confusion_matrix(predictions: Path) -> list[list[int]]:
    """Count the test images by their label (row) and their prediction (column).

    Args:
        predictions: The predictions.csv of `evaluate`.
    """
    labels, predicted = _read(predictions)
    return np.bincount(10 * labels + predicted, minlength=100).reshape(10, 10).tolist()


def worst_mistakes(model: keras.Model, png: Path, predictions: Path) -> list[dict[str, Any]]:
    """Return the most confident mistakes, those of the picture that `evaluate` draws.

    Args:
        model: The network.
        png: The folder of the test split's PNG files.
        predictions: The predictions.csv of `evaluate`.

    Returns:
        The fields of a `figures.Mistake` for each mistake, in order of confidence.
    """
    labels, predicted = _read(predictions)
    wrong = np.flatnonzero(labels != predicted)
    files = [(png / str(labels[number]) / f"{number}.png").read_bytes() for number in wrong]
    pixels = np.array([images.decode(content) for content in files], np.uint8).reshape(-1, 28, 28)
    confidence = network.probabilities(model, pixels).max(1) if len(wrong) else np.empty(0)
    order = np.argsort(-confidence, kind="stable")[: evaluate.GALLERY[0] * evaluate.GALLERY[1]]
    return [
        {
            "id": int(wrong[place]),
            "label": int(labels[wrong[place]]),
            "prediction": int(predicted[wrong[place]]),
            "confidence": round(float(confidence[place]), DECIMALS),
            "png": base64.b64encode(files[place]).decode(),
        }
        for place in order
    ]


def _read(predictions: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the predictions of the test images, int64 (N,)."""
    with predictions.open(newline="") as file:
        rows = [(int(row["label"]), int(row["prediction"])) for row in csv.DictReader(file)]
    labels, predicted = np.array(rows, np.int64).T
    return labels, predicted


def _infer(graph: Path, pictures: np.ndarray) -> np.ndarray:
    infer = tf.saved_model.load(str(graph), tags=["model"]).prune("inputdata:0", "inference:0")
    return infer(tf.constant(pictures.reshape(len(pictures), -1), tf.float32)).numpy()


def main() -> None:
    chosen = params.load()
    metrics = json.loads((paths.EVALUATION / evaluate.METRICS).read_text())
    accuracy = metrics["accuracy"]
    if accuracy < chosen.min_accuracy:
        key = f"export.min_accuracy.{chosen.network.kind}"
        raise StageError(
            f"the test accuracy of {accuracy} is below {key} ({chosen.min_accuracy}); "
            "the exported model is unchanged"
        )
    if reason := gate.refusal(chosen, metrics):
        raise StageError(f"{reason}; the exported model is unchanged")
    model = network.fold(network.load(paths.NETWORK))
    machine = (paths.NETWORK / determinism.MACHINE).read_text().strip()
    png, predictions = paths.PNG / "testing", paths.EVALUATION / evaluate.PREDICTIONS
    with (
        atomic_directory(paths.MODEL) as artifact,
        atomic_directory(paths.GRAPH) as graph,
    ):
        try:
            export_artifact(model, artifact)
            export_graph(model, graph)
            # With `max_tasks_per_child`, the process ends by itself even if this one is killed.
            with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
                arguments = artifact, graph, png, predictions
                count = pool.submit(quiet.call, "stages.export", "check", *arguments).result()
        except tf.errors.OpError as error:  # for example, the disk is full
            raise StageError(f"TensorFlow: {error.message.rpartition('}} ')[2]}") from error
        except BrokenProcessPool as error:
            raise StageError("the process that checks the export was killed") from error
        content = {
            "name": chosen.data.name,
            "classes": chosen.data.classes,
            "metrics": metrics,
            "confusion": confusion_matrix(predictions),
            "mistakes": worst_mistakes(model, png, predictions),
            "distributions": json.loads((paths.EVALUATION / evaluate.DISTRIBUTIONS).read_text()),
        }
        (artifact / figures.FILE).write_text(json.dumps(content, indent=1) + "\n")
        (artifact / figures.CARD).write_text(model_card(chosen, metrics, machine))
    listed = list_files(paths.MODEL)
    write_atomically(paths.MANIFEST, listed)
    sha256 = hashlib.sha256(listed).hexdigest()
    card = model_card(chosen, metrics, machine, sha256)
    write_atomically(paths.MODEL_CARD, card.encode())
    print(f"exported; the labels of {count:,} PNG files match the predictions of evaluate")
