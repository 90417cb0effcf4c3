"""Between granian and the Flask application: requests are read whole, then answered in turn.

Granian's event loop reads the bodies, so a client that sends slowly costs no thread and holds up
nobody. The loop answers short requests itself, one at a time. One thread beside it answers the long
ones. Each takes its requests in the order of their arrival; a process has one core's work to give,
and more threads would only compete for it. A request is long if its body is, or if its pictures
turn out to be, once they are counted: it then starts again in the thread. If too many requests
wait, the next one is refused.
"""

import asyncio
import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from time import perf_counter
from wsgiref.types import WSGIEnvironment

from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError, Scope
from werkzeug.exceptions import RequestTimeout, ServiceUnavailable

from service import app, authorization, log, prometheus, signals
from service.limits import LEFT, ON_LOOP, REFUSAL, SHORT_BODY, Limits, LongRequestError, out_of_time
from service.model import Model

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


class Server:
    """A worker's application in granian's own interface, RSGI."""

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

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by granian before the first request."""
        self._following = loop.create_task(self._model.follow(self._private))
        loop.call_soon(signals.unblock)  # once it runs

    async def __rsgi__(self, scope: Scope, proto: HTTPProtocol) -> None:
        prometheus.IN_FLIGHT.inc()
        try:
            environ = await self._receive(scope, proto)
            # Only what costs work has to wait: health and metrics answer under any load.
            in_turn = scope.method == "POST"
            answer = await self._in_turn(environ, proto) if in_turn else self._answer(environ)
            proto.response_bytes(*answer)
            if int(environ["CONTENT_LENGTH"]) > SHORT_BODY:
                # An error leaves a cycle of the exception and the frames that it went through, and
                # in them the body, until the next collection, which is rare here.
                gc.collect(1)
        except (ProtocolClosed, ProtocolError):
            pass  # the client has gone
        finally:
            prometheus.IN_FLIGHT.dec()

    async def _receive(self, scope: Scope, proto: HTTPProtocol) -> WSGIEnvironment:
        body, refusal = (b"", 0), None
        # Of a stranger's no byte is read.
        if self._token is None or authorization.allows(
            self._token, scope.path, scope.headers.get("authorization")
        ):
            try:
                body = await _read(scope, proto, self._limits)
            except TimeoutError:
                refusal = partial(
                    RequestTimeout,
                    f"The body was not here after {self._limits.seconds} seconds; send it faster.",
                )
        environ = _environ(scope, body)
        if refusal:
            environ[REFUSAL] = refusal
        return environ

    async def _in_turn(self, environ: WSGIEnvironment, proto: HTTPProtocol) -> Answer:
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
                await asyncio.sleep(
                    0
                )  # behind those that came before; those that came since line up
                environ[ON_LOOP] = True
                try:
                    return self._answer(environ)
                except LongRequestError:
                    del environ[ON_LOOP]
                    environ["wsgi.input"].seek(0)
            return await self._in_thread(environ, proto)
        finally:
            self._waiting -= 1

    async def _in_thread(self, environ: WSGIEnvironment, proto: HTTPProtocol) -> Answer:
        job = self._thread.submit(self._answer, environ)
        answer, left = asyncio.wrap_future(job), asyncio.ensure_future(proto.client_disconnect())
        time_left = self._limits.seconds - log.seconds(environ)
        await asyncio.wait({answer, left}, timeout=time_left, return_when=asyncio.FIRST_COMPLETED)
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


async def _read(scope: Scope, proto: HTTPProtocol, limits: Limits) -> tuple[bytes, int]:
    """The body and its length; no byte of a body that is declared to be over the limit.

    Of one that turns out to be over it, what was read so far: the application refuses by length.

    Raises:
        TimeoutError: it took too long to arrive.
    """
    declared = scope.headers.get("content-length")
    if declared is not None:
        length = int(declared)  # granian lets nothing else through
        if not 0 < length <= limits.body:
            return b"", length
        async with asyncio.timeout(limits.seconds):
            return await proto(), length
    if scope.headers.get("transfer-encoding") is None:
        return b"", 0
    body, length = bytearray(), 0
    async with asyncio.timeout(limits.seconds):
        async for chunk in proto:
            length += len(chunk)
            if length <= limits.body:
                body += chunk
            elif length > 2 * limits.body:  # not at once: who still sends misses the answer
                break
    return bytes(body), length


def _environ(scope: Scope, body: tuple[bytes, int]) -> WSGIEnvironment:
    """The request as PEP 3333 has it."""
    content, length = body
    host, _, port = scope.server.rpartition(":")
    environ = BASE | {
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string.encode().decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(content),
        log.ARRIVED: perf_counter(),
    }
    for name, value in scope.headers.items():
        key = _key(name)
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ["CONTENT_LENGTH"] = str(length)
    environ.pop("HTTP_CONTENT_LENGTH", None)
    environ.pop("HTTP_TRANSFER_ENCODING", None)  # the body is whole
    return environ


@lru_cache(1024)  # the names are few, but for those that somebody makes up
def _key(name: str) -> str:
    return f"HTTP_{name.upper().replace('-', '_')}"
