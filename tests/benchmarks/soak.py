"""Soak test: does the service answer every valid request, and does its memory stay flat?

    python -m tests.benchmarks.soak                          # ten minutes
    python -m tests.benchmarks.soak --minutes 60 --load 50

The test starts the service with two workers. Some clients send malformed, slow or large requests,
do not read their responses, or disconnect. Beside them, the test measures how many valid requests
per second the service can answer. Then it sends `--load` percent of that at a fixed rate, whether
or not responses arrive in time. It prints a line every ten seconds. Ctrl-C ends it. The test needs
Linux, and `data/model` and `data/png`, so run `dvc repro` first. It uses only loopback.

The exit status is 0 only if

- every valid request got the right response, and every invalid request the right error;
- the median resident memory (RSS) of each process of the service grew by at most 5 % from the
  second quarter of the time (the first is for warm-up) to the last. The test only prints the
  proportional share (PSS), because that changes with other programs that use the same libraries;
- each process has as many open files at the end, without clients, as before the clients came.

The client is one thread that shares the cores with the service, also while it measures the rate.
The column `others` is the share of the machine that other programs use. If they use the rest of the
machine, requests wait until the service refuses them. That is not a defect of the service.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import re
import signal
import socket
import statistics
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop
from PIL import Image

from stages.common import paths
from tests.benchmarks.long_requests import form
from tests.benchmarks.long_requests import photograph as large_photograph
from tests.benchmarks.processes import cpu_seconds, process_ids
from tests.benchmarks.serving import NINE, Body, Load, Server, body_of, running

SERVER = Server("this project", "service --workers=2 --port={port}")
MAX_GROWTH = 0.05
SAMPLE_SECONDS = 10
CAPACITY_CONNECTIONS = 16
CAPACITY_SECONDS = 10
TICK = 0.002  # seconds between checks for requests that are due
INVALID_SHARE = 0.02  # invalid requests per valid request
SCRAPES = 1  # requests for /metrics per second
MAX_OPEN = 256  # connections for valid and invalid requests; further requests wait
REQUESTS_A_CONNECTION = 500  # a client then opens a new connection
PATIENCE = 40  # seconds for the last responses; the service waits 30 s for a request's head
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

Address = tuple[str, int]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Client = Callable[[Stream], Coroutine[None, None, str]]  # returns the outcome


@dataclass(frozen=True)
class Request:
    """A request that the clients send repeatedly, and its expected response."""

    kind: str
    content: bytes  # head and body
    status: int  # of the expected response
    body: bytes | None = None  # of the expected response; None accepts any

    @classmethod
    def recorded(cls, address: Address, kind: str, content: bytes, status: int) -> "Request":
        """Send a request once, and expect the same response later. Exit if the status is wrong."""
        with socket.create_connection(address, timeout=PATIENCE) as client:
            client.sendall(content)
            answer = HTTPResponse(client)
            answer.begin()
            body = answer.read()
        if answer.status != status:
            sys.exit(f"{kind}: expected {status}, but the response is {answer.status} {body!r}")
        return cls(kind, content, status, body)


@dataclass
class Tally:
    """The outcomes of the requests."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and outcome
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and reason
    seconds: list[float] = field(default_factory=list)  # response times since the last sample

    def count_response(self, request: Request, status: int, body: bytes, seconds: float) -> None:
        self.outcomes[request.kind, str(status)] += 1
        self.seconds.append(seconds)
        if status != request.status or request.body not in (None, body):
            self.failures[request.kind, f"{status} {body[:200]!r}"] += 1

    def count_failure(self, request: Request, reason: str) -> None:
        self.outcomes[request.kind, reason] += 1
        self.failures[request.kind, reason] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a soak test of the service.")
    parser.add_argument("--minutes", type=float, default=10, help="duration of the test")
    parser.add_argument(
        "--load", type=float, default=80, help="percent of the requests that the service can answer"
    )
    options = parser.parse_args()
    for path in (paths.MODEL, NINE):
        if not path.exists():
            sys.exit(f"{path} is missing; run `dvc repro`")
    # SIGTERM ends the test like Ctrl-C, and stops the service. Set the handler of SIGINT because
    # shells start background processes that ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with running(SERVER, body_of(Load())) as (url, process, _):
            passed = uvloop.run(soak(url, process, options.minutes * 60, options.load / 100))
    except KeyboardInterrupt:
        sys.exit("interrupted")
    sys.exit(0 if passed else 1)


