"""Kill the pipeline at random moments, and see that the next `dvc repro` mends everything.

    python -m tests.faults.kill [--times 50] [--seed 0]

On the slice in tests/mnist, the stages in turn: `kill -9` hits the stage alone, DVC alone or both,
at any moment of the run; in a first run of the stage, or in a repeated one, whose outputs are in
DVC's cache. Each time the next `dvc repro` must record what an undisturbed run does, with the same
files in data/, and no other file and no process left. Prints a line a kill; ends with status 1 if
one of them was not mended.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.conftest import ENVIRONMENT, Repository, make_repository

STAGES = ["download", "png", "train", "evaluate", "pictures", "export"]
VICTIMS = ["stage", "dvc", "both"]
TIMEOUT = 60  # seconds

State = tuple[object, dict[str, bytes]]


class NotMendedError(Exception):
    """What a kill left behind was still there after the next run."""


@dataclass(frozen=True)
class Kill:
    stage: str
    victim: str
    first: bool  # whether the stage runs for the first time
    moment: float  # fraction of an undisturbed run


def state(repository: Repository) -> State:
    """What `dvc.lock` records, and every file of data/."""
    data = repository.path / "data"
    files = {
        file.relative_to(data).as_posix(): file.read_bytes()
        for file in data.rglob("*")
        if file.is_file()
    }
    return yaml.safe_load((repository.path / "dvc.lock").read_text()), files


def reproduce(repository: Repository, stage: str) -> float:
    """Run one stage, whatever there is already; return the seconds that it takes."""
    start = time.monotonic()
    repository.run("dvc", "repro", "--force", "--single-item", stage)
    return time.monotonic() - start


def strike(repository: Repository, kill: Kill, seconds: float) -> str:
    """Kill a run of the stage, and mend; say what happened.

    Args:
        seconds: what `reproduce` takes.

    Raises:
        NotMendedError: something was not as before, afterwards.
    """
    before = state(repository)
    moment = kill.moment * seconds
    while (session := _killed(repository, kill, moment)) is None:
        moment *= 0.9  # it was faster this time
    said = repository.run("dvc", "repro", status=None)
    lock, files = state(repository)
    if lock != before[0]:
        raise NotMendedError(f"{kill}: dvc.lock differs; dvc repro said:\n{said}")
    differing = [name for name in {*files, *before[1]} if files.get(name) != before[1].get(name)]
    if differing:
        raise NotMendedError(f"{kill}: {sorted(differing)} differ; dvc repro said:\n{said}")
    deadline = time.monotonic() + TIMEOUT
    while alive := _processes(session):
        if time.monotonic() > deadline:
            raise NotMendedError(f"{kill}: {alive} still run")
    ran = f"Running stage '{kill.stage}'" in said
    outcome = "ran again" if ran else "came from the cache" if "is cached" in said else "was whole"
    return (
        f"{'first' if kill.first else 'repeated'} {kill.stage}, {kill.victim} killed after "
        f"{moment:.2f} of {seconds:.2f} s: {outcome}"
    )


def _killed(repository: Repository, kill: Kill, moment: float) -> int | None:
    """Run the stage and kill; return the session that it ran in, or nothing if it was too late."""
    if kill.first:
        _forget(repository, kill.stage)
    run = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", kill.stage],
        cwd=repository.path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    command = f"-m stages.{kill.stage}"
    stage: list[int] = []
    while kill.victim == "stage" and not stage and run.poll() is None:
        stage = [pid for pid, said in _processes(run.pid).items() if said.endswith(command)]
    with suppress(subprocess.TimeoutExpired):
        run.wait(moment)
        return None
    if kill.victim == "stage":
        with suppress(ProcessLookupError):
            os.kill(stage[0], signal.SIGKILL)
    elif kill.victim == "dvc":
        run.kill()
    else:
        os.killpg(run.pid, signal.SIGKILL)
    return run.pid if run.wait(TIMEOUT) != 0 else None


def _processes(session: int) -> dict[int, str]:
    """The command of each process of a session, by its id; zombies do not count."""
    command = ["ps", "--sid", str(session), "-o", "pid=,stat=,args="]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = (line.split(maxsplit=2) for line in said.splitlines())
    return {int(row[0]): row[2] for row in rows if not row[1].startswith("Z")}


def _forget(repository: Repository, stage: str) -> None:
    """Take a stage from `dvc.lock` and from DVC's run cache, as if it had never run."""
    file = repository.path / "dvc.lock"
    lock = yaml.safe_load(file.read_text())
    lock["stages"].pop(stage, None)
    file.write_text(yaml.safe_dump(lock))
    for entry in (repository.path / ".dvc/cache/runs").glob("*/*/*"):
        if f"stages.{stage}" in entry.read_text():
            shutil.rmtree(entry.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=50, help="how many kills (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    options = parser.parse_args()
    random_ = random.Random(options.seed)
    outcomes: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        (Path(folder) / "whole").mkdir()
        whole = make_repository(Path(folder) / "whole")
        seconds = {stage: reproduce(whole, stage) for stage in STAGES}
        repository = whole.clone(Path(folder) / "0")
        for number in range(options.times):
            kill = Kill(
                STAGES[number % len(STAGES)],
                random_.choice(VICTIMS),
                random_.random() < 0.5,
                random_.random(),
            )
            try:
                line = strike(repository, kill, seconds[kill.stage])
                outcomes[line.rpartition(": ")[2]] += 1
            except NotMendedError as error:
                line = f"NOT MENDED: {error}"
                outcomes["not mended"] += 1
                repository = whole.clone(Path(folder) / str(number + 1))
            print(f"{number + 1:2} {line}", flush=True)
    print(f"{options.times} kills: {', '.join(f'{n} {what}' for what, n in outcomes.items())}")
    sys.exit(1 if outcomes["not mended"] else 0)


if __name__ == "__main__":
    main()
