"""The nodes of a Ray cluster: when one dies, Ray Data makes its parts again on the others."""

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
from service.bulk import AGAIN, STOPPING, BulkError
from service.bulk.job import Job, Result, Task
from service.bulk.pool import Process, Results

# Of Ray: each costs the driver some kilobytes and milliseconds. Where a job has more parts, a task
# has several of them.
MOST_TASKS = 10_000
IN_FLIGHT = 8  # tasks that wait at each actor, which else stands still between two of them
CONNECT_TIMEOUT = 10  # seconds


class Actor:
    """What Ray Data runs on a core: it makes parts in a process, as the pool does."""

    def __init__(self, job: Job, artifact: dict[str, bytes]) -> None:
        # multiprocessing would import the main program, which is Ray's: a second and 70 MiB.
        sys.modules["__main__"].__file__ = None
        self._process = Process()
        self._process.set_up(job, artifact)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make some parts.

        Args:
            batch: the fields of their tasks.

        Returns:
            The fields of their results.
        """
        columns = (batch[name].tolist() for name in Task._fields)
        results = [self._process.make(Task(*row)) for row in zip(*columns, strict=True)]
        return {
            name: np.array(column)
            for name, column in zip(Result._fields, zip(*results, strict=True), strict=True)
        }


@contextmanager
def joined(address: str) -> Iterator[Results]:
    """Join the cluster at an address, and leave it at the end.

    Yields:
        A function that makes parts on the nodes.

    Raises:
        BulkError: the cluster cannot be reached, or Ray failed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    try:
        _reach(address)
        ray.init(
            address,
            runtime_env={"py_modules": [service]},
            logging_level="error",
            log_to_driver=False,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BulkError(f"Ray at {address} cannot be used: {reason}") from error
    stopped = Event()

    def stop(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    for number in STOPPING:  # in place of Ray's own
        signal.signal(number, stop)

    def results(job: Job, artifact: dict[str, bytes], tasks: Iterable[Task]) -> Iterator[Result]:
        for row in _rows(job, artifact, tasks):
            if stopped.is_set():  # in a callback of Ray's, the KeyboardInterrupt gets lost
                raise KeyboardInterrupt
            yield Result(**row)

    try:
        yield results
    except ray.exceptions.RayError as error:
        raise BulkError(f"Ray failed: {' '.join(str(error).split())}; {AGAIN}") from error
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens, for which Ray would wait for minutes without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():  # and not "auto", for one
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()


def _rows(job: Job, artifact: dict[str, bytes], tasks: Iterable[Task]) -> Iterator[dict[str, Any]]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [task._asdict() for task in tasks]
    cores = int(ray.cluster_resources().get("CPU", 1))
    # Not from_arrow, for which Ray starts more processes than for all the rest.
    made = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_TASKS)).map_batches(
        Actor,
        batch_size=None,
        fn_constructor_args=(job, artifact),
        compute=ray.data.ActorPoolStrategy(
            size=min(cores, len(items)), max_tasks_in_flight_per_actor=IN_FLIGHT
        ),
        num_cpus=1,
    )
    return iter(made.iter_rows())
