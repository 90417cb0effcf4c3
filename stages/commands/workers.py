"""Train on so many workers of this host, to try `train.strategy: multi_worker`.

    python -m stages.commands.workers 2

The first is `dvc repro train`, so that DVC records what the chief writes; the others are
`python -m stages train`. On several hosts, start the same yourself, with `TF_CONFIG` in the
environment of each: see `stages/common/distribute.py`.
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

TIMEOUT = 60  # seconds for the others to end when one has ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workers", type=int, help="how many")
    count = parser.parse_args().workers
    if count < 1:
        raise StageError(f"there have to be workers, not {count}")
    if params.load().train.strategy != "multi_worker":
        raise StageError("set train.strategy to multi_worker in params.yaml first")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without ending the workers
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
                environment["DVC_STAGE"] = "train"  # it ends with this process: see stage.run
            workers.append(subprocess.Popen(command, env=environment))
        status = _wait(workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    sys.exit(status)


def _wait(workers: list["subprocess.Popen[bytes]"]) -> int:
    """Wait for the chief, or for one that ends badly and then for what the others say of it."""
    chief, *others = workers
    while chief.poll() is None and not any(worker.poll() for worker in others):
        time.sleep(0.1)
    if chief.poll() == 0:  # the others were done before, unless there was nothing to do
        return 0
    deadline = time.monotonic() + TIMEOUT
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    return 1


def free_addresses(count: int) -> list[str]:
    """Find ports of loopback on which nothing listens."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]


if __name__ == "__main__":
    run("stages.commands.workers", main)
