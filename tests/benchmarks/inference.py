"""Measure the inference time of the exported network in each engine of the service.

    python -m tests.benchmarks.inference

The program prints the median time per image in microseconds, on one thread, for batches of 1 and
256 images, and saves it. It needs `data/network` and `data/model`.
"""

import os
import statistics
import time

os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

import numpy as np

from service.recognition import engines
from stages.common import network, paths
from tests.benchmarks import tables

NAMES = {"litert": "LiteRT", "tensorflow": "TensorFlow"}  # as in the other tables
ROUNDS = {1: 500, 256: 20}  # number of measurements for each batch size
COLUMNS = {"engine": ""} | {f"µs per image, batch {batch}": ".0f" for batch in ROUNDS}


def median(engine: engines.Recognizer, batch: int, rounds: int) -> float:
    """Return the median time per image in microseconds."""
    images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28), np.uint8)
    times = []
    for _ in range(rounds + rounds // 10):
        start = time.perf_counter()
        engine.recognize(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times[rounds // 10 :]) / batch * 1e6


def main() -> None:
    model = network.load(paths.NETWORK)
    print(f"{model.count_params():,} parameters, {network.multiply_adds(model):,} multiply-adds")
    rows: list[tables.Row] = []
    for kind, name in NAMES.items():
        engine = engines.load(paths.MODEL, kind)
        medians = [median(engine, *sizes) for sizes in ROUNDS.items()]
        rows.append(dict(zip(COLUMNS, [name, *medians], strict=True)))
    table = tables.Table(COLUMNS, rows)
    tables.report("inference", {"engines": table}, "Random images, one thread.")


if __name__ == "__main__":
    main()
