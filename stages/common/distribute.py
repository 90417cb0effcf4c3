"""On what `train` computes: one device, the GPUs of this host, or many workers (`train.strategy`).

Many workers are processes on one or more hosts, each with TensorFlow's `TF_CONFIG` in its
environment: the addresses of all of them, the same everywhere, and which of them this one is.

    {"cluster": {"worker": ["host-a:4000", "host-b:4000"]}, "task": {"type": "worker", "index": 0}}

The chief is `chief` if there is one, else worker 0. `python -m stages.commands.workers 2` starts
two here.
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

START_TIMEOUT = 300  # seconds for all workers to come
CONNECT_TIMEOUT = 60  # seconds for TensorFlow to connect them then
# What TensorFlow raises when another worker is gone: of a broken connection, of a heartbeat that
# is not answered, and of what was under way meanwhile.
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
    """The part of `TF_CONFIG` that is used here."""

    cluster: Cluster
    task: Task

    @model_validator(mode="after")
    def has_the_task(self) -> "TfConfig":
        if self.task.index >= len(getattr(self.cluster, self.task.type)):
            raise ValueError(f"cluster has no {self.task.type} {self.task.index}, which task names")
        return self

    @property
    def addresses(self) -> list[str]:
        """Of all workers, the chief first."""
        return [*self.cluster.chief, *self.cluster.worker]

    @property
    def rank(self) -> int:
        """Which of `addresses` is this worker's."""
        return self.task.index + (len(self.cluster.chief) if self.task.type == "worker" else 0)


def choose(name: str) -> tf.distribute.Strategy:
    """Make the strategy that `train.strategy` names, before anything else is asked of TensorFlow.

    Raises:
        StageError: this host, or its environment, has not what the strategy needs.
    """
    if name == "mirrored":
        if not tf.config.list_physical_devices("GPU"):
            raise StageError("train.strategy is mirrored, but TensorFlow finds no GPU; use single")
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        config = _tf_config()
        _gather(config)
        with _mortal():
            return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes and tells; alone, it is."""
    return bool(strategy.extended.should_checkpoint)


def from_chief(strategy: tf.distribute.Strategy, value: np.ndarray) -> np.ndarray:
    """Return what the chief calls it with; all workers have to, with the same shape and type."""
    with strategy.scope():
        return tf.Variable(value).numpy()  # a new variable has the chief's value everywhere


@contextmanager
def end_with_the_others(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn what TensorFlow says of a lost worker into a sentence."""
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
            f"{' '.join(this)} lost {lost}, which has ended or cannot be reached; start all "
            "workers again, and the chief (`dvc repro`) resumes after the last whole epoch"
        ) from error


def _tf_config() -> TfConfig:
    try:
        return TfConfig.model_validate_json(os.environ["TF_CONFIG"])
    except KeyError:
        raise StageError(
            "train.strategy is multi_worker, but TF_CONFIG is not in the environment; it names "
            "the workers, as `python -m stages.commands.workers 2` does for two on this host"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = f"{key}: {first['msg']}" if key else first["msg"]
        raise StageError(
            f"TF_CONFIG in the environment does not name the workers: {said}"
        ) from None


def _gather(config: TfConfig) -> None:
    """Wait until all workers have come: they ring the chief, which hangs up once all have.

    TensorFlow waits for them too, but for ever, and deaf to Ctrl-C.
    """
    addresses, rank = config.addresses, config.rank
    host, _, port = addresses[0].rpartition(":")
    deadline = time.monotonic() + START_TIMEOUT
    missing = {str(other) for other in range(1, len(addresses))}
    if rank > 0:
        while not _ring(host, int(port), rank):
            if time.monotonic() > deadline:
                raise StageError(f"the chief, {addresses[0]}, did not come in {START_TIMEOUT} s")
            time.sleep(0.1)
    elif missing:
        tqdm.write(f"waiting for {len(missing)} more to come to {addresses[0]}")
        try:
            with ExitStack() as here:
                server = here.enter_context(socket.create_server(("", int(port))))
                while missing:
                    server.settimeout(max(deadline - time.monotonic(), 0.001))
                    caller = here.enter_context(server.accept()[0])
                    caller.settimeout(1)
                    with suppress(OSError):  # it may be a stranger
                        missing.discard(caller.recv(16).decode(errors="replace"))
        except TimeoutError:
            late = ", ".join(addresses[int(other)] for other in sorted(missing))
            raise StageError(f"{late} did not come in {START_TIMEOUT} s") from None
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise StageError(f"{addresses[0]}, of TF_CONFIG: {reason}") from error


def _ring(host: str, port: int, rank: int) -> bool:
    """Tell the chief that this worker is here, and wait for the others; False if there is none."""
    try:
        with socket.create_connection((host, port), START_TIMEOUT) as chief:
            chief.sendall(str(rank).encode())
            return chief.recv(1) == b""
    except OSError:
        return False


@contextmanager
def _mortal() -> Iterator[None]:
    """Let Ctrl-C, and the clock, end this process while Python waits for TensorFlow.

    TensorFlow then takes SIGTERM for itself, and does nothing; give it its meaning back.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(CONNECT_TIMEOUT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGINT, handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
