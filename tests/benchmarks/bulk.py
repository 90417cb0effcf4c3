"""Bulk recognition beside a plain Python loop over the same code: small, usual and large jobs.

    python -m tests.benchmarks.bulk                  # five minutes
    python -m tests.benchmarks.bulk --rounds 1 --copies 2

The program makes the 70,000 PNG files of MNIST in a temporary folder, and `--copies` times as many
by hard links. In each round, the loop and `python -m service.bulk` (on all cores) recognize the
first 1,000 files, and then all of them. At the end, `service.bulk` recognizes all the copies once.
The program prints a table of medians and saves it. It needs Linux, and `data/idx` and `data/model`,
so run `dvc repro` first. Before it measures, it reads all files and programs once: the page cache
has the files, and a cache of the benchmark's own has the bytecode of all modules. Both programs
compute with LiteRT.

The loop is what a user of the service's code would write. It reads, decodes and recognizes one file
at a time, collects the rows, and writes them as Parquet at the end.

- s: the time from the start of the command to its end.
- s / loop's s: the ratio to the loop's time in the same round.
- pictures/s: the number of pictures divided by that time.
- pictures/s without start-up: the rate that the program prints, which excludes the imports, the
  loading of the model and the listing of the files.
- CPU µs per picture: the user and system time of all processes.
- memory MiB: the maximum memory of all processes together, read twice a second (PSS: memory that
  several processes share counts once).
- output bytes per picture: the size of the Parquet files that service.bulk writes.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import pyarrow as pa
from pyarrow import parquet

from service.recognition import engines, images, pin
from stages import png
from stages.common import idx, paths
from tests.benchmarks import tables

SMALL = 1000  # files
PERIOD = 0.5  # seconds from one look at the processes to the next
SUMMARY = re.compile(
    r"^([\d,]+) pictures, 0 of them .* \(([\d,]+) per second without the start-up\)", re.M
)
COLUMNS = {
    "pictures": ",.0f",
    "s": ".2f",
    "s / loop's s": ".2f",
    "pictures/s": ",.0f",
    "pictures/s without start-up": ",.0f",
    "CPU µs per picture": ".0f",
    "memory MiB": ",.0f",
    "output bytes per picture": ".0f",
}

Row = dict[str, float]


def loop(folder: Path, out: Path) -> None:
    """The plain Python loop."""
    engine = engines.load(pin.read(Path("dvc.lock")).folder, "litert")
    version = pin.read(Path("dvc.lock")).version
    start = time.monotonic()
    rows = []
    for file in sorted(folder.rglob("*.png")):
        row = {"path": str(file), "label": None, "probabilities": None, "error": None}
        try:
            image = images.decode(file.read_bytes())
            labels, probabilities = engine.recognize(image[None])
            row.update(label=labels[0], probabilities=probabilities[0])
        except images.ImageError as error:
            row["error"] = str(error)
        row["version"] = version
        rows.append(row)
    parquet.write_table(pa.Table.from_pylist(rows), out)
    rate = len(rows) / (time.monotonic() - start)
    print(
        f"{len(rows):,} pictures, 0 of them with an error "
        f"({rate:,.0f} per second without the start-up)"
    )


def measured(bytecode: Path, *command: str) -> Row:
    """Run a program of this project that prints how many pictures it recognized, and how fast.

    Args:
        bytecode: a folder for the bytecode of modules.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    most, over = [0], Event()

    def look() -> None:
        while not over.wait(PERIOD):
            most[0] = max(most[0], _memory(process.pid))

    thread = Thread(target=look)
    thread.start()
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    over.set()
    thread.join()
    found = SUMMARY.search(said)
    if status or not found:
        sys.exit(f"{' '.join(command)} ended with {status}: {said}")
    pictures, rate = (int(figure.replace(",", "")) for figure in found.groups())
    return {
        "pictures": pictures,
        "s": seconds,
        "pictures/s": pictures / seconds,
        "pictures/s without start-up": rate,
        "CPU µs per picture": (usage.ru_utime + usage.ru_stime) / pictures * 1e6,
        "memory MiB": most[0] / 2**10 or float("nan"),
    }


def _memory(session: int) -> int:
    """KiB of all processes of a session together."""
    together = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # From the third field on: the second, a name, may hold spaces and parentheses.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                rollup = (folder / "smaps_rollup").read_text()
                together += int(rollup.partition("\nPss:")[2].split()[0])
    return together


def _link(source: Path, target: Path) -> None:
    for folder, _, files in os.walk(source):
        made = target / Path(folder).relative_to(source)
        made.mkdir(parents=True)
        for file in files:
            os.link(os.path.join(folder, file), made / file)  # noqa: PTH118  # hundred thousands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--copies", type=int, default=10, help="of the files (default: 10)")
    parser.add_argument("--loop", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        loop(*options.loop)
        return
    with TemporaryDirectory() as name:
        _compare(Path(name), options.rounds, options.copies)


def _compare(folder: Path, rounds: int, copies: int) -> None:
    few, once, many = (folder / name for name in ("few", "once", "many"))
    png.render({split: idx.load(paths.IDX, split) for split in ("training", "testing")}, once)
    few.mkdir()
    for file in islice(once.rglob("*.png"), SMALL):
        (few / file.name).hardlink_to(file)
    for number in range(copies):
        _link(once, many / str(number))
    for file in once.rglob("*.png"):
        file.read_bytes()
    _beside(folder / "first", few)
    rows = []
    for inputs in (few, once):
        pairs = [_beside(folder / f"{inputs.name}{number}", inputs) for number in range(rounds)]
        loops, bulks = zip(*pairs, strict=True)
        rows += [_cells("plain loop", loops), _cells("service.bulk", bulks)]
    rows.append(_cells("service.bulk", [_bulk(folder / "large", many)]))
    table = tables.Table({"program": ""} | COLUMNS, rows)
    settings = (
        f"Medians of {rounds} rounds; the last row was measured once. "
        "Both programs compute with LiteRT."
    )
    tables.report("bulk", {"programs": table}, settings)


def _beside(out: Path, inputs: Path) -> tuple[Row, Row]:
    """Figures of the loop and of bulk recognition."""
    bytecode = out.parent / "bytecode"
    program = "tests.benchmarks.bulk"
    loop = measured(bytecode, program, "--loop", str(inputs), f"{out}.parquet")
    bulk = _bulk(out, inputs)
    bulk["s / loop's s"] = bulk["s"] / loop["s"]
    return loop, bulk


def _bulk(out: Path, inputs: Path) -> Row:
    command = ("service.bulk", str(inputs), "--out", str(out))
    row = measured(out.parent / "bytecode", *command)
    written = sum(file.stat().st_size for file in out.glob("*.parquet"))
    return row | {"output bytes per picture": written / row["pictures"]}


def _cells(program: str, rows: Sequence[Row]) -> tables.Row:
    """A row of the table, of medians."""
    return {"program": program} | {
        column: statistics.median(row[column] for row in rows)
        for column in COLUMNS
        if column in rows[0]
    }


if __name__ == "__main__":
    main()
