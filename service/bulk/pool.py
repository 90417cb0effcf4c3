"""Make parts in worker processes on this machine, and replace a process that is killed."""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from threading import Thread
from typing import TYPE_CHECKING, Any

from service.bulk import STOPPING

if TYPE_CHECKING:
    from ctypes import c_longlong

    from service.bulk.job import Job, Result, Task

# Forking is not safe: pyarrow's threads are running when the driver starts a replacement.
CONTEXT = multiprocessing.get_context("spawn")
NO_PICTURE = -1  # the position of a worker that is not reading or decoding a picture
SKIPPED_AFTER = 2  # deaths at a picture after which it becomes a row with an error
# The maximum number of deaths in one part, at one picture or without such a picture.
MAX_DEATHS = 3

Results = Callable[["Job", dict[str, bytes], Iterable["Task"]], Iterator["Result"]]


class Process:
    """A process that makes parts. If it is killed, a new process makes its part again.

    A picture that kills the process twice becomes a row with an error. A part fails if its process
    dies repeatedly and no picture seems to be the cause.
    """

    def __init__(self) -> None:
        """Start the process. Its imports take half a second; `set_up` need not wait for them."""
        # The index of the current picture in the part, in shared memory.
        self.position = CONTEXT.RawValue("q", NO_PICTURE)
        self._start()

    def set_up(self, job: "Job", artifact: dict[str, bytes]) -> None:
        """Send the job and the artifact, which `worker.Worker` takes, to the process."""
        self._job, self._artifact = job, artifact
        self._send((job, artifact))

    def make(self, task: "Task") -> "Result":
        """Make a part, and return its result."""
        self.begin(task)
        while (result := self.receive()) is None:
            pass
        return result

    def begin(self, task: "Task") -> None:
        """Begin to make a part; `receive` returns its result."""
        self._task = task
        self._deaths: Counter[int] = Counter()
        self._send((task, self._deaths))

    def receive(self) -> "Result | None":
        """Wait for the result of the part. Return None if the process died and was replaced."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return self._replace()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _start(self) -> None:
        self.position.value = NO_PICTURE
        # multiprocessing needs the resource tracker, and starting it would reset the signal mask.
        resource_tracker.ensure_running()
        # The new process inherits the mask. It unblocks the signals after it has set its handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            self.connection, theirs = CONTEXT.Pipe()
            self._process = CONTEXT.Process(
                target=_serve, args=(theirs, self.position), daemon=True
            )
            self._process.start()
            theirs.close()  # then the connection closes when the process dies
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _send(self, message: object) -> None:
        with suppress(OSError):  # if the process was killed, `receive` replaces it
            self.connection.send(message)

    def _replace(self) -> "Result | None":
        from service.bulk.job import Result

        self.kill()
        self._deaths[self.position.value] += 1
        if _should_give_up(self._deaths):
            times = f"{self._deaths.total()} times, the last time {_cause_of_death(self._process)}"
            output = self._job.output(self._task.number)
            return Result(failure=f"cannot make {output}: its process ended {times}")
        self._start()
        self.set_up(self._job, self._artifact)
        self._send((self._task, self._deaths))
        return None


@contextmanager
def start(count: int) -> Iterator[Results]:
    """Start processes, and kill them at the end.

    Args:
        count: The number of processes.

    Yields:
        A function that makes parts in these processes.
    """
    processes = [Process() for _ in range(count)]

    def results(
        job: "Job", artifact: dict[str, bytes], tasks: Iterable["Task"]
    ) -> Iterator["Result"]:
        for process in processes:
            process.set_up(job, artifact)
        yield from _results(processes, iter(tasks))

    try:
        yield results
    finally:
        for process in processes:
            process.kill()


def _results(processes: list[Process], tasks: Iterator["Task"]) -> Iterator["Result"]:
    busy: dict[Any, Process] = {}
    idle = processes
    while True:
        for process, task in zip(idle, tasks, strict=False):
            process.begin(task)
            busy[process.connection] = process
        if not busy:
            return
        idle = []
        for ready in connection.wait(list(busy)):
            process = busy.pop(ready)
            result = process.receive()
            if result is None:
                busy[process.connection] = process
            else:
                idle.append(process)
                yield result


def _should_give_up(deaths: Mapping[int, int]) -> bool:
    """Return whether skipping a picture cannot help, for example if the machine lacks memory."""
    unexplained = (n for at, n in deaths.items() if at == NO_PICTURE or n < SKIPPED_AFTER)
    return sum(unexplained) > MAX_DEATHS or max(deaths.values()) > MAX_DEATHS


def _cause_of_death(process: Any) -> str:
    code = process.exitcode
    if code >= 0:
        return f"with exit status {code}"
    name = signal.Signals(-code).name
    return f"by {name} (out of memory?)" if name == "SIGKILL" else f"by {name}"


def _serve(channel: Any, position: "c_longlong") -> None:
    """Run the worker process: make parts until the driver ends it."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    Thread(target=_end_with_parent, daemon=True).start()
    # This import takes half a second. Meanwhile the driver makes the list of parts.
    from service.bulk.worker import serve

    serve(channel, position)


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, even in the middle of a part."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
