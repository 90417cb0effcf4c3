"""Make a small artifact and the dvc.lock that pins it, as the service needs them, without DVC.

    python -m tests.artifact FOLDER

The network is an mlp that trains for three epochs on the slice in tests/mnist. The program writes
data/model, data/model.sha256, dvc.lock and predictions.npy, which contains the labels that Keras
predicts for the test images, int64 (500,).
"""

import hashlib
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import yaml

from service.recognition import pin
from stages import export
from stages.common import network, params
from tests.conftest import load_slice

EPOCHS, BATCH = 3, 20


def main() -> None:
    folder = Path(sys.argv[1])
    artifact = folder / pin.ARTIFACT
    artifact.mkdir(parents=True)
    trained = train()
    export.export_artifact(trained, artifact)
    pin_artifact(folder)
    images, _ = load_slice("testing")
    np.save(folder / "predictions.npy", network.probabilities(trained, images).argmax(1))


def train() -> keras.Model:
    tf.keras.utils.set_random_seed(1)
    model = network.build(
        params.Network(kind="mlp", cnn=params.Cnn(filters=[1] * 4), mlp=params.Mlp(hidden=[32]))
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(*load_slice("training"), epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


def pin_artifact(folder: Path) -> None:
    """Write the manifest of the artifact, and the part of dvc.lock that pins both."""
    artifact = folder / pin.ARTIFACT
    files = {
        file.relative_to(artifact).as_posix(): hashlib.md5(file.read_bytes()).hexdigest()
        for file in artifact.rglob("*")
        if file.is_file()
    }
    listed = export.list_files(artifact)
    (folder / pin.MANIFEST).write_bytes(listed)
    outputs = [
        {"path": pin.ARTIFACT, "hash": "md5", "md5": f"{pin.directory_hash(files)}.dir"},
        {"path": pin.MANIFEST, "hash": "md5", "md5": hashlib.md5(listed).hexdigest()},
    ]
    lock = {"schema": "2.0", "stages": {"export": {"outs": outputs}}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


if __name__ == "__main__":
    main()
