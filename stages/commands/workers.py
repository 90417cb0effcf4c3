"""Train on several workers of this host, to try `train.strategy: multi_worker`.

    python -m stages.commands.workers 2

The first worker runs `dvc repro train`, so that DVC records the chief's outputs. The other workers
run `python -m stages train`. On several hosts, start the same commands yourself, with `TF_CONFIG`
in the environment of each; `stages/common/distribute.py` describes that variable.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from stages.common import params
from stages.common.runner import StageError, run

TIMEOUT = 60  # seconds in which all workers must end after one has failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workers", type=int, help="the number of workers")
    count = parser.parse_args().workers
    if count < 1:
        raise StageError(f"the number of workers must be at least 1, not {count}")
    if params.load().train.strategy != "multi_worker":
        raise StageError("set train.strategy to multi_worker in params.yaml first")
    # The default action of SIGTERM would skip `finally` and leave the workers running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    addresses = free_addresses(count)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(count):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            environment = {**os.environ, "TF_CONFIG": config}
            command = ["dvc", "repro", "train"]
            if index > 0:
                command = [sys.executable, "-m", "stages", "train"]
                # With this variable, `runner.run` ends the worker when this process ends.
                environment["DVC_STAGE"] = "train"
            workers.append(subprocess.Popen(command, env=environment))
        status = _wait(workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    sys.exit(status)


def _wait(workers: list["subprocess.Popen[bytes]"]) -> int:
    """Wait for the workers and return the exit status of this command.

    If a worker fails, wait until the other workers have reported it.
    """
    chief, *others = workers
    while chief.poll() is None and not any(worker.poll() for worker in others):
        time.sleep(0.1)
    # If DVC finds the stage unchanged, the chief ends at once and the other workers still wait.
    if chief.poll() == 0:
        return 0
    deadline = time.monotonic() + TIMEOUT
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    return 1


def free_addresses(count: int) -> list[str]:
    """Return addresses of free ports on the loopback interface."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]


if __name__ == "__main__":
    run("stages.commands.workers", main)
