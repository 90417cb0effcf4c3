"""Between connections and the Flask application: requests are answered in turn.

The event loop answers short requests itself, one at a time. One thread beside it answers the long
ones. Each takes its requests in the order of their arrival; a process has one core's work to give,
and more threads would only compete for it. A request is long if its body is, or if its pictures
turn out to be, once they are counted: it then starts again in the thread. If too many requests
wait, the next one is refused.
"""

import asyncio
import ctypes
import gc
import traceback
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
    LEFT,
    ON_LOOP,
    REFUSAL,
    SHORT_BODY,
    Limits,
    LongRequestError,
    out_of_time,
)
from service.api.responses import TYPE, dumps
from service.served_model import Model

# glibc keeps what each thread has freed, up to some hundred MiB, unless it is asked not to.
MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
RETRY_AFTER = 1  # seconds; a full queue is worked off in less

Answer = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body


class Client(Protocol):
    """Who has sent a request."""

    left: "asyncio.Future[None]"  # done once the client has closed its connection

    def send(self, answer: Answer) -> None:
        """Send the answer."""


class Server:
    """Answers the requests of a worker's clients."""

    def __init__(
        self, model: Model, private: Path, limits: Limits, token: str | None, log_format: str
    ) -> None:
        """The application over a model, which follows what is published in `private`.

        The rest is as for `app.create`.
        """
        self.limits = limits
        self._application = app.create(model, limits, token, log_format)
        self._model = model
        self._private = private
        self._token = token
        self._thread = ThreadPoolExecutor(1, "long-requests")
        self._waiting = 0
        self._long: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Serve whatever is published, for ever."""
        await self._model.follow(self._private)

    def allows(self, environ: WSGIEnvironment) -> bool:
        """Whether a request has the token, if it needs one."""
        header = environ.get("HTTP_AUTHORIZATION")
        return auth.allows(self._token, environ["PATH_INFO"], header)

    def receive(self, environ: WSGIEnvironment, client: Client) -> None:
        """Answer a request: call `client.send` once, now or later."""
        environ[access_log.ARRIVED] = perf_counter()
        loop = asyncio.get_running_loop()
        # Only what costs work has to wait: health and metrics answer under any load.
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
            loop.call_soon(self._answer_on_loop, environ, client)  # after those before it

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
        self._long.add(task)  # a loop does not hold its tasks
        task.add_done_callback(self._long.discard)

    async def _wait_for_thread(self, environ: WSGIEnvironment, client: Client) -> None:
        job = self._thread.submit(self._answer, environ)
        answered = asyncio.wrap_future(job)
        time_left = self.limits.seconds - access_log.seconds(environ)
        either: list[asyncio.Future[Any]] = [answered, client.left]
        await asyncio.wait(either, timeout=time_left, return_when=asyncio.FIRST_COMPLETED)
        if client.left.done():
            environ[LEFT] = True
        if job.cancel():
            if LEFT not in environ:
                environ[REFUSAL] = partial(out_of_time, self.limits.seconds)
            answer = self._answer(environ)
        else:  # it has begun, and looks at the time and for its client by itself
            answer = await answered
        self._waiting -= 1
        client.send(answer)
        asyncio.get_running_loop().call_soon(_free_memory)

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        started: list[tuple[int, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            started.append((int(status[:3]), headers))

        try:
            chunks = self._application(environ, start)  # type: ignore[arg-type]
            try:
                content = b"".join(chunks)
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
        except Exception:  # of what is before Flask; Flask answers all others
            traceback.print_exc()
            content = dumps({"error": errors.FAILED})
            started.append((500, [("Content-Type", TYPE)]))
        status, headers = started[-1]
        if not (status == 304 or any(name == "Content-Length" for name, _ in headers)):
            headers.append(("Content-Length", str(len(content))))
        return status, headers, content


def _free_memory() -> None:
    # An error leaves a cycle of the exception and the frames that it went through, and in them the
    # body, until the next collection, which is rare here.
    gc.collect(1)
    if MALLOC_TRIM:
        MALLOC_TRIM(0)
