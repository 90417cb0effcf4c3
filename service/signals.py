"""SIGTERM and SIGINT wait until a worker can follow them.

granian sets its handlers in a new worker some moments before the event loop listens to them; a
signal in between would be lost, and so would one in the middle of the fork. Blocked, it waits in
the kernel. The mask has to be there before the fork, since threads take it over: in one that lacks
it the signal would arrive too early.
"""

import os
import signal

STOPPING = (signal.SIGTERM, signal.SIGINT)


def block_in_children() -> None:
    """Block the signals in each process that is forked from now on, until it unblocks them."""
    os.register_at_fork(before=_block, after_in_parent=unblock, after_in_child=_ignore_hangup)


def unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def unblock_to_end_at_once() -> None:
    """In a child process that has nothing to finish."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    unblock()


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def _ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the main process
