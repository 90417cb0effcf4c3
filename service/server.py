"""Between uvicorn and the Flask application: requests are read whole, then answered in turn.

The event loop reads the bodies, so a client that sends slowly costs no thread and holds up nobody.
It answers short requests itself, one at a time. One thread beside it answers the long
ones. Each takes its requests in the order of their arrival; a process has one core's work to give,
and more threads would only compete for it. A request is long if its body is, or if its pictures
turn out to be, once they are counted: it then starts again in the thread. If too many requests
wait, the next one is refused.
"""

import asyncio
import ctypes
import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any, cast
from wsgiref.types import WSGIEnvironment

from uvicorn._types import (
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPRequestEvent,
    HTTPScope,
)
from werkzeug.exceptions import RequestTimeout, ServiceUnavailable

from service import app, authorization, log, prometheus
from service.limits import LEFT, ON_LOOP, REFUSAL, SHORT_BODY, Limits, LongRequestError, out_of_time
from service.model import Model

COMPLETE = "service.complete"  # in the scope of a request that is here to its last byte
# glibc keeps what each thread has freed, up to some hundred MiB, unless it is asked not to.
MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
LONG = "service.long"  # in the environ of a request that is answered in the thread
RETRY_AFTER = 1  # seconds; a full queue is worked off in less

BASE: WSGIEnvironment = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


Answer = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body


class ClientLeftError(Exception):
    """The client has closed the connection before its request was whole."""


class Server:
    """A worker's application, as ASGI has it."""

    def __init__(
        self, model: Model, private: Path, limits: Limits, token: str | None, log_format: str
    ) -> None:
        """The application over a model, which follows what is published in `private`.

        The rest is as for `app.create`.
        """
        self._application = app.create(model, limits, token, log_format)
        self._model = model
        self._private = private
        self._limits = limits
        self._token = token
        self._thread = ThreadPoolExecutor(1, "long-requests")
        self._waiting = 0

    async def follow(self) -> None:
        """Serve whatever is published, for ever."""
        await self._model.follow(self._private)

    async def __call__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        prometheus.IN_FLIGHT.inc()
        try:
            environ = _environ(scope)
            await self._receive(scope, environ, receive)
            # Only what costs work has to wait: health and metrics answer under any load.
            in_turn = scope["method"] == "POST"
            answer = await self._in_turn(environ, receive) if in_turn else self._answer(environ)
            await _send(answer, send, COMPLETE in scope)
            if LONG in environ or int(environ["CONTENT_LENGTH"]) > SHORT_BODY:
                _free_memory()
        except ClientLeftError:
            pass
        finally:
            prometheus.IN_FLIGHT.dec()

    async def _receive(
        self, scope: HTTPScope, environ: WSGIEnvironment, receive: ASGIReceiveCallable
    ) -> None:
        """Put the body into the environ.

        The body of an unauthorized request is not read, nor one whose declared length exceeds the
        limit.
        """
        body, length = BytesIO(), int(environ.pop("HTTP_CONTENT_LENGTH", 0))
        chunked = environ.pop("HTTP_TRANSFER_ENCODING", None)
        header = environ.get("HTTP_AUTHORIZATION")
        if not authorization.allows(self._token, scope["path"], header):
            length = 0
        elif chunked or 0 < length <= self._limits.body:
            # A body that is complete needs no time limit, which would cost 5 us.
            seconds = None if COMPLETE in scope else self._limits.seconds
            try:
                length = await _read(receive, body, self._limits.body, seconds)
            except TimeoutError:
                length = 0
                environ[REFUSAL] = partial(
                    RequestTimeout,
                    f"The body was not here after {seconds} seconds; send it faster.",
                )
        body.seek(0)
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = body, str(length)
        environ[log.ARRIVED] = perf_counter()

    async def _in_turn(self, environ: WSGIEnvironment, receive: ASGIReceiveCallable) -> Answer:
        if self._waiting >= self._limits.queue:
            environ[REFUSAL] = partial(
                ServiceUnavailable,
                "Too many requests are waiting; try again in a second.",
                retry_after=RETRY_AFTER,
            )
            return self._answer(environ)
        self._waiting += 1
        try:
            if not SHORT_BODY < int(environ["CONTENT_LENGTH"]) <= self._limits.body:
                await asyncio.sleep(0)  # those that have come meanwhile line up
                environ[ON_LOOP] = True
                try:
                    return self._answer(environ)
                except LongRequestError:
                    del environ[ON_LOOP]
                    environ["wsgi.input"].seek(0)
            return await self._in_thread(environ, receive)
        finally:
            self._waiting -= 1

    async def _in_thread(self, environ: WSGIEnvironment, receive: ASGIReceiveCallable) -> Answer:
        environ[LONG] = True
        job = self._thread.submit(self._answer, environ)
        answer, left = asyncio.wrap_future(job), asyncio.ensure_future(_leaving(receive))
        time_left = self._limits.seconds - log.seconds(environ)
        either: set[asyncio.Future[Any]] = {answer, left}
        await asyncio.wait(either, timeout=time_left, return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            environ[LEFT] = True
        left.cancel()
        if not job.cancel():  # it runs, and looks at the time and for its client by itself
            return await answer
        if LEFT not in environ:
            environ[REFUSAL] = partial(out_of_time, self._limits.seconds)
        return self._answer(environ)

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        started: list[tuple[int, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            started.append((int(status[:3]), headers))

        chunks = self._application(environ, start)  # type: ignore[arg-type]
        try:
            content = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        return *started[-1], content


def _free_memory() -> None:
    # An error leaves a cycle of the exception and the frames that it went through, and in them the
    # body, until the next collection, which is rare here.
    gc.collect(1)
    if MALLOC_TRIM:
        MALLOC_TRIM(0)


async def _read(receive: ASGIReceiveCallable, body: BytesIO, most: int, seconds: int | None) -> int:
    """Read a body, no more than `most` bytes of it into `body`; return its length.

    Of one that is longer the application needs to know no more than that.

    Raises:
        TimeoutError: it has not come in so many seconds.
        ClientLeftError: it will not come.
    """
    if seconds is not None:
        async with asyncio.timeout(seconds):
            return await _read(receive, body, most, None)
    length, more = 0, True
    while more and length <= 2 * most:  # not less: who still sends misses the answer
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        message = cast(HTTPRequestEvent, message)
        length, more = length + len(message["body"]), message["more_body"]
        if length <= most:
            body.write(message["body"])
    return length


async def _leaving(receive: ASGIReceiveCallable) -> None:
    """Return once the client of a request that is whole closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(answer: Answer, send: ASGISendCallable, keep: bool) -> None:
    """Send an answer, and close the connection after it unless it is to be kept."""
    status, headers, content = answer
    # uvicorn dates them.
    told = [(name.encode(), value.encode("latin-1")) for name, value in headers if name != "Date"]
    if not (status == 304 or any(name == "Content-Length" for name, _ in headers)):
        told.append((b"content-length", str(len(content)).encode()))
    if not keep:
        told.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _environ(scope: HTTPScope) -> WSGIEnvironment:
    """The request as PEP 3333 has it, but for its body."""
    host, port = scope["server"] or ("", 0)
    environ = BASE | {
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0] if scope["client"] else "",
        "wsgi.url_scheme": scope["scheme"],
    }
    for name, value in scope["headers"]:
        key, text = _key(name), value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    return environ


@lru_cache(1024)  # the names are few, but for those that somebody makes up
def _key(name: bytes) -> str:
    return f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
