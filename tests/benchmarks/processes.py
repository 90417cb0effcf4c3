"""Measure the CPU time and the memory of all processes of a session. Needs Linux."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def process_ids(session: int) -> list[int]:
    """Return the ids of the processes of a session that run now, sorted."""
    return sorted(int(process.name) for process, _ in _processes(session))


def cpu_seconds(session: int) -> float:
    """Return the user and system time so far of the processes of a session that run now."""
    times = (fields[11:13] for _, fields in _processes(session))
    return sum(int(user) + int(system) for user, system in times) / os.sysconf("SC_CLK_TCK")


def memory_mib(session: int) -> float:
    """Return the memory in MiB of the processes that run now. Shared pages count once (PSS)."""
    total = 0
    for process, _ in _processes(session):
        with suppress(OSError):  # the process has ended in the meantime
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _processes(session: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder of each process in /proc, and the fields of its `stat` from the third on."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended in the meantime
            # The second field, a name in parentheses, may contain spaces and parentheses.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield process, fields
