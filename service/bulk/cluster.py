"""Make parts on the nodes of a Ray cluster. If a node dies, Ray Data makes its parts elsewhere."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import numpy as np

import service
from service.bulk import RESUME_HINT, STOPPING, BulkError, interrupt
from service.bulk.job import Job, Result, Task
from service.bulk.pool import Process, Results
from service.recognition.quiet import hidden_standard_error

# The maximum number of tasks of Ray. Each costs the driver some kilobytes and milliseconds. If a
# job has more parts, a task makes several of them.
MAX_TASKS = 10_000
IN_FLIGHT = 8  # queued tasks per actor; without a queue, an actor idles between tasks
CONNECT_TIMEOUT = 10  # seconds


class Actor:
    """A Ray Data actor on one core. Like the pool, it makes parts in a separate process."""

    def __init__(self, job: Job, artifact: dict[str, bytes]) -> None:
        # Otherwise multiprocessing would import the main module of Ray (as of version 2.60) in the
        # new process, which takes a second and 70 MiB.
        sys.modules["__main__"].__file__ = None
        self._process = Process()
        self._process.set_up(job, artifact)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make some parts.

        Args:
            batch: The fields of the parts' tasks, as columns.

        Returns:
            The fields of their results, as columns.
        """
        columns = (batch[name].tolist() for name in Task._fields)
        results = [self._process.make(Task(*row)) for row in zip(*columns, strict=True)]
        return {
            name: np.array(column)
            for name, column in zip(Result._fields, zip(*results, strict=True), strict=True)
        }


@contextmanager
def connect(address: str) -> Iterator[Results]:
    """Connect to a Ray cluster, and disconnect at the end.

    Args:
        address: The address of the cluster, as in RAY_ADDRESS.

    Yields:
        A function that makes parts on the nodes.

    Raises:
        BulkError: The cluster cannot be reached, or Ray failed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    try:
        _check_reachable(address)
        with hidden_standard_error():  # the C++ part of Ray 2.60 logs that it has a log level
            ray.init(
                address,
                runtime_env={"py_modules": [service]},
                logging_level="error",
                log_to_driver=False,
            )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BulkError(f"cannot connect to Ray at {address}: {reason}") from error
    stopped = Event()

    def stop(*_: object) -> None:
        stopped.set()
        interrupt()

    for number in STOPPING:  # replace the handlers that Ray has installed
        signal.signal(number, stop)

    def results(job: Job, artifact: dict[str, bytes], tasks: Iterable[Task]) -> Iterator[Result]:
        for row in _rows(job, artifact, tasks):
            if stopped.is_set():  # Ray 2.60 swallows the exception in its callbacks
                interrupt()
            yield Result(**row)

    try:
        yield results
    except ray.exceptions.RayError as error:
        raise BulkError(f"Ray failed: {' '.join(str(error).split())}; {RESUME_HINT}") from error
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError if no program listens. Ray 2.60 would silently wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():  # an address such as "auto" has no port
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()


def _rows(job: Job, artifact: dict[str, bytes], tasks: Iterable[Task]) -> Iterator[dict[str, Any]]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [task._asdict() for task in tasks]
    cores = int(ray.cluster_resources().get("CPU", 1))
    # For from_arrow, Ray 2.60 would start more processes than for all other work.
    blocks = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_TASKS))
    rows = blocks.map_batches(
        Actor,
        batch_size=None,
        fn_constructor_args=(job, artifact),
        compute=ray.data.ActorPoolStrategy(
            size=min(cores, len(items)), max_tasks_in_flight_per_actor=IN_FLIGHT
        ),
        num_cpus=1,
    )
    return iter(rows.iter_rows())
