"""How much the accuracy depends on the seed: a table of the experiments seed-1, seed-2 and so on.

    dvc exp run --queue --name seed -S 'train.seed=1,2,3,4,5' && dvc queue start
    python -m tests.benchmarks.seeds                # when the queue is empty

Reads the experiments from DVC, prints their figures and saves them.
"""

import csv
import statistics
import subprocess
import sys

from tests.benchmarks import tables

NAME = "seed-"
COLUMNS = {
    "experiment": "",
    "accuracy": ".2%",
    "errors": ".0f",
    "validation accuracy": ".2%",
    "calibration error": ".2%",
}
METRICS = ("accuracy", "errors", "validation.accuracy", "expected_calibration_error")


def main() -> None:
    command = [sys.executable, "-m", "dvc", "exp", "show", "--csv"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows: list[tables.Row] = []
    for found in csv.DictReader(shown.splitlines()):
        if found["Experiment"].startswith(NAME) and found["accuracy"]:
            cells = [found["Experiment"], *(float(found[metric]) for metric in METRICS)]
            rows.append(dict(zip(COLUMNS, cells, strict=True)))
    if len(rows) < 2:
        sys.exit(f"DVC has fewer than two finished experiments named {NAME}*; run them first")
    rows.sort(key=lambda row: str(row["experiment"]))
    accuracies = [float(row["accuracy"]) for row in rows]  # type: ignore[arg-type]
    for name, figure in {"mean": statistics.mean, "standard deviation": statistics.stdev}.items():
        rows.append({"experiment": name, "accuracy": figure(accuracies)})
    settings = f"{len(accuracies)} runs of the pipeline that differ in train.seed alone."
    tables.report("seeds", {"experiments": tables.Table(COLUMNS, rows)}, settings)


if __name__ == "__main__":
    main()
