"""Kill the pipeline at random moments, and check that the next `dvc repro` repairs the outputs.

    python -m tests.faults.kill [--times 50] [--seed 0]

The program runs the stages in turn on the slice in tests/mnist. It sends SIGKILL to the stage, to
DVC or to both, at a random moment of the run. The run is the first run of the stage, or a repeated
run whose outputs are in DVC's cache.

After each kill, the next `dvc repro` must record the same dvc.lock as an undisturbed run, with the
same files in data/. It must leave no other file and no process. The program prints one line for
each kill, and exits with status 1 if a run did not repair the outputs.
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

from stages.__main__ import STAGES
from tests.conftest import ENVIRONMENT, Repository, make_repository

VICTIMS = ["stage", "dvc", "both"]
TIMEOUT = 60  # seconds

State = tuple[object, dict[str, bytes]]


class NotRepairedError(Exception):
    """The run after a kill did not repair the outputs, or left a process."""


@dataclass(frozen=True)
class Kill:
    """One kill of a stage.

    Attributes:
        stage: The name of the stage.
        victim: The process to kill: `stage`, `dvc` or `both`.
        first: Whether the stage runs for the first time.
        moment: The time of the kill, as a fraction of the time of an undisturbed run.
    """

    stage: str
    victim: str
    first: bool
    moment: float


def state(repository: Repository) -> State:
    """Return the content of `dvc.lock` and of every file in data/."""
    data = repository.path / "data"
    files = {
        file.relative_to(data).as_posix(): file.read_bytes()
        for file in data.rglob("*")
        if file.is_file()
    }
    return yaml.safe_load((repository.path / "dvc.lock").read_text()), files


def reproduce(repository: Repository, stage: str) -> float:
    """Run one stage, even if its outputs are up to date; return the duration in seconds."""
    start = time.monotonic()
    repository.run("dvc", "repro", "--force", "--single-item", stage)
    return time.monotonic() - start


def kill_and_repair(repository: Repository, kill: Kill, seconds: float) -> str:
    """Kill a run of a stage, then run the pipeline to repair its outputs.

    Args:
        repository: The repository to work in.
        kill: The kill.
        seconds: The duration of `reproduce` for this stage.

    Returns:
        A line that describes the kill and the outcome.

    Raises:
        NotRepairedError: The outputs differ from those before the kill, or a process still runs.
    """
    before = state(repository)
    moment = kill.moment * seconds
    while (session := _killed(repository, kill, moment)) is None:
        moment *= 0.9  # this run was faster and ended before the kill
    output = repository.run("dvc", "repro", status=None)
    lock, files = state(repository)
    if lock != before[0]:
        raise NotRepairedError(f"{kill}: dvc.lock differs; the output of dvc repro:\n{output}")
    differing = [name for name in {*files, *before[1]} if files.get(name) != before[1].get(name)]
    if differing:
        raise NotRepairedError(
            f"{kill}: {sorted(differing)} differ; the output of dvc repro:\n{output}"
        )
    deadline = time.monotonic() + TIMEOUT
    while alive := _processes(session):
        if time.monotonic() > deadline:
            raise NotRepairedError(f"{kill}: the processes {alive} still run")
    ran = f"Running stage '{kill.stage}'" in output
    outcome = "ran again" if ran else "was cached" if "is cached" in output else "was complete"
    return (
        f"{'first' if kill.first else 'repeated'} {kill.stage}, {kill.victim} killed after "
        f"{moment:.2f} of {seconds:.2f} s: {outcome}"
    )


def _killed(repository: Repository, kill: Kill, moment: float) -> int | None:
    """Run the stage and kill it; return its session id, or None if the run ended before."""
    if kill.first:
        _remove_from_cache(repository, kill.stage)
    run = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", kill.stage],
        cwd=repository.path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    command = f"-m stages {kill.stage}"
    stage: list[int] = []
    while kill.victim == "stage" and not stage and run.poll() is None:
        stage = [pid for pid, args in _processes(run.pid).items() if args.endswith(command)]
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
    """Return the command of each process of a session, by its process id, without zombies."""
    command = ["ps", "--sid", str(session), "-o", "pid=,stat=,args="]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = (line.split(maxsplit=2) for line in output.splitlines())
    return {int(row[0]): row[2] for row in rows if not row[1].startswith("Z")}


def _remove_from_cache(repository: Repository, stage: str) -> None:
    """Remove a stage from `dvc.lock` and from DVC's run cache, as if it had never run."""
    file = repository.path / "dvc.lock"
    lock = yaml.safe_load(file.read_text())
    lock["stages"].pop(stage, None)
    file.write_text(yaml.safe_dump(lock))
    for entry in (repository.path / ".dvc/cache/runs").glob("*/*/*"):
        if entry.read_text().startswith(f"cmd: python -m stages {stage}\n"):
            shutil.rmtree(entry.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=50, help="number of kills (default: 50)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random choices (default: 0)"
    )
    options = parser.parse_args()
    rng = random.Random(options.seed)
    outcomes: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        (Path(folder) / "original").mkdir()
        original = make_repository(Path(folder) / "original")
        seconds = {stage: reproduce(original, stage) for stage in STAGES}
        repository = original.clone(Path(folder) / "0")
        for number in range(options.times):
            kill = Kill(
                STAGES[number % len(STAGES)],
                rng.choice(VICTIMS),
                rng.random() < 0.5,
                rng.random(),
            )
            try:
                line = kill_and_repair(repository, kill, seconds[kill.stage])
                outcomes[line.rpartition(": ")[2]] += 1
            except NotRepairedError as error:
                line = f"NOT REPAIRED: {error}"
                outcomes["not repaired"] += 1
                repository = original.clone(Path(folder) / str(number + 1))
            print(f"{number + 1:2} {line}", flush=True)
    print(f"{options.times} kills: {', '.join(f'{n} {name}' for name, n in outcomes.items())}")
    sys.exit(1 if outcomes["not repaired"] else 0)


if __name__ == "__main__":
    main()