async def soak(url: str, process: int, seconds: float, load: float) -> bool:
    """Run the test for some seconds. Return whether the service passed."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    clients = Clients((address.hostname, address.port))
    await asyncio.sleep(1)  # until the service has closed the connections of the first requests
    watch = Watch(process, clients.tally)
    async with clients.misbehaving():
        most = await clients.capacity()
        print(f"capacity {most:.0f} valid requests/s; sending {most * load:.0f}", flush=True)
        end = time.monotonic() + seconds
        sampling = asyncio.create_task(watch.sample_until(end))
        await clients.send_until(end, most * load)
        await sampling
    await clients.leave()
    return await watch.verdict()


# Requests


def head(method: str, path: str, **headers: object) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: soak", *lines, "\r\n"]).encode()


def post(path: str, body: Body, **headers: object) -> bytes:
    content, kind = body
    return head("POST", path, Content_Type=kind, Content_Length=len(content), **headers) + content


def as_json(value: object) -> Body:
    return json.dumps(value).encode(), "application/json"


def valid_requests(address: Address) -> Iterator[Request]:
    """Yield a hundred requests, each kind as often as its percentage of the load."""
    png, pixels = NINE.read_bytes(), np.asarray(Image.open(NINE))
    encoded = base64.b64encode(png).decode()
    predict = {"signature_name": "recognize_png", "instances": [{"png_bytes": {"b64": encoded}}]}
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": pixels.tolist()}
    jpeg = BytesIO()
    Image.fromarray(255 - pixels).convert("RGB").resize((140, 140)).save(jpeg, "JPEG")
    for share, kind, content in (
        (43, "form", post("/recognize", body_of(Load()))),
        (25, "raw body", post("/recognize", (png, "image/png"))),
        (2, "JPEG", post("/recognize", (jpeg.getvalue(), "image/jpeg"))),
        (5, "ten files", post("/recognize?probabilities=true", body_of(Load(images=10)))),
        (12, "TensorFlow Serving", post("/v1/models/mnist:predict", as_json(predict))),
        (11, "Open Inference", post("/v2/models/mnist/infer", as_json({"inputs": [tensor]}))),
        (2, "health", head("GET", "/healthz")),
    ):
        yield from [Request.recorded(address, kind, content, 200)] * share


def invalid_requests(address: Address) -> Iterator[Request]:
    """Yield requests that the service must refuse."""
    png = NINE.read_bytes()
    form_body, form_type = body_of(Load())
    other_field = form_body.replace(b'name="image"', b'name="other"')
    half_json = b'{"instances":[', "application/json"
    large = head("POST", "/recognize", Content_Type="image/png", Content_Length=17 << 20)
    for status, kind, content in (
        (400, "no image", post("/recognize", (b"no image", "image/png"))),
        (400, "half an image", post("/recognize", (png[:100], "image/png"))),
        (400, "another field", post("/recognize", (other_field, form_type))),
        (400, "half a form", post("/recognize", (form_body[:-50], form_type))),
        (400, "half of JSON", post("/v1/models/mnist:predict", half_json)),
        (400, "no tensor", post("/v2/models/mnist/infer", as_json({"inputs": [{}]}))),
        (404, "no such path", head("GET", "/nothing")),
        (405, "another method", head("DELETE", "/recognize")),
        (413, "too large", large),
        (415, "another type", post("/recognize", (png, "text/plain"))),
    ):
        yield Request.recorded(address, kind, content, status)


# Clients


class Connection(asyncio.Protocol):
    """A connection for valid and invalid requests. It sends one at a time."""

    def __init__(self, clients: "Clients") -> None:
        self._clients = clients
        self._request: Request | None = None
        self._due = 0.0
        self._count = 0  # of requests sent
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self._clients.idle.append(self)
        self._clients.hand_out()

    def send(self, request: Request, due: float) -> None:
        self._request, self._due = request, due
        self._count += 1
        self.transport.write(request.content)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        length = LENGTH.search(self._received, 0, end)
        if end == 3 or not length or len(self._received) < end + int(length[1]):
            return
        status, body, self._received = int(self._received[9:12]), self._received[end:], b""
        request, self._request = self._request, None
        assert request, "the service sent a response without a request"
        self._clients.tally.count_response(request, status, body, time.perf_counter() - self._due)
        if status == 200 and self._count < REQUESTS_A_CONNECTION:
            self._clients.idle.append(self)
        else:
            self.transport.close()
        self._clients.waiting -= 1
        self._clients.then()
        self._clients.hand_out()

    def connection_lost(self, exception: Exception | None) -> None:
        self._clients.open -= 1
        if self._request:
            self._clients.waiting -= 1
            self._clients.tally.count_failure(self._request, f"closed ({exception})")
        elif self in self._clients.idle:
            self._clients.idle.remove(self)
        self._clients.hand_out()


class Clients:
    """All clients of the test."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._valid, self._invalid = list(valid_requests(address)), list(invalid_requests(address))
        random.Random(0).shuffle(self._valid)
        self._due: deque[tuple[Request, float]] = deque()  # requests, and since when they are due
        self._connecting: set[asyncio.Task[None]] = set()
        self.tally = Tally()
        self.waiting = 0  # requests that are due and have no response yet
        self.open = 0  # connections
        self.idle: deque[Connection] = deque()
        self.then: Callable[[], None] = lambda: None  # called after each response

    async def capacity(self) -> float:
        """Measure the valid requests per second if each response triggers the next request."""
        requests = cycle(self._valid)
        self.then = lambda: self._send(next(requests))
        for _ in range(CAPACITY_CONNECTIONS):
            self.then()
        await asyncio.sleep(CAPACITY_SECONDS)  # until all misbehaving clients have connected
        before, start = self.tally.outcomes.total(), time.perf_counter()
        await asyncio.sleep(CAPACITY_SECONDS)
        rate = (self.tally.outcomes.total() - before) / (time.perf_counter() - start)
        self.then = lambda: None
        await self.leave()
        return rate

    async def send_until(self, end: float, rate: float) -> None:
        """Send valid requests at a rate per second, and invalid ones beside them."""
        scrape = Request("metrics", head("GET", "/metrics"), 200)
        streams = [
            (cycle(self._valid), rate),
            (cycle(self._invalid), rate * INVALID_SHARE),
            (cycle([scrape]), SCRAPES),
        ]
        counts = [0] * len(streams)
        start = time.monotonic()
        while (now := time.monotonic()) < end:
            for number, (requests, frequency) in enumerate(streams):
                while counts[number] < (now - start) * frequency:
                    counts[number] += 1
                    self._send(next(requests))
            await asyncio.sleep(TICK)

    def _send(self, request: Request) -> None:
        self.waiting += 1
        self._due.append((request, time.perf_counter()))
        self.hand_out()

    def hand_out(self) -> None:
        """Send due requests on idle connections, and open a new connection if there is none."""
        while self._due and self.idle:
            self.idle.popleft().send(*self._due.popleft())
        if self._due and self.open < MAX_OPEN:
            self.open += 1
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)  # the event loop keeps only weak references to tasks
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Connection(self), *self._address)
        except OSError as error:
            self.open -= 1
            if self._due:
                self.waiting -= 1
                self.tally.count_failure(self._due.popleft()[0], f"no connection ({error})")

    async def leave(self) -> None:
        """Wait for the last responses, and close all connections."""
        deadline = time.monotonic() + PATIENCE
        while self.waiting:
            if time.monotonic() > deadline:
                sys.exit(f"{self.waiting} requests have no response after {PATIENCE} s")
            await asyncio.sleep(0.1)
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()

    @asynccontextmanager
    async def misbehaving(self) -> AsyncIterator[None]:
        """Run the misbehaving clients, each repeatedly."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._repeat(number, client))
                for client, count in MISBEHAVING.items()
                for number in range(count)
            ]
            yield
            for task in tasks:
                task.cancel()

    async def _repeat(self, number: int, client: Client) -> None:
        kind = client.__name__.replace("_", " ")
        # Do not start all of them at the same time.
        await asyncio.sleep(CAPACITY_SECONDS * number / MISBEHAVING[client])
        while True:
            stream = await asyncio.open_connection(*self._address, limit=1 << 10)
            try:
                outcome = await client(stream)
            except TimeoutError:
                outcome = "no response"
            except (ConnectionError, RuntimeError):
                # uvloop 0.23 raises RuntimeError for a second write to a closed transport.
                outcome = "closed"
            finally:
                stream[1].transport.abort()
            self.tally.outcomes[kind, outcome] += 1


async def slow_head(stream: Stream) -> str:
    return await _trickle(stream, b"", head("POST", "/recognize", X_Slow="x" * 30))


async def slow_body(stream: Stream) -> str:
    content = post("/recognize", (NINE.read_bytes(), "image/png"))
    return await _trickle(stream, content[:-20], content[-20:])


async def not_reading(stream: Stream) -> str:
    """Read no responses, so that they fill the buffers between this client and the service."""
    stream[1].write(head("GET", "/docs/swagger-ui-bundle.js") * 20)  # a response has 1.5 MB
    await asyncio.sleep(15)
    return "left"


async def leaving_amid_a_request(stream: Stream) -> str:
    content = post("/recognize", body_of(Load()))
    stream[1].write(content[: random.randrange(1, len(content))])
    return await _leave(stream)


async def leaving_before_the_answer(stream: Stream) -> str:
    stream[1].write(post("/recognize", body_of(Load())))
    return await _leave(stream)


async def too_large_in_chunks(stream: Stream) -> str:
    reader, writer = stream
    fields = {"Content_Type": "image/png", "Transfer_Encoding": "chunked"}
    writer.write(head("POST", "/recognize", **fields))
    for _ in range(17 << 4):  # chunks of 64 KiB, 17 MiB in total
        writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    status = _status(await reader.readline())
    await asyncio.sleep(5)
    return status


async def thousand_pictures(stream: Stream) -> str:
    return await _ask(stream, post("/recognize", form()))


async def photograph(stream: Stream) -> str:
    return await _ask(stream, post("/recognize", large_photograph()))


MISBEHAVING: dict[Client, int] = {  # number of concurrent clients by kind
    slow_head: 20,
    slow_body: 20,
    not_reading: 5,
    leaving_amid_a_request: 2,
    leaving_before_the_answer: 2,
    too_large_in_chunks: 1,
    thousand_pictures: 1,
    photograph: 1,
}


async def _trickle(stream: Stream, first: bytes, rest: bytes) -> str:
    """Send the first part at once, and the rest at one byte per second until a response arrives."""
    reader, writer = stream
    writer.write(first)
    answer = asyncio.create_task(reader.readline())
    try:
        for place in range(len(rest)):
            writer.write(rest[place : place + 1])
            if (await asyncio.wait([answer], timeout=1))[0]:
                break
        return _status(await asyncio.wait_for(answer, PATIENCE))
    finally:
        answer.cancel()


async def _ask(stream: Stream, content: bytes) -> str:
    reader, writer = stream
    writer.write(content)
    return _status(await asyncio.wait_for(reader.readline(), PATIENCE))


def _status(line: bytes) -> str:
    return line[9:12].decode() or "closed"


async def _leave(stream: Stream) -> str:
    if random.random() < 0.5:
        stream[1].close()  # close the connection properly; otherwise the caller aborts it
    await asyncio.sleep(0.1)
    return "left"


# Measurements


class Watch:
    """Samples of the service's processes, and the verdict at the end."""

    def __init__(self, session: int, tally: Tally) -> None:
        self._session = session
        self._tally = tally
        self._memory: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
        self.processes = process_ids(session)
        self._files = self._open_files()

    async def sample_until(self, end: float) -> None:
        """Print and record samples until a time."""
        names = " ".join(f"{f'RSS/PSS MiB, files of {p}':>28}" for p in self.processes)
        print(f"{'s':>5} {'answers/s':>9} {'p99 ms':>6} {'failed':>6} {'others':>6} {names}")
        self._tally.seconds.clear()
        start = last = time.monotonic()
        busy = self._busy()
        while last < end - SAMPLE_SECONDS / 2:
            await asyncio.sleep(SAMPLE_SECONDS)
            now, now_busy = time.monotonic(), self._busy()
            others = (now_busy - busy) / (now - last) / (os.cpu_count() or 1)
            seconds, self._tally.seconds = sorted(self._tally.seconds), []
            cells = []
            for process in self.processes:
                rss, pss = memory(process)
                self._memory[process, "RSS"].append(rss)
                self._memory[process, "PSS"].append(pss)
                cells.append(f"{f'{rss:.1f}/{pss:.1f} {open_files(process):4}':>28}")
            print(
                f"{now - start:5.0f} {len(seconds) / (now - last):9.0f} "
                f"{seconds[len(seconds) * 99 // 100] * 1e3 if seconds else 0:6.1f} "
                f"{self._tally.failures.total():6} {others:6.0%} {' '.join(cells)}",
                flush=True,
            )
            last, busy = now, now_busy

    def _busy(self) -> float:
        """Return the CPU seconds so far of all programs except the service and this test."""
        user, nice, system, _, _, *interrupts = map(
            int, Path("/proc/stat").read_text().split()[1:9]
        )
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return busy - cpu_seconds(self._session) - time.process_time()

    def _open_files(self) -> dict[int, int]:
        return {process: open_files(process) for process in self.processes}

    async def verdict(self) -> bool:
        """Print the results, and return whether the service passed."""
        passed = not self._tally.failures
        print()
        kinds: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (kind, outcome), count in self._tally.outcomes.items():
            kinds[kind][outcome] = count
        for kind, outcomes in kinds.items():
            counts = ", ".join(f"{outcome}: {count}" for outcome, count in outcomes.items())
            print(f"{kind:26} {counts}")
        for (kind, reason), count in self._tally.failures.most_common(20):
            print(f"FAILED {count} x {kind}: {reason}")
        for (process, name), samples in self._memory.items():
            quarter = max(1, len(samples) // 4)
            early = statistics.median(samples[quarter : 2 * quarter] or samples)
            late = statistics.median(samples[-quarter:])
            grown = late / early - 1
            too_much = name == "RSS" and grown > MAX_GROWTH
            passed &= not too_much
            mark = "FAILED " if too_much else ""
            print(f"{mark}{name} of {process}: {early:.1f} to {late:.1f} MiB ({grown:+.1%})")
        deadline = time.monotonic() + PATIENCE
        while (files := self._open_files()) != self._files:
            if time.monotonic() > deadline:
                passed = False
                break
            await asyncio.sleep(0.1)
        mark = "" if files == self._files else "FAILED "
        print(f"{mark}open files: {self._files} before, {files} after")
        if (now := process_ids(self._session)) != self.processes:
            passed = False
            print(f"FAILED processes: {self.processes} before, {now} after")
        print("passed" if passed else "FAILED")
        return passed


def memory(process: int) -> tuple[float, float]:
    """Return the resident (RSS) and the proportional (PSS) memory of a process in MiB."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    rss, pss = (re.search(rf"^{name}: +(\d+) kB", text, re.MULTILINE) for name in ("Rss", "Pss"))
    assert rss
    assert pss
    return int(rss[1]) / 1024, int(pss[1]) / 1024


def open_files(process: int) -> int:
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


if __name__ == "__main__":
    main()
