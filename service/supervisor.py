"""Start worker processes, replace the ones that die, and stop them after their last response."""

import logging
import mmap
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess

STOPPING = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (*STOPPING, signal.SIGHUP, signal.SIGCHLD)  # signals that the main process handles
STOP_TIMEOUT = 30  # seconds for the requests in flight before a worker is killed
MIN_LIFETIME = 5  # seconds; a replacement that dies sooner would die again and again

logger = logging.getLogger(__name__)


class Flag:
    """A flag that all processes share that are forked after its creation."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def turn_on(self) -> None:
        self._shared[0] = 1

    def turn_off(self) -> None:
        self._shared[0] = 0

    def is_on(self) -> bool:
        return bool(self._shared[0])


def start(target: Callable[..., object], *args: object) -> ForkProcess:
    """Fork a child process that runs `target(*args)`.

    SIGTERM ends the child at once until it installs its own handler.
    """
    process = multiprocessing.get_context("fork").Process(
        target=_begin, args=(target, *args), daemon=True
    )
    # Block signals until the child has removed the handlers that it inherits from this process.
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
    # Only the main process handles these two, although Ctrl-C sends SIGINT to all processes.
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        target(*args)
    except Exception:
        logger.exception("A process of the service failed")
        sys.exit(1)


def signals() -> int:
    """Handle `SIGNALS` from now on.

    Returns:
        The file descriptor of a pipe, from which each signal can be read as one byte, its number.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return reader


class Workers:
    """The worker processes of a service."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        """Start the workers.

        Args:
            work: The function that a worker runs until SIGTERM. Its argument is the worker's
                index.
            count: The number of workers.
        """
        self._work = work
        self._workers = [start(work, index) for index in range(count)]
        self._replaced: dict[int, float] = {}  # time of the last replacement, by index

    def replace_dead(self) -> bool:
        """Replace the workers that have died.

        Returns:
            Whether all died workers could be replaced: False if a replacement died within
            `MIN_LIFETIME` seconds of its start.
        """
        for index, worker in enumerate(self._workers):
            code = worker.exitcode
            if code is None:
                continue
            now = time.monotonic()
            if now - self._replaced.get(index, -MIN_LIFETIME) < MIN_LIFETIME:
                logger.error("a replacement worker died within %s seconds; stopping", MIN_LIFETIME)
                return False
            end = f"signal {-code}" if code < 0 else f"status {code}"
            logger.error("a worker ended with %s; starting another", end)
            self._replaced[index] = now
            self._workers[index] = start(self._work, index)
        return True

    def stop(self) -> None:
        """Stop each worker after its last response, or kill it after `STOP_TIMEOUT` seconds."""
        for worker in self._workers:
            worker.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for worker in self._workers:
            worker.join(max(0, deadline - time.monotonic()))
            worker.kill()
            worker.join()
