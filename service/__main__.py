"""Serve the artifact that dvc.lock pins: python -m service"""

import argparse
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from service import pin

if TYPE_CHECKING:
    from flask import Flask

STOP_TIMEOUT = 30  # seconds for the requests in flight before a worker is killed


def main() -> None:
    options = _options()
    try:
        _claim(options.host, options.port)
        pinned = pin.read(options.lock)
        # The workers load from this copy, also one that replaces another later.
        with pin.verified(pinned) as folder:
            print(
                f"Serving {pinned.folder} {pinned.version} at http://{options.host}:{options.port} "
                f"({options.workers} workers of {options.threads} threads)",
                flush=True,
            )
            _serve(options, folder, pinned.version)
    except pin.PinError as error:
        sys.exit(f"service: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve handwritten-digit recognition from exactly the artifact that dvc.lock "
        "pins. Its bytes are checked before anything is loaded; on any difference the service "
        "says what it expected and found, and exits with status 1.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_number(1, 65535), default=8080, help="port to listen on")
    parser.add_argument(
        "--workers",
        type=_number(1, 1024),
        default=os.cpu_count() or 1,
        help="processes, each with the model in memory; the default is one a core",
    )
    parser.add_argument(
        "--threads",
        type=_number(1, 1024),
        default=4,
        help="requests that each worker reads and answers at a time",
    )
    parser.add_argument(
        "--lock",
        type=Path,
        default=Path("dvc.lock"),
        help="the lock file; the artifact is data/model beside it",
    )
    return parser.parse_args()


def _number(least: int, most: int) -> "partial[int]":
    return partial(_parse_number, least, most)


def _parse_number(least: int, most: int, text: str) -> int:
    if not (text.isdecimal() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def _claim(host: str, port: int) -> None:
    """Make sure that nobody listens there: granian would share the port without a word."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = f"cannot listen on {host}:{port} ({error.strerror})"
        sys.exit(f"service: {reason}; choose another --host or --port")


def _serve(options: argparse.Namespace, folder: Path, version: str) -> None:
    # One request is one core's work: more TensorFlow threads only get in each other's way.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    Granian(
        "service",
        address=options.host,
        port=options.port,
        interface=Interfaces.WSGI,
        workers=options.workers,
        blocking_threads=options.threads,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT,
        log_level=LogLevels.error,
    ).serve(target_loader=partial(_load, folder, version), wrap_loader=False)


def _load(folder: Path, version: str) -> "Flask":
    # A worker that is still loading has nothing to finish: let it end at once. Until granian has
    # its own handlers in place, a forked worker has its parent's, which would ignore the signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    from service import app  # in the worker: TensorFlow does not survive a fork

    return app.create(folder, version)


if __name__ == "__main__":
    main()
