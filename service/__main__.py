"""Serve the artifact that dvc.lock pins: python -m service"""

import argparse
import gc
import os
import resource
import shutil
import signal
import socket
import sys
import time
import warnings
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import cv2
import uvloop

from service import access_log, metrics, reload, supervisor
from service.api import auth
from service.api.limits import Limits
from service.recognition import engines, pin
from service.reload import Watcher

ARTIFACTS = "artifacts"  # in the private folder of a running service


def main() -> None:
    options = _options()
    if options.engine == "tensorflow" and find_spec("tensorflow") is None:
        sys.exit(
            "service: the engine tensorflow needs TensorFlow, which is not installed; "
            "`pip install tensorflow-cpu`, or use --engine litert"
        )
    try:
        token = auth.read(options.token_file) if options.token_file else None
        listeners = _listen(options.host, options.port, options.workers)
        with TemporaryDirectory(prefix="mnist-service-") as private:
            sys.exit(_serve(options, token, Path(private), listeners))
    except (pin.PinError, auth.TokenError) as error:
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
        default=Limits.queue,
        help="requests that may wait in each worker; to more it answers 503",
    )
    parser.add_argument(
        "--timeout",
        type=_number(1, 3600),
        default=Limits.seconds,
        help="seconds in which a request has to arrive, and as many in which to answer it",
    )
    parser.add_argument(
        "--max-body", type=_number(1024, 1 << 30), default=Limits.body, help="bytes of a request"
    )
    parser.add_argument(
        "--max-images", type=_number(1, 1_000_000), default=Limits.images, help="of a request"
    )
    parser.add_argument(
        "--max-pixels",
        type=_number(28 * 28, 80_000_000),
        default=Limits.pixels,
        help="of a picture",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help="file with a token, which every request but those for health has then to send as "
        "`Authorization: Bearer`",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="serve another artifact as soon as the lock pins it; without it, on SIGHUP only",
    )
    parser.add_argument(
        "--engine",
        choices=engines.ENGINES,
        default="litert",
        help="what computes: litert is quicker and smaller; tensorflow has to be installed",
    )
    parser.add_argument(
        "--log-format",
        choices=access_log.FORMATS,
        default="text",
        help="of the line for each request",
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


def _listen(host: str, port: int, workers: int) -> list[socket.socket]:
    """A socket for each worker; Linux spreads connections over them, more evenly than over one.

    This process keeps them open too, so that connections to a worker that dies wait for the next.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        different = workers if sys.platform == "linux" else 1
        probe, *listeners = [socket.socket(family, kind, protocol) for _ in range(1 + different)]
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)  # fails if anybody listens; the others would share the port
        for listener in listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        reason = f"cannot listen on {host}:{port} ({error.strerror})"
        sys.exit(f"service: {reason}; choose another --host or --port")
    return listeners if different == workers else listeners * workers


def _serve(
    options: argparse.Namespace, token: str | None, private: Path, listeners: list[socket.socket]
) -> int:
    """Serve until a signal to end; return the exit status."""
    artifacts, figures = private / ARTIFACTS, private / "metrics"
    artifacts.mkdir()
    figures.mkdir()
    watcher = Watcher(options.lock, options.engine, artifacts, options.watch)
    print(
        f"Serving {pin.ARTIFACT} {watcher.served.version} at http://{options.host}:{options.port} "
        f"({options.workers} workers, {options.engine})",
        flush=True,
    )
    # One request is one core's work: more threads of TensorFlow, or below of OpenCV, only get in
    # each other's way.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # shows TensorFlow's errors only
    os.environ[metrics.FOLDER] = str(figures)
    # Now, and not in the workers: one that replaces another later has the same code, even if the
    # files have changed meanwhile.
    import_module("service.connections")

    limits = Limits(
        body=options.max_body,
        images=options.max_images,
        pixels=options.max_pixels,
        queue=options.queue,
        seconds=options.timeout,
    )
    # Each connection is an open file. macOS allows fewer than it says.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    told = supervisor.signals()
    work = partial(_work, options, token, limits, private, os.getpid(), listeners)
    started = supervisor.Workers(work, options.workers)
    watcher.start()
    try:
        return _supervise(started, watcher, told)
    finally:
        for listener in listeners:
            listener.close()
        started.stop()


def _supervise(started: supervisor.Workers, watcher: Watcher, told: int) -> int:
    """Do as the signals in the file `told` say, until one to end; return the exit status."""
    while True:
        (number,) = os.read(told, 1)
        if number in supervisor.STOPPING:
            return 0
        if number == signal.SIGHUP:
            watcher.wake()
        elif not started.replace_dead():
            return 1


def _work(
    options: argparse.Namespace,
    token: str | None,
    limits: Limits,
    private: Path,
    parent: int,
    listeners: list[socket.socket],
    place: int,
) -> None:
    """What the worker in one of the places does."""
    for listener in listeners:
        if listener is not listeners[place]:
            listener.close()  # or it would go on listening after its own worker has stopped
    Thread(target=_end_with, args=(parent, private), daemon=True).start()
    # Imported by now; TensorFlow, which does not survive a fork, is not before it is needed.
    from service import connections
    from service.served_model import Model
    from service.server import Server

    artifacts = private / ARTIFACTS
    now = reload.available(reload.published(artifacts))
    model = Model(Path(now.folder), now.version, options.engine)
    server = Server(model, artifacts, limits, token, options.log_format)
    cv2.setNumThreads(1)
    # For the whole process: to ignore warnings for a while, as `recognition.images` does, is not
    # safe while two threads do so.
    warnings.simplefilter("ignore")
    # What is loaded stays: the garbage collector need not look through it again and again, nor
    # look for cycles after every few requests, which make none.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    uvloop.run(connections.serve(server, listeners[place]))


def _end_with(parent: int, private: Path) -> None:
    """In a worker: end once the main process was killed, and remove what it left behind.

    Else the workers would go on, and hold the port, with nobody to stop or replace them.
    """
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(private, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(supervisor.STOP_TIMEOUT)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
