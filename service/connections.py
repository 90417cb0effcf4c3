"""Speak HTTP/1.1 with the clients of a worker.

llhttp, the parser of Node.js, parses the requests. This module limits what a client may send and
how long it may take. It passes a request to the scheduler only when the request is complete, so a
slow client occupies no thread and delays no other client.
"""

import asyncio
import math
import re
import signal
import socket
import sys
from email.utils import formatdate
from enum import Enum, auto
from functools import lru_cache, partial
from http import HTTPStatus
from io import BytesIO
from ssl import SSLContext
from typing import cast
from urllib.parse import quote, unquote_to_bytes
from wsgiref.types import WSGIEnvironment

import httptools
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestHeaderFieldsTooLarge,
    RequestTimeout,
)

from service import metrics
from service.api.limits import REFUSAL
from service.scheduler import Response, Scheduler

CONNECTIONS = 16384  # the maximum number of open connections of a worker
BACKLOG = 2048  # the maximum number of connections that wait until a worker accepts them
HEADERS = 100  # the maximum number of header fields of a request
# The maximum number of bytes of a request's head, and of framing between the bytes of its body.
HEAD = 1 << 16
TLS_SHUTDOWN = 2  # seconds for a client to confirm that its TLS connection ends
LARGE = 1 << 16  # bytes of a response that a client may need longer than `TLS_SHUTDOWN` to read

BASE: WSGIEnvironment = {
    "REQUEST_METHOD": "-",  # the access log shows "-" for a head that was not parsed
    "PATH_INFO": "-",
    "QUERY_STRING": "",
    "SCRIPT_NAME": "",
    "CONTENT_TYPE": "",
    "CONTENT_LENGTH": "0",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}
PHRASES = {status.value: status.phrase for status in HTTPStatus}
NO_HTTP = "This is not a valid HTTP/1.1 request; see RFC 9112."
ASCII = bytes(range(128))
ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)  # clients send it to proxies
UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*", re.IGNORECASE)


class Phase(Enum):
    """The event that a connection waits for."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    CLOSE = auto()  # the client, after its last response; further bytes are dropped


class Connections:
    """All connections of a worker, and their shared state."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.metrics = metrics.current()
        self.open: set[Connection] = set()
        self.stopping = False
        self.date = formatdate(usegmt=True)  # the Date header of responses

    async def watch(self) -> None:
        """Update the date and end overdue connections, once a second until cancelled."""
        while True:
            await asyncio.sleep(1)
            self.date = formatdate(usegmt=True)
            now = asyncio.get_running_loop().time()
            for connection in list(self.open):
                if connection.deadline < now:
                    connection.end_late()

    async def stop(self) -> None:
        """Close every connection, but first answer the requests that have begun."""
        self.stopping = True
        for connection in list(self.open):
            connection.close_if_idle()
        while self.open:
            await asyncio.sleep(0.01)


