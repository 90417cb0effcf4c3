"""HTTP/1.1 between the clients and the server of a worker.

llhttp, the parser of Node.js, reads the requests. This module bounds what a client may send and how
long it may take. It reads each request whole before it gives it to the server, so a client that
sends slowly costs no thread and holds up nobody.
"""

import asyncio
import math
import re
import sys
from email.utils import formatdate
from enum import Enum, auto
from functools import lru_cache, partial
from http import HTTPStatus
from io import BytesIO
from socket import socket
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

from service import metrics, supervisor
from service.api.limits import REFUSAL
from service.server import Answer, Server

CONNECTIONS = 16384  # of one worker
BACKLOG = 2048  # connections that wait until their worker accepts them
HEADERS = 100  # of one request
HEAD = 1 << 16  # bytes of a head, and bytes that may come without completing a piece of a body

BASE: WSGIEnvironment = {
    "REQUEST_METHOD": "-",  # as long as it is not known
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
NO_HTTP = "This is no request of HTTP/1.1; send one as RFC 9112 has it."
ASCII = bytes(range(128))
ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)  # before the path, as proxies are sent it
UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*", re.IGNORECASE)


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    CLOSE = auto()  # by the client, which has its last answer; what it still sends, nobody reads


class Connections:
    """All connections of a worker, and what they share."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.in_flight = metrics.current().in_flight
        self.open: set[Connection] = set()
        self.stopping = False
        self.date = formatdate(usegmt=True)  # of the answers

    async def watch(self) -> None:
        """Keep the date, and end what takes clients too long, for ever."""
        while True:
            await asyncio.sleep(1)
            self.date = formatdate(usegmt=True)
            now = asyncio.get_running_loop().time()
            for connection in list(self.open):
                if connection.deadline < now:
                    connection.end_late()

    async def stop(self) -> None:
        """Close every connection, once a request that has begun is answered."""
        self.stopping = True
        for connection in list(self.open):
            connection.close_if_idle()
        while self.open:
            await asyncio.sleep(0.01)


class Connection(asyncio.Protocol):
    """The connection of one client, whose requests are answered one after the other."""

    def __init__(self, shared: Connections) -> None:
        self.deadline = math.inf  # for the client, by the clock of the event loop
        self._loop = asyncio.get_running_loop()
        self.left: asyncio.Future[None] = self._loop.create_future()  # see `server.Client`
        self._shared = shared
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""  # has come, and is not parsed
        self._blocked = False  # the client has yet to take most of the last answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        client, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._base = BASE | {
            "REMOTE_ADDR": client[0] if client else "",
            "SERVER_NAME": own[0],
            "SERVER_PORT": str(own[1]),
        }
        self._await_head()
        self._shared.open.add(self)
        if len(self._shared.open) > CONNECTIONS or self._shared.stopping:
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._shared.open.discard(self)
        self.left.set_result(None)
        if self._phase is Phase.BODY:
            self._shared.in_flight.dec()
        del self._parser  # which has this connection

    def data_received(self, data: bytes) -> None:
        if self._phase is not Phase.CLOSE:
            self._data += data
            self._read()
            if len(self._data) > HEAD:  # of requests to come
                self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._read()

    def close_if_idle(self) -> None:
        if self._phase in {Phase.HEAD, Phase.CLOSE}:
            self._transport.close()

    def end_late(self) -> None:
        """Refuse the request of which some body is missing, or break the connection."""
        if self._phase is Phase.BODY:
            seconds = self._shared.server.limits.seconds
            sentence = f"The body was not here after {seconds} seconds; send it faster."
            self._refuse(RequestTimeout, sentence)
        else:
            self._transport.abort()

    def send(self, answer: Answer) -> None:
        """Send the answer to the request that the server has got, and wait for the next."""
        self._shared.in_flight.dec()
        if self._transport.is_closing():
            self._phase = Phase.CLOSE
            return
        if not self._transport.is_reading():
            self._transport.resume_reading()
        status, headers, content = answer
        lines = [f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\nDate: {self._shared.date}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers if name != "Date"]
        keep = self._keep and self._whole and not self._shared.stopping
        lines.append(f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n")
        self._transport.write("".join(lines).encode("latin-1") + content)
        whole = self._whole
        self._await_head()
        if keep:
            if self._data:
                self._loop.call_soon(self._read)  # when others have had their turn
            return
        self._phase, self._data = Phase.CLOSE, b""
        if whole:
            self._transport.close()
        else:
            # A close with bytes unread would break the connection before the client has its answer.
            self._transport.write_eof()

    def _await_head(self) -> None:
        self._phase = Phase.HEAD
        self._environ = self._base.copy()
        self._headers = 0
        self._body, self._length = BytesIO(), 0
        self._incomplete = 0  # bytes since the last whole piece of the body
        self._keep = self._whole = False
        self.deadline = self._loop.time() + self._shared.server.limits.seconds

    def _read(self) -> None:
        """Read from what has come until a request is whole, or nothing is left."""
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
            if self._parse(_plain(head)):
                self._begin()
        elif self._data and not self._data[:1].isalpha():  # TLS, perhaps: no end of it would come
            self._refuse(BadRequest, NO_HTTP)

    def _begin(self) -> None:
        """Ask for the body of a request, or give the request to the server."""
        environ, server = self._environ, self._shared.server
        length = int(environ["CONTENT_LENGTH"])
        chunked = environ.pop("HTTP_TRANSFER_ENCODING", None)
        if self._headers > HEADERS:
            self._refuse_head()
        elif self._whole or length > server.limits.body:
            self._give(length)
        elif not server.allows(environ):
            self._give(0)
        else:
            self._phase = Phase.BODY
            self._expected = sys.maxsize if chunked else length
            self._shared.in_flight.inc()
            if "100-continue" in environ.get("HTTP_EXPECT", "").lower() and not self._data:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self) -> None:
        piece, self._data = self._data[: self._expected], self._data[self._expected :]
        self._expected -= len(piece)
        self._incomplete += len(piece)
        if not self._parse(piece):
            return
        if self._whole or self._length > self._shared.server.limits.body:
            self._give(self._length)
        elif self._incomplete > HEAD:
            self._refuse(BadRequest, NO_HTTP)

    def _parse(self, data: bytes) -> bool:
        """Let llhttp read bytes, and refuse the request if it refuses them."""
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

    # What llhttp calls:

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError  # another one right after a chunked body, whose end only llhttp finds

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
            return  # a trailer
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
        self._incomplete = 0
        self._length += len(body)
        if self._length <= self._shared.server.limits.body:
            self._body.write(body)

    def on_message_complete(self) -> None:
        self._whole = True

    def _refuse_head(self) -> None:
        sentence = f"The head of the request has more than {HEADERS} fields or {HEAD:,} bytes."
        self._refuse(RequestHeaderFieldsTooLarge, sentence)

    def _refuse(self, kind: type[HTTPException], sentence: str) -> None:
        """Have a request refused, and no more of it read."""
        self._environ[REFUSAL] = partial(kind, sentence)
        self._whole = False
        self._give(0)

    def _give(self, length: int) -> None:
        """Give a request to the server: it is whole, or no more of it is read."""
        if self._phase is Phase.HEAD:
            self._shared.in_flight.inc()
        self._phase = Phase.ANSWER
        self.deadline = math.inf
        self._body.seek(0)
        environ = self._environ
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = self._body, str(length)
        self._shared.server.receive(environ, self)


@lru_cache(1024)  # the names are few, but for those that somebody makes up
def _key(name: bytes) -> str:
    """The name of a header in the environ."""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


def _plain(head: bytes) -> bytes:
    """Rewrite a head that httptools would misread.

    httptools refuses targets that are not ASCII, and drops the body of a request that offers to
    upgrade to another protocol.
    """
    if head.isascii() and b"pgrade:" not in head:
        return head
    line, line_end, headers = head.partition(b"\r\n")
    return quote(line, safe=ASCII).encode() + UPGRADE.sub(b"", line_end + headers)


async def serve(server: Server, listener: socket) -> None:
    """Answer the requests of all connections to `listener` until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in supervisor.STOPPING:
        loop.add_signal_handler(number, signalled.set)
    connections = Connections(server)
    accepting = await loop.create_server(
        partial(Connection, connections), sock=listener, backlog=BACKLOG
    )
    beside = [asyncio.create_task(connections.watch()), asyncio.create_task(server.follow())]
    await signalled.wait()
    accepting.close()
    await connections.stop()
    for task in beside:
        task.cancel()
