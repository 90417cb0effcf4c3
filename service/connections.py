"""HTTP as uvicorn speaks it, with bounds on what a client may send and how long it may take.

The application bounds bodies; this module bounds heads and connections.
"""

import asyncio
import math
import re
import socket
from asyncio import Transport
from typing import cast
from urllib.parse import quote

import uvicorn
import uvicorn.lifespan.off  # else uvicorn would, in each worker, after the file may have changed
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.server import COMPLETE, Server

CONNECTIONS = 16384  # of one worker
BACKLOG = 2048  # connections that wait until their worker accepts them
HEADERS = 100  # of one request
HEAD = 1 << 16  # bytes that may come without completing a head or a piece of a body

ASCII = bytes(range(128))
UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """A client's connection."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since = self.loop.time()  # for a whole head; infinite while one is answered
        self._incomplete = 0  # bytes since the last whole head or piece of a body
        if len(self.connections) > CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._incomplete and self.waiting_since < math.inf:
            data = _plain(data)
        self._incomplete += len(data)
        super().data_received(data)
        if self._incomplete > HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEADERS:
            raise ValueError  # uvicorn answers 400
        self.waiting_since = math.inf
        self._incomplete = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._incomplete = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        cast(dict[str, object], self.scope)[COMPLETE] = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self.waiting_since = self.loop.time()
        super().on_response_complete()


def _plain(data: bytes) -> bytes:
    """Rewrite the first bytes of a request if httptools would misread them.

    httptools refuses targets that are not ASCII, and drops the body of a request that offers to
    upgrade to another protocol. A head that arrives in several pieces is not rewritten.
    """
    end = data.find(b"\r\n\r\n")
    head = data[:end] if end >= 0 else data
    if head.isascii() and b"pgrade:" not in head:
        return data
    line, line_end, headers = head.partition(b"\r\n")
    line = quote(line, safe=ASCII).encode()
    return line + UPGRADE.sub(b"", line_end + headers) + data[len(head) :]


async def serve(application: Server, listener: socket.socket, seconds: int) -> None:
    """Answer the requests of all connections to `listener` until SIGTERM or SIGINT.

    Args:
        seconds: for a head to arrive, and for a connection to be idle.
    """
    config = uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=seconds,
    )
    server = uvicorn.Server(config)
    beside = [
        asyncio.create_task(application.follow()),
        asyncio.create_task(_close_late(server, seconds)),
    ]
    await server.serve([listener])
    for task in beside:
        task.cancel()


async def _close_late(server: uvicorn.Server, seconds: int) -> None:
    """Close, for ever, the connections whose clients have not sent a head in time."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1)
        for connection in list(server.server_state.connections):
            assert isinstance(connection, Connection)
            if connection.waiting_since < loop.time() - seconds:
                connection.transport.close()
