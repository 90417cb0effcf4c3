"""Serve the artifact that dvc.lock pins: python -m service"""

import argparse
import gc
import os
import signal
import socket
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels

from service import log, pin, recognizer

if TYPE_CHECKING:
    from service.server import Server

STOP_TIMEOUT = 30  # seconds for the requests in flight before a worker is killed


def main() -> None:
    options = _options()
    if options.engine == "tensorflow" and find_spec("tensorflow") is None:
        sys.exit(
            "service: the engine tensorflow needs TensorFlow, which is not installed; "
            "`pip install tensorflow-cpu`, or use --engine litert"
        )
    try:
        _claim(options.host, options.port)
        pinned = pin.read(options.lock)
        # The workers load from this copy, also one that replaces another later.
        with pin.verified(pinned) as folder:
            print(
                f"Serving {pinned.folder} {pinned.version} at http://{options.host}:{options.port} "
                f"({options.workers} workers, {options.engine})",
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
        "--queue",
        type=_number(1, 65536),
        default=128,
        help="requests that may wait in each worker; to more it answers 503",
    )
    parser.add_argument(
        "--engine",
        choices=recognizer.ENGINES,
        default="litert",
        help="what computes: litert is quicker and smaller; tensorflow has to be installed",
    )
    parser.add_argument(
        "--log-format", choices=log.FORMATS, default="text", help="of the line for each request"
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
    with TemporaryDirectory(prefix="mnist-metrics-") as figures:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = figures  # for service.prometheus
        Granian(
            "service",
            address=options.host,
            port=options.port,
            interface=Interfaces.RSGI,
            workers=options.workers,
            http=HTTPModes.http1,
            websockets=False,
            loop=Loops.uvloop,
            respawn_failed_workers=True,
            workers_kill_timeout=STOP_TIMEOUT,
            log_level=LogLevels.error,
        ).serve(target_loader=partial(_load, options, folder, version), wrap_loader=False)


def _load(options: argparse.Namespace, folder: Path, version: str) -> "Server":
    # A worker that is still loading has nothing to finish: let it end at once. Until granian has
    # its own handlers in place, a forked worker has its parent's, which would ignore the signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    # In the worker: TensorFlow does not survive a fork, and metrics are one file a process.
    from service import app
    from service.server import Server

    application = app.create(folder, version, options.engine, options.log_format)
    # What is loaded stays: the garbage collector need not look through it again and again, nor
    # look for cycles after every few requests, which make none.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    return Server(application, options.queue)


if __name__ == "__main__":
    main()