class Connection(asyncio.Protocol):
    """The connection of one client. It answers the client's requests one after another."""

    def __init__(self, shared: Connections) -> None:
        self.deadline = math.inf  # for the client to send, in the event loop's time
        self._loop = asyncio.get_running_loop()
        # The scheduler waits for this; see `scheduler.Client`.
        self.disconnected: asyncio.Future[None] = self._loop.create_future()
        self._shared = shared
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""  # received, but not parsed yet
        self._blocked = False  # whether the client has not read most of the last response yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        client, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if isinstance(own, str):  # a Unix socket has a path instead of addresses
            client, own = None, ("localhost", "")
        self._base = BASE | {
            "REMOTE_ADDR": client[0] if client else "",
            "SERVER_NAME": own[0],
            "SERVER_PORT": str(own[1]),
            "wsgi.url_scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        }
        self._await_head()
        self._shared.open.add(self)
        if len(self._shared.open) > CONNECTIONS or self._shared.stopping:
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._shared.open.discard(self)
        self.disconnected.set_result(None)
        if self._phase is Phase.BODY:
            self._shared.metrics.in_flight -= 1
        del self._parser  # the parser refers to this connection

    def data_received(self, data: bytes) -> None:
        if self._phase is not Phase.CLOSE:
            self._data += data
            self._read()
            if len(self._data) > HEAD:  # these bytes belong to later requests
                self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._read()

    def close_if_idle(self) -> None:
        """Close the connection unless a request has begun."""
        if self._phase in {Phase.HEAD, Phase.CLOSE}:
            self._transport.close()

    def end_late(self) -> None:
        """Answer 408 if the body is incomplete; otherwise abort the connection."""
        if self._phase is Phase.BODY:
            seconds = self._shared.scheduler.limits.seconds
            sentence = f"The body was not complete after {seconds} seconds; send it faster."
            self._refuse(RequestTimeout, sentence)
        else:
            self._transport.abort()

    def send(self, answer: Response) -> None:
        """Send the response to the current request, and wait for the next request."""
        self._shared.metrics.in_flight -= 1
        if self._transport.is_closing():
            self._phase = Phase.CLOSE
            return
        if not self._transport.is_reading():
            self._transport.resume_reading()
        status, headers, content = answer
        lines = [f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\nDate: {self._shared.date}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers if name != "Date"]
        leaving = self._shared.stopping or self._shared.scheduler.draining.is_on()
        keep = self._keep and self._whole and not leaving
        lines.append(f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n")
        self._transport.write("".join(lines).encode("latin-1") + content)
        whole = self._whole
        self._await_head()
        if keep:
            if self._data:
                self._loop.call_soon(self._read)  # other connections take their turn first
            return
        self._phase, self._data = Phase.CLOSE, b""
        # Closing with unread bytes would reset the connection before the client reads the response.
        # With TLS, uvloop 0.22 counts `TLS_SHUTDOWN` from the call, not from the last byte. In both
        # cases, the client has to close the connection; else, the deadline ends it.
        is_plain = self._transport.can_write_eof()
        if whole and (is_plain or len(content) < LARGE):
            self._transport.close()
        elif is_plain:
            self._transport.write_eof()

    def _await_head(self) -> None:
        self._phase = Phase.HEAD
        self._environ = self._base.copy()
        self._headers = 0
        self._body, self._length = BytesIO(), 0
        self._framing = 0  # bytes received since the last bytes of the body
        self._keep = self._whole = False
        self._set_deadline()

    def _set_deadline(self) -> None:
        self.deadline = self._loop.time() + self._shared.scheduler.limits.seconds

    def _read(self) -> None:
        """Parse the received bytes up to the end of a request."""
        if self._transport.is_closing():
            return
        if self._phase is Phase.HEAD and not self._blocked:
            self._read_head()
        if self._phase is Phase.BODY and self._data:
            self._read_body()

    def _read_head(self) -> None:
        self._data = self._data.lstrip(b"\r\n")
        end = self._data.find(b"\r\n\r\n") + 4
        if (len(self._data) if end < 4 else end) > HEAD:
            self._refuse_head()
        elif end >= 4:
            head, self._data = self._data[:end], self._data[end:]
            if self._parse(_normalized(head)):
                self._begin()
        elif self._data and not self._data[:1].isalpha():  # perhaps TLS, which has no end of head
            self._refuse(BadRequest, NO_HTTP)

    def _begin(self) -> None:
        """Receive the body of a request, or pass the request to the scheduler without it."""
        environ, scheduler = self._environ, self._shared.scheduler
        length = int(environ["CONTENT_LENGTH"])
        chunked = environ.pop("HTTP_TRANSFER_ENCODING", None)
        if self._headers > HEADERS:
            self._refuse_head()
        elif self._whole or length > scheduler.limits.body:
            self._hand_over(length)
        elif not scheduler.allows(environ):
            self._hand_over(0)
        else:
            self._phase = Phase.BODY
            self._set_deadline()  # the time without a request does not count
            self._expected = sys.maxsize if chunked else length
            self._shared.metrics.in_flight += 1
            if "100-continue" in environ.get("HTTP_EXPECT", "").lower() and not self._data:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self) -> None:
        piece, self._data = self._data[: self._expected], self._data[self._expected :]
        self._expected -= len(piece)
        self._framing += len(piece)
        if not self._parse(piece):
            return
        if self._whole or self._length > self._shared.scheduler.limits.body:
            self._hand_over(self._length)
        elif self._framing > HEAD:
            self._refuse(BadRequest, NO_HTTP)

    def _parse(self, data: bytes) -> bool:
        """Parse bytes with llhttp, and refuse the request if they are not HTTP.

        Returns:
            Whether the request was not refused.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # CONNECT
            self._keep = False
        except httptools.HttpParserError:
            if not self._whole:
                self._refuse(BadRequest, NO_HTTP)
                return False
            self._keep = False
        return True

    # Callbacks of llhttp

    def on_message_begin(self) -> None:
        if self._whole:
            # A chunked body and the next request came together, and only llhttp knows where the
            # body ends.
            raise ValueError

    def on_url(self, target: bytes) -> None:
        if not target.startswith(b"/"):
            target = ORIGIN.sub(b"", target, 1)
        path, _, query = target.partition(b"?")
        if b"%" in path:
            path = unquote_to_bytes(path)
        self._environ["PATH_INFO"] = path.decode("latin-1")
        self._environ["QUERY_STRING"] = query.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.BODY:
            return  # ignore trailer fields
        self._headers += 1
        key, text = _key(name), value.decode("latin-1")
        if key in self._environ and key.startswith("HTTP_"):
            text = f"{self._environ[key]},{text}"
        self._environ[key] = text

    def on_headers_complete(self) -> None:
        self._environ["REQUEST_METHOD"] = self._parser.get_method().decode()
        self._environ["SERVER_PROTOCOL"] = f"HTTP/{self._parser.get_http_version()}"
        self._keep = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._framing = 0
        self._length += len(body)
        if self._length <= self._shared.scheduler.limits.body:
            self._body.write(body)

    def on_message_complete(self) -> None:
        self._whole = True

    def _refuse_head(self) -> None:
        sentence = f"The head of the request has more than {HEADERS} fields or {HEAD:,} bytes."
        self._refuse(RequestHeaderFieldsTooLarge, sentence)

    def _refuse(self, kind: type[HTTPException], sentence: str) -> None:
        """Let the scheduler answer a request with an error, and read no more of the request."""
        self._environ[REFUSAL] = partial(kind, sentence)
        self._whole = False
        self._hand_over(0)

    def _hand_over(self, length: int) -> None:
        """Pass a request to the scheduler. The rest of an incomplete request is not read."""
        if self._phase is Phase.HEAD:
            self._shared.metrics.in_flight += 1
        self._phase = Phase.ANSWER
        self.deadline = math.inf
        self._body.seek(0)
        environ = self._environ
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = self._body, str(length)
        self._shared.scheduler.receive(environ, self)


@lru_cache(1024)  # bounded, because a client can invent names
def _key(name: bytes) -> str:
    """Return the key of a header in the WSGI environ."""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


def _normalized(head: bytes) -> bytes:
    """Rewrite a head that httptools 0.9 would refuse or misread.

    httptools refuses a request target with bytes that are not ASCII. If a request offers to upgrade
    to another protocol, httptools drops its body
    (https://github.com/MagicStack/httptools/issues/124).
    """
    if head.isascii() and b"pgrade:" not in head:
        return head
    line, line_end, headers = head.partition(b"\r\n")
    return quote(line, safe=ASCII).encode() + UPGRADE.sub(b"", line_end + headers)


async def serve(scheduler: Scheduler, listener: socket.socket, tls: SSLContext | None) -> None:
    """Accept connections on `listener` and answer their requests until SIGTERM."""
    loop = asyncio.get_running_loop()
    signaled = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, signaled.set)
    connections = Connections(scheduler)
    # From Python 3.13 on, uvloop would remove the path of the socket when one worker ends.
    unix = partial(loop.create_unix_server, cleanup_socket=False)  # type: ignore[call-arg]
    accepting = await (unix if listener.family == socket.AF_UNIX else loop.create_server)(
        partial(Connection, connections),
        sock=listener,
        backlog=BACKLOG,
        ssl=tls,
        ssl_handshake_timeout=scheduler.limits.seconds if tls else None,
        ssl_shutdown_timeout=TLS_SHUTDOWN if tls else None,
    )
    tasks = [asyncio.create_task(connections.watch()), asyncio.create_task(scheduler.follow())]
    await signaled.wait()
    accepting.close()
    await connections.stop()
    for task in tasks:
        task.cancel()
