"""What one answer of the exported network costs, in TensorFlow and in LiteRT.

    python -m tests.benchmarks.inference

Median microseconds an image on one thread, for batches of 1 and of 256. Needs `data/model`.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

from service.quiet import tf

import numpy as np

from stages import network

ROUNDS = {1: 500, 256: 20}


def median(call: Callable[[], object], rounds: int) -> float:
    """Microseconds of one call."""
    times = []
    for _ in range(rounds + rounds // 10):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[rounds // 10 :]) * 1e6


def tensorflow(images: np.ndarray) -> Callable[[], object]:
    model = tf.saved_model.load("data/model")
    call = model.signatures["serving_default"]
    return lambda: (model, call(image=tf.constant(images)))


def litert(images: np.ndarray) -> Callable[[], object]:
    model = tf.saved_model.load("data/model")
    function = model.signatures["serving_default"]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    interpreter = tf.lite.Interpreter(model_content=converter.convert(), num_threads=1)
    given = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(given, images.shape)
    interpreter.allocate_tensors()

    def call() -> None:
        interpreter.set_tensor(given, images)
        interpreter.invoke()

    return call


def main() -> None:
    model = network.load(Path("data/network"))
    print(
        f"{model.count_params():,} parameters, {network.multiply_adds(model):,} multiply-adds\n\n"
        "| engine | us an image, batch 1 | us an image, batch 256 |\n|---|---|---|"
    )
    for engine in (tensorflow, litert):
        cells = []
        for batch, rounds in ROUNDS.items():
            images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28), np.uint8)
            cells.append(f"{median(engine(images), rounds) / batch:.0f}")
        print(f"| {engine.__name__} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
