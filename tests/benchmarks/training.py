"""Measure the time to accuracy of this project's recipes and of well-known recipes.

    python -m tests.benchmarks.training              # cnn and keras
    python -m tests.benchmarks.training cnn keras torch mlp original

Each recipe trains in its own process. After each epoch, the program measures the accuracy on the
test split. The times include only the training, except for cnn and mlp, whose times also include
these measurements. On two cores, cnn, keras and torch take two to eight minutes each, and the
others seconds. The program prints a table, and saves it if all recipes ran. It needs the inputs of
the stage `train`, so run `dvc repro` first.

- cnn: the default run of params.yaml.
- keras: the convnet of https://keras.io/examples/vision/mnist_convnet, with batches of 128, 15
  epochs, a tenth of the training split for validation, and Adam with Keras' defaults.
- torch: https://github.com/pytorch/examples/tree/main/mnist with its defaults, except for 6 epochs.
  The batches have 64 images, and Adadelta has a learning rate of 1 that falls by a factor of 0.7
  after each epoch. This recipe needs PyTorch.
- mlp: `network.kind=mlp` for 3 epochs.
- original: the mlp as trained by the script that this project replaces. The initial weights have a
  normal distribution that does not depend on the size of the layer. The recipe uses batches of 100,
  Adam with a learning rate of 0.01, and 3 epochs.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any, Literal

from stages.common import determinism, idx, params, paths
from tests.benchmarks import tables

MARKS = (0.99, 0.995)  # test accuracies whose times the table shows
COLUMNS = {
    "recipe": "",
    "s per epoch": ".1f",
    "s to 99.0 %": ".0f",
    "s to 99.5 %": ".0f",
    "last accuracy": ".2%",
    "s in all": ".0f",
}

Point = tuple[float, float]  # seconds of training so far, test accuracy


def cnn() -> Iterator[Point]:
    yield from _run_of_project("cnn", params.load().train.epochs)


def mlp() -> Iterator[Point]:
    yield from _run_of_project("mlp", 3)


def _run_of_project(kind: Literal["cnn", "mlp"], epochs: int) -> list[Point]:
    loaded = params.load()
    chosen = loaded.model_copy(update={"network": loaded.network.model_copy(update={"kind": kind})})
    determinism.limit_instructions()
    determinism.limit_threads(chosen.threads)
    import keras

    from stages import train
    from stages.common import network

    images, labels = idx.load(paths.IDX, "training")
    cut = len(labels) - chosen.train.validation_size
    keras.utils.set_random_seed(chosen.train.seed)
    points: list[Point] = []
    start = time.perf_counter()

    def after_epoch(figures: dict[str, float]) -> None:
        # The training measures the accuracy on its validation split, which is the test split here,
        # and makes no decision from it. The time includes this measurement.
        points.append((time.perf_counter() - start, figures["validation/accuracy"]))

    train.train(
        network.build(chosen.network),
        (images[:cut], labels[:cut]),
        idx.load(paths.IDX, "testing"),
        chosen.recipe,
        epochs,
        chosen.train.seed,
        after_epoch,
        handwriting=train._handwriting(chosen),
        drawn_digits=idx.load(paths.DRAWN_DIGITS, "training"),
        non_digits=idx.load(paths.NON_DIGITS, "training")[0],
    )
    return points


def original() -> Iterator[Point]:
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    images, labels = idx.load(paths.IDX, "training")
    test_images, test_labels = idx.load(paths.IDX, "testing")
    unscaled = keras.initializers.RandomNormal(stddev=1.0)
    hidden = [layers.Dense(256, "relu", kernel_initializer=unscaled) for _ in range(2)]
    model = keras.Sequential(
        [
            layers.Input((784,)),
            *hidden,
            layers.Dense(10, kernel_initializer=unscaled),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer=keras.optimizers.Adam(0.01))
    scaled = images.reshape(-1, 784).astype("float32") / 255
    scaled_tests = test_images.reshape(-1, 784).astype("float32") / 255
    spent = 0.0
    for _ in range(3):
        start = time.perf_counter()
        model.fit(scaled, labels, batch_size=100, epochs=1, verbose=0)
        spent += time.perf_counter() - start
        predictions = model.predict(scaled_tests, batch_size=1000, verbose=0).argmax(1)
        yield spent, float((predictions == test_labels).mean())


def keras_convnet() -> Iterator[Point]:
    import keras
    import numpy as np
    from keras import layers

    keras.utils.set_random_seed(1)
    images, labels = idx.load(paths.IDX, "training")
    scaled = images[..., np.newaxis].astype("float32") / 255
    targets = keras.utils.to_categorical(labels, 10)
    testing = idx.load(paths.IDX, "testing")
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    test_images = testing[0][..., np.newaxis].astype("float32") / 255
    spent = 0.0
    for _ in range(15):
        start = time.perf_counter()
        model.fit(scaled, targets, batch_size=128, epochs=1, validation_split=0.1, verbose=0)
        spent += time.perf_counter() - start
        predictions = model.predict(test_images, batch_size=1000, verbose=0).argmax(1)
        yield spent, float((predictions == testing[1]).mean())


def torch_example() -> Iterator[Point]:
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(1)

    def tensors(split: str) -> tuple[Any, Any]:
        images, labels = idx.load(paths.IDX, split)
        pixels = torch.from_numpy(images.copy()).unsqueeze(1).float() / 255
        return (pixels - 0.1307) / 0.3081, torch.from_numpy(labels.copy()).long()

    images, labels = tensors("training")
    testing = tensors("testing")
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout2d(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
    spent = 0.0
    for _ in range(6):
        start = time.perf_counter()
        model.train()
        for rows in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
        spent += time.perf_counter() - start
        model.eval()
        with torch.no_grad():
            predictions = torch.cat([model(part).argmax(1) for part in testing[0].split(1000)])
        yield spent, float((predictions == testing[1]).float().mean())


RECIPES = {
    "cnn": cnn,
    "keras": keras_convnet,
    "torch": torch_example,
    "mlp": mlp,
    "original": original,
}


def measure(name: str) -> list[Point]:
    """Run one recipe and print each point."""
    points = []
    for seconds, accuracy in RECIPES[name]():
        points.append((seconds, accuracy))
        print(f"{name}: {seconds:.1f} s, {accuracy:.2%}", flush=True)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure time to accuracy on this machine.")
    parser.add_argument(
        "recipes",
        nargs="*",
        metavar="RECIPE",
        help=f"recipes to measure: {', '.join(RECIPES)} (default: cnn keras)",
    )
    names = parser.parse_args().recipes or ["cnn", "keras"]
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        parser.error(f"{unknown[0]} is not a recipe; the recipes are {', '.join(RECIPES)}")
    points = {}
    for name in names:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            points[name] = fresh.apply(measure, (name,))
    rows = [_row(name, course) for name, course in points.items()]
    settings = "Each recipe was trained once: torch with PyTorch, the others with TensorFlow."
    save = set(names) == set(RECIPES)
    tables.report("training", {"recipes": tables.Table(COLUMNS, rows)}, settings, save=save)


def _row(name: str, course: list[Point]) -> tables.Row:
    reached = [next((s for s, a in course if a >= mark), "-") for mark in MARKS]
    total, last = course[-1]
    cells = (name, total / len(course), *reached, last, total)
    return dict(zip(COLUMNS, cells, strict=True))


if __name__ == "__main__":
    main()
