"""CPU time and memory of all processes of a session together. Needs Linux."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cpu_seconds(session: int) -> float:
    """User and system time so far of the processes that run now."""
    # From the third field on: the second, a name, may hold spaces and parentheses.
    times = (fields[11:13] for _, fields in _processes(session))
    return sum(int(user) + int(system) for user, system in times) / os.sysconf("SC_CLK_TCK")


def memory_mib(session: int) -> float:
    """Resident MiB of the processes that run now; pages that several share count once (PSS)."""
    total = 0
    for process, _ in _processes(session):
        with suppress(OSError):  # it has ended meanwhile
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _processes(session: int) -> Iterator[tuple[Path, list[str]]]:
    """The folder of each process in /proc, and the fields of its `stat` from the third on."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield process, fields
