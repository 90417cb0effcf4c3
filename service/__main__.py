"""Serve the artifact that dvc.lock pins: python -m service."""

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

ARTIFACTS = "artifacts"  # a folder in the private folder of a running service


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
        "pins. The service verifies the artifact before it loads it. If the files differ from the "
        "pinned hashes, the service reports the difference and exits with status 1.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_number(1, 65535), default=8080, help="port to listen on")
    parser.add_argument(
        "--workers",
        type=_number(1, 1024),
        default=os.cpu_count() or 1,
        help="number of worker processes, one per core by default; each loads the model",
    )
    parser.add_argument(
        "--queue",
        type=_number(1, 65536),
        default=Limits.queue,
        help="most requests that wait in each worker; further requests get 503",
    )
    parser.add_argument(
        "--timeout",
        type=_number(1, 3600),
        default=Limits.seconds,
        help="seconds to receive a request, and again to answer it",
    )
    parser.add_argument(
        "--max-body",
        type=_number(1024, 1 << 30),
        default=Limits.body,
        help="most bytes in the body of a request",
    )
    parser.add_argument(
        "--max-images",
        type=_number(1, 1_000_000),
        default=Limits.images,
        help="most images in a request",
    )
    parser.add_argument(
        "--max-pixels",
        type=_number(28 * 28, 80_000_000),
        default=Limits.pixels,
        help="most pixels in a picture",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help="file that contains a token; every request except health checks and the files of the "
        "page must send it as `Authorization: Bearer`",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="load a new artifact as soon as the lock file pins it; otherwise only on SIGHUP",
    )
    parser.add_argument(
        "--engine",
        choices=engines.ENGINES,
        default="litert",
        help="inference library; litert is faster and smaller, tensorflow is a separate install",
    )
    parser.add_argument(
        "--log-format",
        choices=access_log.FORMATS,
        default="text",
        help="format of the access log, one line per request",
    )
    parser.add_argument(
        "--lock",
        type=Path,
        default=Path("dvc.lock"),
        help="lock file; the artifact is data/model in the same folder",
    )
    parser.add_argument(
        "--allow-md5-only",
        action="store_true",
        help="accept a lock file that pins the artifact by MD5 only, without data/model.sha256; an "
        "attacker can make two artifacts with one MD5",
    )
    return parser.parse_args()


def _number(least: int, most: int) -> "partial[int]":
    return partial(_parse_number, least, most)


def _parse_number(least: int, most: int, text: str) -> int:
    if not (text.isdecimal() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def _listen(host: str, port: int, workers: int) -> list[socket.socket]:
    """Return a listening socket for each worker.

    Linux distributes connections over sockets that share a port (SO_REUSEPORT) more evenly than
    over workers that share one socket. This process also keeps the sockets open, so that
    connections to a worker that dies wait for its replacement.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        count = workers if sys.platform == "linux" else 1
        probe, *listeners = [socket.socket(family, kind, protocol) for _ in range(1 + count)]
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Without SO_REUSEPORT, this fails if another program listens on the port.
            probe.bind(address)
        for listener in listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        reason = f"cannot listen on {host}:{port} ({error.strerror})"
        sys.exit(f"service: {reason}; choose another --host or --port")
    return listeners if count == workers else listeners * workers


def _serve(
    options: argparse.Namespace, token: str | None, private: Path, listeners: list[socket.socket]
) -> int:
    """Serve until a signal stops the service, and return the exit status."""
    artifacts, metrics_folder = private / ARTIFACTS, private / "metrics"
    artifacts.mkdir()
    metrics_folder.mkdir()
    watcher = Watcher(
        options.lock, options.engine, artifacts, options.watch, options.allow_md5_only
    )
    print(
        f"Serving {pin.ARTIFACT} {watcher.served} at http://{options.host}:{options.port} "
        f"({options.workers} workers, {options.engine})",
        flush=True,
    )
    # Each worker uses one core, so more threads in TensorFlow or OpenCV would only compete.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hide TensorFlow's warnings
    os.environ[metrics.FOLDER] = str(metrics_folder)
    # Import the workers' code before the fork: a replacement worker then runs the same code, even
    # if the files have changed since.
    import_module("service.connections")

    limits = Limits(
        body=options.max_body,
        images=options.max_images,
        pixels=options.max_pixels,
        queue=options.queue,
        seconds=options.timeout,
    )
    # Each connection is an open file. macOS rejects the limit that it reports.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal_pipe = supervisor.signals()
    work = partial(_work, options, token, limits, private, os.getpid(), listeners)
    workers = supervisor.Workers(work, options.workers)
    watcher.start()
    try:
        return _supervise(workers, watcher, signal_pipe)
    finally:
        for listener in listeners:
            listener.close()
        workers.stop()


def _supervise(workers: supervisor.Workers, watcher: Watcher, signal_pipe: int) -> int:
    """Handle signals until one of them stops the service, and return the exit status."""
    while True:
        (number,) = os.read(signal_pipe, 1)
        if number in supervisor.STOPPING:
            return 0
        if number == signal.SIGHUP:
            watcher.wake()
        elif not workers.replace_dead():
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
    """Run a worker: load the model, and answer requests on the listener with index `place`."""
    for listener in listeners:
        if listener is not listeners[place]:
            # An open copy would keep accepting connections after that listener's worker stopped.
            listener.close()
    Thread(target=_end_with, args=(parent, private), daemon=True).start()
    # The main process has imported these modules. They import TensorFlow only on first use, because
    # TensorFlow does not survive a fork.
    from service import connections
    from service.served_model import Model
    from service.server import Server

    artifacts = private / ARTIFACTS
    now = reload.available(reload.published(artifacts))
    model = Model(Path(now.folder), now.version, now.sha256, options.engine)
    server = Server(model, artifacts, limits, token, options.log_format)
    cv2.setNumThreads(1)
    # `recognition.images` suppresses warnings with `catch_warnings`, which is not thread-safe, so
    # suppress them for the whole process.
    warnings.simplefilter("ignore")
    # Exclude the loaded objects from garbage collection.
    gc.collect()
    gc.freeze()
    uvloop.run(connections.serve(server, listeners[place]))


def _end_with(parent: int, private: Path) -> None:
    """Stop this worker when the main process has died, and remove the private folder.

    Otherwise orphaned workers would keep the port, and no process would stop or replace them.
    """
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(private, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(supervisor.STOP_TIMEOUT)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
