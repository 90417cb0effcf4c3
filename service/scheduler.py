"""Schedule requests: pass each one from its connection to the Flask application.

The event loop answers short requests, one at a time. One more thread answers the long ones. Both
take their requests in order of arrival. A worker uses one core, so more threads would only compete.

A request is long if its body exceeds `SHORT_BODY`. It is also long if its pictures exceed
`SHORT_PICTURES` or `SHORT_PIXELS` (see `service.api.limits`). The event loop notices that while it
answers, and the thread then answers the request from the beginning. When the queue is full, the
scheduler answers 503.
"""

import asyncio
import ctypes
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol
from wsgiref.types import WSGIEnvironment

from werkzeug.exceptions import ServiceUnavailable

from service import access_log
from service.api import app, auth, errors
from service.api.limits import (
    DISCONNECTED,
    ON_LOOP,
    REFUSAL,
    SHORT_BODY,
    Limits,
    LongRequestError,
    out_of_time,
)
from service.api.responses import TYPE, dumps
from service.feedback import Inbox
from service.served_model import Model
from service.supervisor import Flag

# glibc keeps memory that a thread has freed, up to some hundred MiB, until malloc_trim is called.
MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
RETRY_AFTER = 1  # seconds; a worker answers a full queue in less

logger = logging.getLogger(__name__)

Response = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body


class Client(Protocol):
    """The sender of a request."""

    disconnected: "asyncio.Future[None]"  # done when the client has closed its connection

    def send(self, answer: Response) -> None:
        """Send the response."""


class Scheduler:
    """Answers the requests of a worker's clients."""

    def __init__(
        self,
        model: Model,
        private: Path,
        limits: Limits,
        token: str | None,
        log_format: str,
        cors_origin: str | None = None,
        draining: Flag | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        """Create the application.

        Args:
            model: The model of this worker.
            private: The folder in which the main process publishes the artifact to serve.
            limits: The limits of a request.
            token: The token that requests must send, or None.
            log_format: The format of the access log, `text` or `json`.
            cors_origin: The origin whose pages may send requests; see `app.create`.
            draining: The flag that the main process sets when the service is about to stop.
            inbox: The folder that keeps corrections, or None.
        """
        self.limits = limits
        self.draining = draining or Flag()
        self._application = app.create(
            model, limits, token, log_format, cors_origin, self.draining.is_on, inbox
        )
        self._model = model
        self._private = private
        self._token = token
        self._thread = ThreadPoolExecutor(1, "long-requests")
        self._waiting = 0
        self._long: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Serve the published artifact, and follow changes until cancelled."""
        await self._model.follow(self._private)

    def allows(self, environ: WSGIEnvironment) -> bool:
        """Return whether a request needs no token or has sent the right one."""
        header = environ.get("HTTP_AUTHORIZATION")
        return auth.allows(self._token, environ["PATH_INFO"], header)

    def receive(self, environ: WSGIEnvironment, client: Client) -> None:
        """Answer a request by calling `client.send` once, now or later."""
        environ[access_log.ARRIVED] = perf_counter()
        # Only POST requests are queued, so that health checks and metrics work under any load.
        if environ["REQUEST_METHOD"] != "POST":
            client.send(self._answer(environ))
        elif self._waiting >= self.limits.queue:
            environ[REFUSAL] = partial(
                ServiceUnavailable,
                "Too many requests are waiting; try again in a second.",
                retry_after=RETRY_AFTER,
            )
            client.send(self._answer(environ))
        elif SHORT_BODY < int(environ["CONTENT_LENGTH"]) <= self.limits.body:
            self._waiting += 1
            self._answer_in_thread(environ, client)
        else:
            self._waiting += 1
            loop = asyncio.get_running_loop()
            loop.call_soon(self._answer_on_loop, environ, client)  # after earlier requests

    def _answer_on_loop(self, environ: WSGIEnvironment, client: Client) -> None:
        environ[ON_LOOP] = True
        try:
            answer = self._answer(environ)
        except LongRequestError:
            del environ[ON_LOOP]
            environ["wsgi.input"].seek(0)
            self._answer_in_thread(environ, client)
        else:
            self._waiting -= 1
            client.send(answer)

    def _answer_in_thread(self, environ: WSGIEnvironment, client: Client) -> None:
        task = asyncio.create_task(self._wait_for_thread(environ, client))
        self._long.add(task)  # the event loop keeps only weak references to tasks
        task.add_done_callback(self._long.discard)

    async def _wait_for_thread(self, environ: WSGIEnvironment, client: Client) -> None:
        job = self._thread.submit(self._answer, environ)
        answered = asyncio.wrap_future(job)
        time_left = self.limits.seconds - access_log.seconds(environ)
        events: list[asyncio.Future[Any]] = [answered, client.disconnected]
        await asyncio.wait(events, timeout=time_left, return_when=asyncio.FIRST_COMPLETED)
        if client.disconnected.done():
            environ[DISCONNECTED] = True
        if job.cancel():
            if DISCONNECTED not in environ:
                environ[REFUSAL] = partial(out_of_time, self.limits.seconds)
            answer = self._answer(environ)
        else:  # the job is running, and checks the time limit and DISCONNECTED itself
            answer = await answered
        self._waiting -= 1
        client.send(answer)
        asyncio.get_running_loop().call_soon(_free_memory)

    def _answer(self, environ: WSGIEnvironment) -> Response:
        starts: list[tuple[int, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            starts.append((int(status[:3]), headers))

        try:
            chunks = self._application(environ, start_response)  # type: ignore[arg-type]
            try:
                content = b"".join(chunks)
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
        except Exception:  # Flask answers its own exceptions; this one is from outside Flask
            logger.exception("The application failed")
            content = dumps({"error": errors.FAILED})
            starts.append((500, [("Content-Type", TYPE)]))
        status, headers = starts[-1]
        if not (status in (204, 304) or any(name == "Content-Length" for name, _ in headers)):
            headers.append(("Content-Length", str(len(content))))
        return status, headers, content


def _free_memory() -> None:
    # An exception and the frames of its traceback form a reference cycle, and the frames hold the
    # body, so collect the cycle now and not some requests later.
    gc.collect(1)
    if MALLOC_TRIM:
        MALLOC_TRIM(0)
