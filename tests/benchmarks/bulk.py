"""Bulk recognition beside a plain Python loop over the same code, and with ten times the input.

    python -m tests.benchmarks.bulk                  # ten minutes
    python -m tests.benchmarks.bulk --rounds 1 --copies 2

Makes the 70,000 PNG files of MNIST in a temporary folder, and `--copies` times as many by hard
links. Recognises the 70,000 with the loop and with `python -m service.bulk` on all cores, in turn,
each round afresh; then all the copies, once, with `service.bulk`. Prints a table of medians. Needs
Linux, and `data/idx` and `data/model`, so run `dvc repro` first. Every file is read once before.

The loop is what one writes who has the service's code, and one file at a time: read it, decode it,
recognise it, keep the row, and write them all as Parquet in the end.

- s: from the start of the process to its end.
- s to start: what of it passed before the first picture was read (imports, the model, Ray, the
  list of the files) or after the last.
- pictures/s: of those s; and without those to start, as the programs themselves say.
- ratio: the same over the loop's in the same round.
- CPU us a picture: user and system time of all processes, Ray's included, looked at twice a
  second: what a process takes in its last half second is not in it.
- memory MiB: the most that all processes had together at one time (PSS: what several share counts
  once), Ray's object store included.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import pyarrow as pa
from pyarrow import parquet

from service import images, pin, recognizer
from stages import idx, png

PERIOD = 0.5  # seconds from one look at the processes to the next
SAID = re.compile(r"^([\d,]+) pictures, 0 of them .* \(([\d,]+) a second after the start\)", re.M)
COLUMNS = {
    "pictures": ",.0f",
    "s": ".1f",
    "s to start": ".1f",
    "pictures/s": ",.0f",
    "ratio": ".2f",
    "pictures/s after the start": ",.0f",
    "ratio after the start": ".2f",
    "CPU us a picture": ".0f",
    "memory MiB": ",.0f",
}

Row = dict[str, float]


def loop(folder: Path, out: Path) -> None:
    """The plain Python loop."""
    engine = recognizer.load(pin.read(Path("dvc.lock")).folder, "litert")
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
    print(f"{len(rows):,} pictures, 0 of them with an error ({rate:,.0f} a second after the start)")


def measured(*command: str) -> Row:
    """Run a program of this project that says how many pictures it recognised, and how fast."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    looks, over = _Looks(process.pid), Event()

    def look() -> None:
        while not over.wait(PERIOD):
            looks.look()

    thread = Thread(target=look)
    thread.start()
    said, _ = process.communicate()
    seconds = time.monotonic() - start
    over.set()
    thread.join()
    found = SAID.search(said)
    if process.returncode or not found:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    pictures, rate = (int(figure.replace(",", "")) for figure in found.groups())
    return {
        "pictures": pictures,
        "s": seconds,
        "s to start": seconds - pictures / rate,
        "pictures/s": pictures / seconds,
        "pictures/s after the start": rate,
        "CPU us a picture": sum(looks.seconds.values()) / pictures * 1e6,
        "memory MiB": looks.most / 2**10,
    }


class _Looks:
    """The CPU seconds of each process of a session, and the most KiB of all together."""

    def __init__(self, session: int) -> None:
        self._session = session
        self.seconds: dict[int, float] = {}
        self.most = 0

    def look(self) -> None:
        together = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                # From the third field on: the second, a name, may hold spaces and parentheses.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self._session:
                    ticks = int(fields[11]) + int(fields[12])
                    self.seconds[int(folder.name)] = ticks / os.sysconf("SC_CLK_TCK")
                    rollup = (folder / "smaps_rollup").read_text()
                    together += int(rollup.partition("\nPss:")[2].split()[0])
        self.most = max(self.most, together)


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
    once, many = folder / "once", folder / "many"
    png.render(
        {split: idx.load(Path("data/idx"), split) for split in ("training", "testing")}, once
    )
    for number in range(copies):
        _link(once, many / str(number))
    for file in once.rglob("*.png"):
        file.read_bytes()
    loops, bulks = [], []
    for number in range(rounds):
        out = str(folder / f"out{number}")
        loops.append(measured("tests.benchmarks.bulk", "--loop", str(once), f"{out}.parquet"))
        bulks.append(measured("service.bulk", str(once), "--out", out))
        for row in (loops[-1], bulks[-1]):
            for kind in ("", " after the start"):
                row[f"ratio{kind}"] = row[f"pictures/s{kind}"] / loops[-1][f"pictures/s{kind}"]
    rows = {
        "plain loop": loops,
        "service.bulk": bulks,
        f"service.bulk, {copies} times as many": [
            measured("service.bulk", str(many), "--out", str(folder / "out"))
        ],
    }
    print(f"\n| {os.cpu_count()} cores | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    for what, figures in rows.items():
        cells = [
            format(statistics.median(row[column] for row in figures), style)
            if column in figures[0]
            else ""
            for column, style in COLUMNS.items()
        ]
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
