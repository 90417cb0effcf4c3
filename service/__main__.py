"""Serve the artifact that dvc.lock pins: python -m service."""

import argparse
import errno
import fcntl
import gc
import logging
import os
import resource
import select
import shutil
import signal
import socket
import ssl
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
from typing import NoReturn

import cv2
import uvloop

from service import feedback, log, metrics, reload, supervisor
from service.api import auth
from service.api.limits import Limits
from service.feedback import Inbox
from service.options import parse_options
from service.recognition import pin
from service.reload import Watcher
from service.shadow import Bounds, Copies, Trial

ARTIFACTS = "artifacts"  # a folder in the private folder of a running service

logger = logging.getLogger("service")


def main() -> None:
    options = parse_options()
    log.configure(options.log_format)
    if options.engine == "tensorflow" and find_spec("tensorflow") is None:
        _refuse(
            "the engine tensorflow needs TensorFlow, which is not installed; "
            "`pip install tensorflow-cpu`, or use --engine litert"
        )
    try:
        token = auth.read(options.token_file) if options.token_file else None
        tls = _tls(options.tls_certificate, options.tls_key) if options.tls_key else None
        inbox = _inbox(options) if options.feedback else None
        listeners = [] if options.check else _listen(options)
        try:
            with _temporary_folder() as private:
                sys.exit(_serve(options, token, tls, inbox, Path(private), listeners))
        finally:
            _close(listeners)
    except (pin.PinError, auth.TokenError, feedback.FeedbackError) as error:
        _refuse(str(error))


def _temporary_folder() -> "TemporaryDirectory[str]":
    try:
        return TemporaryDirectory(prefix="mnist-service-")
    except OSError as error:
        _refuse(
            f"cannot make a temporary folder ({error.strerror}); set TMPDIR to a folder that this "
            "user can write to, or mount such a folder at /tmp"
        )


def _refuse(reason: str) -> NoReturn:
    logger.error(reason)
    sys.exit(1)


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password, OpenSSL would ask for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        reason = "no certificate chain with its unencrypted key in PEM"
    except OSError as error:
        reason = str(error.strerror)
    else:
        return context
    _refuse(f"cannot speak TLS with {certificate} and {key} ({reason}); name other files")


def _inbox(options: argparse.Namespace) -> Inbox:
    if not (options.token_file or options.uds or feedback.is_loopback(options.host)):
        raise feedback.FeedbackError(
            f"--feedback lets everybody who reaches {options.host} write to this machine; require "
            "a token with --token-file, or listen on --host 127.0.0.1"
        )
    return Inbox(
        options.feedback,
        options.feedback_max_files,
        options.feedback_max_bytes,
        options.feedback_per_minute,
    )


def _listen(options: argparse.Namespace) -> list[socket.socket]:
    """Return a listening socket for each worker."""
    try:
        if options.uds:
            return [_listen_on_path(options.uds)] * options.workers
        return _listen_on_port(options.host, options.port, options.workers)
    except OSError as error:
        remedy = "--uds" if options.uds else "--host or --port"
        reason = error.strerror or error
        _refuse(f"cannot listen on {_place(options)} ({reason}); choose another {remedy}")


def _place(options: argparse.Namespace) -> str:
    """Return where the service listens: a path, or an address as it stands in URLs."""
    if options.uds:
        return str(options.uds)
    host = f"[{options.host}]" if ":" in options.host else options.host  # IPv6
    return f"{host}:{options.port}"


def _listen_on_path(path: Path) -> socket.socket:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Of two services that start at the same time, one would remove the socket of the other.
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.is_socket():
            with socket.socket(socket.AF_UNIX) as client, suppress(ConnectionRefusedError):
                client.setblocking(False)  # the queue of a busy service may be full
                client.connect(str(path))
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            path.unlink()  # a service that was killed has left it
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
    finally:
        os.close(folder)  # releases the lock
    return listener


def _listen_on_port(host: str, port: int, workers: int) -> list[socket.socket]:
    """Return a listening socket for each worker.

    Linux distributes connections over sockets that share a port (SO_REUSEPORT) more evenly than
    over workers that share one socket. This process also keeps the sockets open, so that
    connections to a worker that dies wait for its replacement.
    """
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
    return listeners if count == workers else listeners * workers


def _close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        if listener.family == socket.AF_UNIX and listener.fileno() >= 0:
            # Before the workers stop: then another service may listen on this path.
            with suppress(OSError):
                Path(listener.getsockname()).unlink()
        listener.close()


