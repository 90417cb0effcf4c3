"""Worker processes: started, replaced when they die, stopped when their requests are answered."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess

STOPPING = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (*STOPPING, signal.SIGHUP, signal.SIGCHLD)  # that the main process waits for
STOP_TIMEOUT = 30  # seconds for the requests in flight before a worker is killed
AGAIN = 5  # seconds; a worker that replaced another and dies before cannot be helped


def start(target: Callable[..., object], *args: object) -> ForkProcess:
    """A child process, which ends at once on SIGTERM and SIGINT until it sets its own handlers."""
    process = multiprocessing.get_context("fork").Process(
        target=_begin, args=(target, *args), daemon=True
    )
    # Until the child has put the handlers of this process away, its signals wait in the kernel.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return process


def _begin(target: Callable[..., object], *args: object) -> None:
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the main process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    target(*args)


def signals() -> int:
    """A file with a byte for each signal to this process from now on: its number."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return reader


class Workers:
    def __init__(self, work: Callable[[int], None], count: int) -> None:
        """Start so many processes, each of which does `work`, with its place, until SIGTERM."""
        self._work = work
        self._workers = [start(work, place) for place in range(count)]
        self._replaced: dict[int, float] = {}  # when, by place

    def replace_dead(self) -> bool:
        """Replace the workers that have died.

        Returns:
            False if one died within `AGAIN` seconds of its start as a replacement.
        """
        for place, worker in enumerate(self._workers):
            if worker.exitcode is None:
                continue
            now = time.monotonic()
            if now - self._replaced.get(place, -AGAIN) < AGAIN:
                print("service: a worker died again at once", file=sys.stderr, flush=True)
                return False
            self._replaced[place] = now
            self._workers[place] = start(self._work, place)
        return True

    def stop(self) -> None:
        """End each when its requests are answered, or after STOP_TIMEOUT."""
        for worker in self._workers:
            worker.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for worker in self._workers:
            worker.join(max(0, deadline - time.monotonic()))
            worker.kill()
            worker.join()
