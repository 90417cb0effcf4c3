"""Show how the accuracy depends on the seed: a table of the experiments seed-1, seed-2 and so on.

    dvc exp run --queue --name seed -S 'train.seed=1,2,3,4,5' evaluate
    dvc queue start
    python -m tests.benchmarks.seeds                # when the queue is empty

The program reads the experiments from DVC, prints their figures and saves them.
"""

import csv
import statistics
import subprocess
import sys

from tests.benchmarks import tables

NAME = "seed-"
# The columns of the table, and the metric that each shows.
METRICS = {
    "accuracy": "accuracy",
    "errors": "errors",
    "validation accuracy": "validation.accuracy",
    "calibration error": "expected_calibration_error",
    "Semeion": "handwriting.semeion.accuracy",
    "Optdigits": "handwriting.optdigits.accuracy",
    "MNIST-C": "robustness_mean",
    "MNIST-C, lowest": "robustness_lowest",
    "MNIST-C, calibration error": "robustness_calibration_error",
}
COLUMNS = {"experiment": ""} | dict.fromkeys(METRICS, ".2%") | {"errors": ".1f"}


def main() -> None:
    command = [sys.executable, "-m", "dvc", "exp", "show", "--csv"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    runs = {
        found["Experiment"]: [float(found[metric]) for metric in METRICS.values()]
        for found in csv.DictReader(shown.splitlines())
        if found["Experiment"].startswith(NAME) and found["accuracy"]
    }
    if len(runs) < 2:
        sys.exit(f"DVC has fewer than two finished experiments named {NAME}*; run them first")
    columns = [*zip(*runs.values(), strict=True)]
    figures = {
        **dict(sorted(runs.items())),
        "mean": [*map(statistics.mean, columns)],
        "standard deviation": [*map(statistics.stdev, columns)],
    }
    rows = [
        {"experiment": name, **dict(zip(METRICS, values, strict=True))}
        for name, values in figures.items()
    ]
    settings = f"{len(runs)} runs of the pipeline that differ in train.seed alone."
    tables.report("seeds", {"experiments": tables.Table(COLUMNS, rows)}, settings)


if __name__ == "__main__":
    main()
