"""Measure how long the installation takes and how large it is.

    python -m tests.benchmarks.setup

The program prints a table and saves it. Each installation starts in an empty folder with empty
caches and includes the virtual environment. The packages come from the index that pip and uv are
configured for.

- `make repro`, `make serve`: what these commands install before they start.
- `pip` installs the same packages as `make repro`, from the same lock file with its hashes.
- packages: the number of packages in `.venv`, without pip and uv.
- GB: the size of `.venv`.
- start s: the time from `make` to the start of its command when everything is installed, the median
  of 5. `true` replaces the command itself.

The program exits with status 1 unless `make repro` installs in a quarter of pip's time and starts
its command within 0.3 s. It takes a few minutes, most of them for pip.
"""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import tables

LOCK = Path("requirements.txt")
PIP = f".venv/bin/pip install --quiet --require-hashes --requirement {LOCK}"
PIP_ROW = "the packages of `make repro` with pip"
COLUMNS = {"packages": ".0f", "install s": ".1f", "GB": ".2f", "start s": ".2f"}
MAX_OF_PIP = 0.25
MAX_START = 0.3  # seconds


def main() -> None:
    with TemporaryDirectory(prefix="setup-") as scratch:
        repro, serve, pip = (folder(Path(scratch) / name) for name in ("repro", "serve", "pip"))
        rows = {
            "`make repro`": installed(repro, "make .venv/.installed-pipeline+cpu"),
            "`make serve`": installed(serve, "make .venv/.installed-service"),
        }
        (pip / LOCK).write_text(entries(LOCK.read_text(), packages(repro)))
        rows[PIP_ROW] = installed(pip, f"{sys.executable} -m venv .venv && {PIP}")
        rows["`make repro`"]["start s"] = start(repro, "repro", "dvc")
        rows["`make serve`"]["start s"] = start(serve, "serve", "python")
    cells: list[tables.Row] = [{"command": name, **row} for name, row in rows.items()]
    table = tables.Table({"command": ""} | COLUMNS, cells)
    tables.report("setup", {"commands": table}, f"Python {platform.python_version()}.")
    share = rows["`make repro`"]["install s"] / rows[PIP_ROW]["install s"]
    print(f"\n`make repro` installs in {share:.2f} of pip's time.")
    starts = (row["start s"] for row in rows.values() if "start s" in row)
    sys.exit(share > MAX_OF_PIP or max(starts) > MAX_START)


def installed(where: Path, command: str) -> dict[str, float]:
    """Run a command that makes `.venv`; return its row of the table."""
    seconds = timed(where, command)
    files = (path.lstat() for path in (where / ".venv").rglob("*"))
    gigabytes = sum(file.st_size for file in files) / 1e9
    return {"packages": len(packages(where)), "install s": seconds, "GB": gigabytes}


def folder(path: Path) -> Path:
    """Make a folder with what installation reads, and with a model for `make serve` to find."""
    (path / "data/model").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", LOCK):
        shutil.copy(name, path)
    return path


def timed(where: Path, command: str) -> float:
    """Run a shell command with the home directory and all caches in `where`; return the seconds."""
    home = {"HOME": str(where), "XDG_CACHE_HOME": f"{where}/.cache", "PYTHON": sys.executable}
    caches = {"PIP_CACHE_DIR": f"{where}/.cache/pip", "UV_CACHE_DIR": f"{where}/.cache/uv"}
    begin = time.perf_counter()
    environment = {**os.environ, **home, **caches}
    subprocess.run(command, shell=True, cwd=where, env=environment, check=True)  # noqa: S602
    return time.perf_counter() - begin


def packages(where: Path) -> list[str]:
    """The normalized names of the installed packages, without pip and uv."""
    freeze = [f"{where}/.venv/bin/pip", "freeze", "--all", "--exclude=pip", "--exclude=uv"]
    done = subprocess.run(freeze, check=True, capture_output=True, text=True)
    names = [line.split("==")[0] for line in done.stdout.splitlines()]
    return [re.sub("[-_.]+", "-", name).lower() for name in names]


def entries(lock: str, names: list[str]) -> str:
    """The part of a lock file that is about some packages."""
    every = re.split(r"(?m)^(?=[a-z0-9])", lock)
    return "".join(entry for entry in every if entry.split("==")[0] in names)


def start(where: Path, target: str, command: str) -> float:
    """The median of the seconds from `make` to the start of a target's command."""
    program = where / ".venv/bin" / command
    program.unlink()
    program.symlink_to(shutil.which("true") or sys.exit("there is no program `true`"))
    return statistics.median(timed(where, f"make --silent {target}") for _ in range(5))


if __name__ == "__main__":
    main()
