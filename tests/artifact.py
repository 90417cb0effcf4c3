"""Make a small artifact and the dvc.lock that pins it, as the service needs them, without DVC.

    python -m tests.artifact FOLDER

The network is an mlp that trains for three epochs on the slice in tests/mnist. The program writes
data/model, data/model.sha256, dvc.lock and predictions.npy, which contains the labels that Keras
predicts for the test images, int64 (500,).
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from service.recognition import pin
from stages import export
from stages.common import network, params
from tests.conftest import load_slice, pin_artifact

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


if __name__ == "__main__":
    main()
