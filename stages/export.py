"""Export the trained network, if it is good enough, in the two forms that programs load.

    dvc repro export
    saved_model_cli show --dir data/model --all

Reads `data/network/`, `data/evaluation/`, `data/png/` and `export` in params.yaml. Writes
`data/model/`, the artifact: a SavedModel with the signatures `serving_default` (images) and
`recognize_png` (PNG files), and inside it the same network for LiteRT; and `data/mnistmodel/`, a
frozen graph in a SavedModel for the TensorFlow C API; all take pixels of 0 to 255. Before they
take their places a fresh process loads them and checks every PNG file of the test split against
what evaluation answered. Last, `data/model_card.md` says what the model is for and how good it is.
"""

import csv
import json
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from service.recognition import engines, images
from stages import evaluate
from stages.common import network, params
from stages.common.model_card import model_card
from stages.common.runner import StageError, atomic_directory, write_atomically

PNG = Path("data/png/testing")
CARD = Path("data/model_card.md")

TOLERANCE = 1e-3  # most by which a probability of LiteRT may differ from TensorFlow's

Outputs = dict[str, tf.Tensor]


class Artifact(tf.Module):
    """The network with the signatures of the artifact."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="artifact")
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec((None, 28, 28), tf.uint8, "image")])
    def recognize(self, image: tf.Tensor) -> Outputs:
        """Images, white ink on black, to `label` int64 (N,) and `probabilities` float32 (N, 10)."""
        probabilities = tf.nn.softmax(self.model(tf.cast(image, tf.float32), training=False))
        return {"label": tf.argmax(probabilities, 1), "probabilities": probabilities}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "png_bytes")])
    def recognize_png(self, png_bytes: tf.Tensor) -> Outputs:
        """PNG files of 28 x 28 pixels to the same."""
        image = tf.map_fn(_decode_png, png_bytes, fn_output_signature=_IMAGE)
        return self.recognize(image)


_IMAGE = tf.TensorSpec((28, 28), tf.uint8)


def _decode_png(content: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.io.decode_png(content, channels=1)[..., 0], _IMAGE.shape)


def export_artifact(model: keras.Model, folder: Path) -> None:
    """Write the artifact; equal weights give equal bytes when a process does this first.

    `tf.saved_model.save` writes a random number into fingerprint.pb, which loaders do without,
    and the maps of saved_model.pb in any order; so one is removed and the other written again.
    """
    module = Artifact(model)
    signatures = {engines.SIGNATURE: module.recognize, "recognize_png": module.recognize_png}
    tf.saved_model.save(module, str(folder), signatures)
    _convert(folder, folder / engines.FLATBUFFER)
    (folder / "fingerprint.pb").unlink()
    (folder / "assets").rmdir()  # empty, and so nothing that DVC would bring back
    file = folder / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _convert(saved_model: Path, file: Path) -> None:
    """Write `serving_default` as a flatbuffer for LiteRT, in float32."""
    loaded = tf.saved_model.load(str(saved_model))
    function = loaded.signatures[engines.SIGNATURE]
    # Not `from_saved_model`: what that makes of this network answers NaN.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], loaded)
    flatbuffer = converter.convert()
    file.parent.mkdir()
    file.write_bytes(flatbuffer)


def export_graph(model: keras.Model, folder: Path) -> None:
    """Write the network for the C API: tag `model`, `inputdata` to `inference`.

    `inputdata` is float32 (N, 784) of pixels 0 to 255, `inference` int64 (N,). The weights are
    constants of the graph.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, 784), tf.float32, "inputdata")])
    def infer(pixels: tf.Tensor) -> tf.Tensor:
        return tf.argmax(model(tf.reshape(pixels, (-1, 28, 28)), training=False), 1)

    frozen = convert_variables_to_constants_v2(infer.get_concrete_function())
    with tf.Graph().as_default() as complete:
        (answer,) = tf.graph_util.import_graph_def(
            frozen.graph.as_graph_def(), return_elements=[frozen.outputs[0].name], name=""
        )
        tf.identity(answer, "inference")
    saved = SavedModel(saved_model_schema_version=1)
    only = saved.meta_graphs.add(graph_def=complete.as_graph_def())
    only.meta_info_def.tags.append("model")
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString(deterministic=True))


def check(artifact: Path, graph: Path, png: Path, predictions: Path) -> int:
    """Recognise every PNG file with all that was exported, as the service and the C API would.

    Args:
        predictions: evaluation's table, a row for each image of the test split.

    Returns:
        How many were compared.

    Raises:
        StageError: a file is missing, an answer is not the one that evaluation gave, or the
            probabilities of LiteRT are not those of TensorFlow; the text names the first.
    """
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = [png / row["label"] / f"{number}.png" for number, row in enumerate(rows)]
    missing = next((file for file in files if not file.exists()), None)
    if missing:
        raise StageError(f"{missing} is missing; run `dvc repro png`")
    pictures = np.stack([images.decode(file.read_bytes()) for file in files])
    expected = np.array([int(row["prediction"]) for row in rows])
    labels, probabilities = engines.load(artifact, "tensorflow").recognize(pictures)
    lite_labels, lite_probabilities = engines.load(artifact, "litert").recognize(pictures)
    for export, answers in (
        (artifact, labels),
        (artifact / engines.FLATBUFFER, lite_labels),
        (graph, _infer(graph, pictures)),
    ):
        if (answers != expected).any():
            first = int((answers != expected).argmax())
            raise StageError(
                f"{export} takes {files[first]} for {answers[first]}, evaluation for "
                f"{expected[first]}; run `dvc repro --force evaluate export`"
            )
    differences = np.abs(lite_probabilities - probabilities).max(1)
    if differences.max() > TOLERANCE:
        raise StageError(
            f"{artifact / engines.FLATBUFFER} differs from TensorFlow by "
            f"{differences.max():.2g} in a probability of {files[int(differences.argmax())]}; "
            f"the most is {TOLERANCE}"
        )
    return len(files)


def _infer(graph: Path, pictures: np.ndarray) -> np.ndarray:
    infer = tf.saved_model.load(str(graph), tags=["model"]).prune("inputdata:0", "inference:0")
    return infer(tf.constant(pictures.reshape(len(pictures), -1), tf.float32)).numpy()


def main() -> None:
    chosen = params.load()
    metrics = json.loads((evaluate.FOLDER / evaluate.METRICS).read_text())
    accuracy = metrics["accuracy"]
    if accuracy < chosen.min_accuracy:
        key = f"export.min_accuracy.{chosen.network.kind}"
        raise StageError(
            f"the test accuracy of {accuracy} is below {key} ({chosen.min_accuracy}); "
            "nothing was exported"
        )
    model = network.load(Path("data/network"))
    with (
        atomic_directory(Path("data/model")) as artifact,
        atomic_directory(Path("data/mnistmodel")) as graph,
    ):
        try:
            export_artifact(model, artifact)
            export_graph(model, graph)
            # It ends after this task, even if nobody is left to tell it to.
            with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
                predictions = evaluate.FOLDER / evaluate.PREDICTIONS
                count = fresh.submit(check, artifact, graph, PNG, predictions).result()
        except tf.errors.OpError as error:  # such as a full disk
            raise StageError(f"TensorFlow: {error.message.rpartition('}} ')[2]}") from error
        except BrokenProcessPool as error:
            raise StageError("the process that checks the export was killed") from error
    write_atomically(CARD, model_card(chosen, metrics))
    print(f"exported; {count:,} PNG files give the labels that evaluation gave")
