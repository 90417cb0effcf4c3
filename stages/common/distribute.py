"""Distributed training: one device, the GPUs of this host, or several workers (`train.strategy`).

The workers are processes on one or more hosts. The environment of each contains TensorFlow's
`TF_CONFIG`: `cluster` lists the addresses of all workers, and `task` identifies this worker.

    {"cluster": {"worker": ["host-a:4000", "host-b:4000"]}, "task": {"type": "worker", "index": 0}}

The chief is the task `chief` if the cluster has one, otherwise worker 0.
`python -m stages.commands.workers 2` starts two workers on this host.
"""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated, Literal

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, Field, ValidationError, model_validator
from tqdm import tqdm

from stages.common.runner import StageError

START_TIMEOUT = 300  # seconds in which all workers must start
CONNECT_TIMEOUT = 60  # seconds in which TensorFlow must then connect them
# TensorFlow raises these errors when it loses a worker: for a broken connection, for a missed
# heartbeat, and for the operations that were running.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)

Address = Annotated[str, Field(pattern=r"^.+:\d{1,5}$")]


class Cluster(BaseModel, extra="forbid"):
    chief: list[Address] = Field(default=[], max_length=1)
    worker: list[Address] = []


class Task(BaseModel):
    type: Literal["chief", "worker"]
    index: int = Field(ge=0)


class TfConfig(BaseModel):
    """The fields of `TF_CONFIG` that this project uses."""

    cluster: Cluster
    task: Task

    @model_validator(mode="after")
    def has_the_task(self) -> "TfConfig":
        if self.task.index >= len(getattr(self.cluster, self.task.type)):
            raise ValueError(
                f"cluster has no {self.task.type} {self.task.index}, but task names that worker"
            )
        return self

    @property
    def addresses(self) -> list[str]:
        """The addresses of all workers, the chief first."""
        return [*self.cluster.chief, *self.cluster.worker]

    @property
    def rank(self) -> int:
        """The index of this worker in `addresses`."""
        return self.task.index + (len(self.cluster.chief) if self.task.type == "worker" else 0)


def choose(name: str) -> tf.distribute.Strategy:
    """Create the strategy that `train.strategy` names.

    Call this function before any other operation of TensorFlow. For `multi_worker`, it waits until
    all workers have started.

    Args:
        name: `single`, `mirrored` or `multi_worker`.

    Raises:
        StageError: TensorFlow finds no GPU for `mirrored`. For `multi_worker`, `TF_CONFIG` is
            missing or not valid, a worker does not start in time, or the chief cannot listen at
            its address.
    """
    if name == "mirrored":
        if not tf.config.list_physical_devices("GPU"):
            raise StageError("train.strategy is mirrored, but TensorFlow finds no GPU; use single")
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        _wait_for_workers(_tf_config())
        with _interruptible():
            return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process is the chief, which alone writes outputs and logs.

    A single process is its own chief.
    """
    return bool(strategy.extended.should_checkpoint)


def from_chief(strategy: tf.distribute.Strategy, value: np.ndarray) -> np.ndarray:
    """Broadcast the chief's value to all workers.

    Args:
        strategy: The distribution strategy of this run.
        value: An array of the same shape and dtype on all workers, which must all make this call.

    Returns:
        The value that the chief passed.
    """
    with strategy.scope():
        # TensorFlow initializes a variable on all workers with the chief's value.
        return tf.Variable(value).numpy()


@contextmanager
def reporting_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Convert TensorFlow's errors about a lost worker to a `StageError`.

    Raises:
        StageError: This worker lost another worker.
    """
    try:
        yield
    except LOST as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        task = _tf_config().task
        this = (task.type, str(task.index))
        named = re.findall(r"/job:(\w+)\S*?/task:(\d+)", error.message)
        lost = next((" ".join(other) for other in named if other != this), "another worker")
        raise StageError(
            f"{' '.join(this)} lost {lost}, which has ended or is unreachable; restart all "
            "workers, and the chief (`dvc repro`) resumes after the last whole epoch"
        ) from error


def _tf_config() -> TfConfig:
    try:
        return TfConfig.model_validate_json(os.environ["TF_CONFIG"])
    except KeyError:
        raise StageError(
            "train.strategy is multi_worker, but the environment has no TF_CONFIG; set "
            "it for each worker, or run `python -m stages.commands.workers 2` for two on this host"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = f"{key}: {first['msg']}" if key else first["msg"]
        raise StageError(
            f"the environment variable TF_CONFIG does not describe the workers: {reason}"
        ) from None


def _wait_for_workers(config: TfConfig) -> None:
    """Wait until all workers have started.

    The workers connect to the chief, which closes the connections when all have arrived.
    TensorFlow itself would wait without a time limit, and Ctrl-C would not interrupt it.
    """
    addresses, rank = config.addresses, config.rank
    host, _, port = addresses[0].rpartition(":")
    deadline = time.monotonic() + START_TIMEOUT
    missing = {str(other) for other in range(1, len(addresses))}
    if rank > 0:
        while not _check_in(host, int(port), rank):
            if time.monotonic() > deadline:
                raise StageError(
                    f"the chief, {addresses[0]}, did not start within {START_TIMEOUT} s"
                )
            time.sleep(0.1)
    elif missing:
        tqdm.write(f"waiting at {addresses[0]} for {len(missing)} more workers")
        try:
            with ExitStack() as connections:
                server = connections.enter_context(socket.create_server(("", int(port))))
                while missing:
                    server.settimeout(max(deadline - time.monotonic(), 0.001))
                    worker = connections.enter_context(server.accept()[0])
                    worker.settimeout(1)
                    with suppress(OSError):  # another program may have connected
                        missing.discard(worker.recv(16).decode(errors="replace"))
        except TimeoutError:
            late = ", ".join(addresses[int(other)] for other in sorted(missing))
            raise StageError(f"{late} did not start within {START_TIMEOUT} s") from None
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise StageError(
                f"the chief cannot listen at {addresses[0]} of TF_CONFIG: {reason}"
            ) from error


def _check_in(host: str, port: int, rank: int) -> bool:
    """Report this worker to the chief and wait for the others; return False without a chief."""
    try:
        with socket.create_connection((host, port), START_TIMEOUT) as chief:
            chief.sendall(str(rank).encode())
            return chief.recv(1) == b""
    except OSError:
        return False


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C or a timeout end this process while Python waits for TensorFlow.

    As of TensorFlow 2.21, MultiWorkerMirroredStrategy installs a handler that ignores SIGTERM, so
    restore the default action.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(CONNECT_TIMEOUT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGINT, handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
