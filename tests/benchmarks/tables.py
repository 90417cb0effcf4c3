"""The tables of the benchmarks: printed, and kept in results/ for the documents."""

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from subprocess import check_output

RESULTS = Path(__file__).parent / "results"

Cell = str | float | Sequence[float]
Row = Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    columns: Mapping[str, str]  # the format of the numbers in each column
    rows: Sequence[Row]  # a row may lack cells

    def __str__(self) -> str:
        """The table in Markdown."""
        lines = [list(self.columns), ["---"] * len(self.columns)]
        lines += [[self._cell(row, column) for column in self.columns] for row in self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def _cell(self, row: Row, column: str) -> str:
        cell = row.get(column, "")
        if isinstance(cell, str):
            return cell
        numbers = cell if isinstance(cell, Sequence) else [cell]
        return " / ".join(format(number, self.columns[column]) for number in numbers)


@dataclass(frozen=True)
class Result:
    processor: str
    date: str
    settings: str  # one sentence: how it was measured
    tables: Mapping[str, Table]


def report(name: str, tables: Mapping[str, Table], settings: str, *, save: bool = True) -> None:
    """Print the tables of a benchmark. Unless only a part of it ran, save them."""
    result = Result(processor(), date.today().isoformat(), settings, tables)
    print(f"\n{result.processor}. {settings}", *tables.values(), sep="\n\n")
    if save:
        RESULTS.mkdir(exist_ok=True)
        content = json.dumps(asdict(result), indent=1, ensure_ascii=False)
        (RESULTS / f"{name}.json").write_text(f"{content}\n")


def load(name: str) -> Result:
    """Read what a benchmark saved last."""
    saved = json.loads((RESULTS / f"{name}.json").read_text())
    tables = {title: Table(**table) for title, table in saved.pop("tables").items()}
    return Result(**saved, tables=tables)


def number(cell: Cell) -> float:
    """Return the number in a cell that has only one."""
    assert isinstance(cell, int | float)
    return cell


def processor() -> str:
    """The number of cores and the processor's name; on Linux its family and model too."""
    if sys.platform == "linux":
        found = re.findall(
            r"^(model name|cpu family|model)\t*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M
        )
        facts = dict(found)
        name = facts.pop("model name", platform.machine())
        rest = "".join(f", {fact.removeprefix('cpu ')} {facts[fact]}" for fact in sorted(facts))
    else:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        name, rest = check_output(command, text=True).strip(), ""
    return f"{os.cpu_count()} cores of {name}{rest}"