def _serve(
    options: argparse.Namespace,
    token: str | None,
    tls: ssl.SSLContext | None,
    inbox: Inbox | None,
    private: Path,
    listeners: list[socket.socket],
) -> int:
    """Serve until a signal stops the service, or only check, and return the exit status."""
    artifacts, metrics_folder = private / ARTIFACTS, private / "metrics"
    artifacts.mkdir()
    metrics_folder.mkdir()
    if options.artifact:
        name, read = str(options.artifact), partial(pin.of_folder, options.artifact, options.pin)
    else:
        name, read = pin.ARTIFACT, partial(pin.read, options.lock, options.allow_md5_only)
    copies = Copies() if options.shadow else None
    begin_trial = partial(Trial, copies, _bounds(options), options.engine) if copies else None
    watcher = Watcher(
        read, name, options.lock, options.engine, artifacts, options.watch, begin_trial
    )
    # Each worker uses one core, so more threads in TensorFlow or OpenCV would only compete.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hide TensorFlow's warnings
    if options.check:
        watcher.try_to_load(watcher.served)
        logger.info("%s can load %s %s", options.engine, name, watcher.served)
        return 0
    scheme = "" if options.uds else "https://" if tls else "http://"
    logger.info(
        "Serving %s %s at %s%s (%s workers, %s)",
        *(name, watcher.served, scheme, _place(options), options.workers, options.engine),
    )
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
    draining = supervisor.Flag()
    work = partial(
        _work, options, token, tls, inbox, limits, private, os.getpid(), listeners, draining, copies
    )
    workers = supervisor.Workers(work, options.workers)
    watcher.start()
    try:
        return _supervise(workers, watcher, signal_pipe, draining, options.drain)
    finally:
        _close(listeners)
        watcher.stop()
        workers.stop()


def _bounds(options: argparse.Namespace) -> Bounds:
    return Bounds(
        options.shadow,
        options.shadow_max_disagreement,
        options.shadow_max_confidence_loss,
        options.shadow_max_slowdown,
    )


def _supervise(
    workers: supervisor.Workers,
    watcher: Watcher,
    signal_pipe: int,
    draining: supervisor.Flag,
    drain: int,
) -> int:
    """Handle signals until one of them stops the service, and return the exit status.

    After the first signal to stop, the workers go on for `drain` seconds, or until the second one.
    """
    end = None
    while True:
        seconds = None if end is None else max(0, end - time.monotonic())
        if not select.select([signal_pipe], [], [], seconds)[0]:
            return 0
        (number,) = os.read(signal_pipe, 1)
        if number in supervisor.STOPPING:
            if draining.is_on() or not drain:
                return 0
            draining.turn_on()
            end = time.monotonic() + drain
        elif number == signal.SIGHUP:
            watcher.wake()
        elif not workers.replace_dead():
            return 1


def _work(
    options: argparse.Namespace,
    token: str | None,
    tls: ssl.SSLContext | None,
    inbox: Inbox | None,
    limits: Limits,
    private: Path,
    parent: int,
    listeners: list[socket.socket],
    draining: supervisor.Flag,
    copies: Copies | None,
    index: int,
) -> None:
    """Run a worker: load the model, and answer requests on the listener with this `index`."""
    for listener in listeners:
        if listener is not listeners[index]:
            # An open copy would keep accepting connections after that listener's worker stopped.
            listener.close()
    Thread(target=_end_with, args=(parent, private), daemon=True).start()
    # The main process has imported these modules. They import TensorFlow only on first use, because
    # TensorFlow does not survive a fork.
    from service import connections
    from service.scheduler import Scheduler
    from service.served_model import Model

    artifacts = private / ARTIFACTS
    now = reload.available(reload.published(artifacts))
    model = Model(Path(now.folder), now.version, now.sha256, options.engine, copies)
    scheduler = Scheduler(
        model, artifacts, limits, token, options.log_format, options.cors_origin, draining, inbox
    )
    cv2.setNumThreads(1)
    # `recognition.images` suppresses warnings with `catch_warnings`, which is not thread-safe, so
    # suppress them for the whole process.
    warnings.simplefilter("ignore")
    # Exclude the loaded objects from garbage collection.
    gc.collect()
    gc.freeze()
    uvloop.run(connections.serve(scheduler, listeners[index], tls))


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
