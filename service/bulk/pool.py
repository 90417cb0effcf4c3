"""Worker processes on this machine, and what happens when one of them is killed."""

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

# A fork is not safe: the driver has threads of pyarrow when a replacement starts.
CONTEXT = multiprocessing.get_context("spawn")
NO_PICTURE = -1  # the position of a worker that reads and decodes no picture
SKIPPED_AFTER = 2  # deaths at one picture; then the picture becomes a row with an error
MOST_DEATHS = 3  # at one picture, or that no picture seems to have caused, in one part

Results = Callable[["Job", dict[str, bytes], Iterable["Task"]], Iterator["Result"]]


class Process:
    """A process that makes parts. If it is killed, a new one makes its part again.

    A picture that kills the process twice becomes a row with an error. A part whose process is
    killed again and again without such a picture fails.
    """

    def __init__(self) -> None:
        """Start the process. Its imports take half a second, in which it can be set up."""
        # The number of the picture in the part, in shared memory.
        self.position = CONTEXT.RawValue("q", NO_PICTURE)
        self._start()

    def set_up(self, job: "Job", artifact: dict[str, bytes]) -> None:
        """Send what all parts need; the arguments are those of `worker.Worker`."""
        self._job, self._artifact = job, artifact
        self._send((job, artifact))

    def make(self, task: "Task") -> "Result":
        self.begin(task)
        while (result := self.receive()) is None:
            pass
        return result

    def begin(self, task: "Task") -> None:
        self._task = task
        self._deaths: Counter[int] = Counter()
        self._send((task, self._deaths))

    def receive(self) -> "Result | None":
        """Wait for the result of the part; None if the process was killed and replaced."""
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
        resource_tracker.ensure_running()  # multiprocessing needs it; its start ends any mask
        # The new process inherits the mask, and unblocks the signals when it can follow them.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            self.connection, theirs = CONTEXT.Pipe()
            self._process = CONTEXT.Process(
                target=_serve, args=(theirs, self.position), daemon=True
            )
            self._process.start()
            theirs.close()  # so that the death of the process ends the connection
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _send(self, message: object) -> None:
        with suppress(OSError):  # the process was killed, which `receive` finds
            self.connection.send(message)

    def _replace(self) -> "Result | None":
        from service.bulk.job import Result

        self.kill()
        self._deaths[self.position.value] += 1
        if _hopeless(self._deaths):
            times = f"{self._deaths.total()} times, the last time by {_cause(self._process)}"
            output = self._job.output(self._task.number)
            return Result(failure=f"{output} cannot be made: its process was ended {times}")
        self._start()
        self.set_up(self._job, self._artifact)
        self._send((self._task, self._deaths))
        return None


@contextmanager
def running(count: int) -> Iterator[Results]:
    """Start processes, and kill them at the end.

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


def _hopeless(deaths: Mapping[int, int]) -> bool:
    """Whether no picture is to blame, as where memory is short and any process may be killed."""
    elsewhere = (n for at, n in deaths.items() if at == NO_PICTURE or n < SKIPPED_AFTER)
    return sum(elsewhere) > MOST_DEATHS or max(deaths.values()) > MOST_DEATHS


def _cause(process: Any) -> str:
    code = process.exitcode
    if code >= 0:
        return f"itself, with exit status {code}"
    name = signal.Signals(-code).name
    return f"{name} (is memory short?)" if name == "SIGKILL" else name


def _serve(channel: Any, position: "c_longlong") -> None:
    """What a process runs: it makes part after part."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    Thread(target=_end_with_parent, daemon=True).start()
    # While this takes half a second, the driver makes the list of parts.
    from service.bulk.worker import serve

    serve(channel, position)


def _end_with_parent() -> None:
    """End this process when its parent does, however that ends, in the middle of a part too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
