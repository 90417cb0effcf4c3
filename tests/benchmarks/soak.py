"""Minutes of all that clients do: is every good request answered, and is memory flat?

    python -m tests.benchmarks.soak                          # ten minutes
    python -m tests.benchmarks.soak --minutes 60 --load 50

Starts the service with two workers, and clients that are malformed, slow or large, do not read
their answers, or disconnect. Measures how many good requests a second it answers beside them, then
sends `--load` per cent of that, at a fixed rate whether or not answers come in time. Prints a line
every ten seconds. Ctrl-C ends it. Needs Linux, and `data/model` and `data/png`, so run `dvc repro`
first. All of it stays on loopback.

Exits with 1 unless

- every good request got its right answer, and every broken one was refused as it should be;
- the resident memory (RSS) of each process of the service grew by at most 5 % from the second
  quarter of the time (the first warms up) to the last, by its medians. Its proportional share (PSS)
  is only shown: it changes with other programs that use the same libraries;
- each process has as many files open in the end, without clients, as it had before they came.

The client is one thread. It takes its share of the same cores, also while the rate is measured. The
column `others` is how much of the machine other programs took: where they take what the load
leaves, requests wait, and are refused in the end, which says nothing of the service.
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

from tests.benchmarks.long_requests import form
from tests.benchmarks.long_requests import photograph as large_photograph
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.serving import MODEL, NINE, Body, Load, Server, body_of, running

SERVER = Server("this project", "service --workers=2 --port={port}")
MOST_GROWTH = 0.05
SAMPLE_SECONDS = 10
CAPACITY_CONNECTIONS = 16
CAPACITY_SECONDS = 10
TICK = 0.002  # seconds from one look at how many requests are due to the next
BROKEN_SHARE = 0.02  # of the rate of good requests
SCRAPES = 1  # of /metrics a second
MOST_OPEN = 256  # connections of good and broken clients; what is due beyond them has to wait
REQUESTS_A_CONNECTION = 500  # then a client opens another: connections come and go
PATIENCE = 40  # seconds for the last answers; longer than the service waits for a request's head
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

Address = tuple[str, int]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Client = Callable[[Stream], Coroutine[None, None, str]]  # returns what became of it


@dataclass(frozen=True)
class Request:
    """One of those that are sent again and again."""

    kind: str
    content: bytes  # head and body
    status: int  # of the right answer
    body: bytes | None = None  # of the right answer; None if it changes

    @classmethod
    def tried(cls, address: Address, kind: str, content: bytes, status: int) -> "Request":
        """Send it once, alone: what is answered then is right, if the status is."""
        with socket.create_connection(address, timeout=PATIENCE) as client:
            client.sendall(content)
            answer = HTTPResponse(client)
            answer.begin()
            body = answer.read()
        if answer.status != status:
            sys.exit(f"{kind}: expected {status}, but the answer is {answer.status} {body!r}")
        return cls(kind, content, status, body)


@dataclass
class Tally:
    """What became of the requests."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and outcome
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and what was said
    seconds: list[float] = field(default_factory=list)  # that answers took since the last sample

    def answered(self, request: Request, status: int, body: bytes, seconds: float) -> None:
        self.outcomes[request.kind, str(status)] += 1
        self.seconds.append(seconds)
        if status != request.status or request.body not in (None, body):
            self.failures[request.kind, f"{status} {body[:200]!r}"] += 1

    def unanswered(self, request: Request, reason: str) -> None:
        self.outcomes[request.kind, reason] += 1
        self.failures[request.kind, reason] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Hold the service under a load of all sorts.")
    parser.add_argument("--minutes", type=float, default=10, help="how long")
    parser.add_argument("--load", type=float, default=80, help="per cent of what it can answer")
    options = parser.parse_args()
    for path in (MODEL, NINE):
        if not path.exists():
            sys.exit(f"{path} is missing; run `dvc repro`")
    # Told to end, it stops the service, as it does on Ctrl-C; which a shell has its background
    # processes ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with running(SERVER, body_of(Load())) as (url, process, _):
            passed = uvloop.run(soak(url, process, options.minutes * 60, options.load / 100))
    except KeyboardInterrupt:
        sys.exit("interrupted")
    sys.exit(0 if passed else 1)


async def soak(url: str, process: int, seconds: float, load: float) -> bool:
    """Whether all that is promised held, for so many seconds."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    clients = Clients((address.hostname, address.port))
    await asyncio.sleep(1)  # until the service has closed what the first requests left
    watch = Watch(process, clients.tally)
    async with clients.rude():
        most = await clients.capacity()
        print(f"capacity {most:.0f} good requests/s; sending {most * load:.0f}", flush=True)
        end = time.monotonic() + seconds
        sampling = asyncio.create_task(watch.sample_until(end))
        await clients.send_until(end, most * load)
        await sampling
    await clients.leave()
    return await watch.verdict()


# What is sent


def head(method: str, path: str, **headers: object) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: soak", *lines, "\r\n"]).encode()


def post(path: str, body: Body, **headers: object) -> bytes:
    content, kind = body
    return head("POST", path, Content_Type=kind, Content_Length=len(content), **headers) + content


def as_json(value: object) -> Body:
    return json.dumps(value).encode(), "application/json"


def good_requests(address: Address) -> Iterator[Request]:
    """A hundred requests that have to be answered, in the shares in which they are sent."""
    png, pixels = NINE.read_bytes(), np.asarray(Image.open(NINE))
    encoded = base64.b64encode(png).decode()
    predict = {"signature_name": "recognize_png", "instances": [{"png_bytes": {"b64": encoded}}]}
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": pixels.tolist()}
    photograph = BytesIO()
    Image.fromarray(255 - pixels).convert("RGB").resize((140, 140)).save(photograph, "JPEG")
    for share, kind, content in (
        (43, "form", post("/recognize", body_of(Load()))),
        (25, "raw body", post("/recognize", (png, "image/png"))),
        (2, "JPEG", post("/recognize", (photograph.getvalue(), "image/jpeg"))),
        (5, "ten files", post("/recognize?probabilities=true", body_of(Load(images=10)))),
        (12, "TensorFlow Serving", post("/v1/models/mnist:predict", as_json(predict))),
        (11, "Open Inference", post("/v2/models/mnist/infer", as_json({"inputs": [tensor]}))),
        (2, "health", head("GET", "/healthz")),
    ):
        yield from [Request.tried(address, kind, content, 200)] * share


def broken_requests(address: Address) -> Iterator[Request]:
    """Requests that have to be refused."""
    png = NINE.read_bytes()
    form, form_type = body_of(Load())
    other_field = form.replace(b'name="image"', b'name="other"')
    halves = b'{"instances":[', "application/json"
    large = head("POST", "/recognize", Content_Type="image/png", Content_Length=17 << 20)
    for status, kind, content in (
        (400, "no image", post("/recognize", (b"no image", "image/png"))),
        (400, "half an image", post("/recognize", (png[:100], "image/png"))),
        (400, "another field", post("/recognize", (other_field, form_type))),
        (400, "half a form", post("/recognize", (form[:-50], form_type))),
        (400, "half of JSON", post("/v1/models/mnist:predict", halves)),
        (400, "no tensor", post("/v2/models/mnist/infer", as_json({"inputs": [{}]}))),
        (404, "no such path", head("GET", "/nothing")),
        (405, "another method", head("DELETE", "/recognize")),
        (413, "too large", large),
        (415, "another type", post("/recognize", (png, "text/plain"))),
    ):
        yield Request.tried(address, kind, content, status)


# Who sends it


class Connection(asyncio.Protocol):
    """One of the good and broken clients: sends a request, and the next when it has the answer."""

    def __init__(self, clients: "Clients") -> None:
        self._clients = clients
        self._request: Request | None = None
        self._due = 0.0
        self._sent = 0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self._clients.idle.append(self)
        self._clients.hand_out()

    def send(self, request: Request, due: float) -> None:
        self._request, self._due = request, due
        self._sent += 1
        self.transport.write(request.content)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        length = LENGTH.search(self._received, 0, end)
        if end == 3 or not length or len(self._received) < end + int(length[1]):
            return
        status, body, self._received = int(self._received[9:12]), self._received[end:], b""
        request, self._request = self._request, None
        assert request, "an answer that nobody asked for"
        self._clients.tally.answered(request, status, body, time.perf_counter() - self._due)
        if status == 200 and self._sent < REQUESTS_A_CONNECTION:
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
            self._clients.tally.unanswered(self._request, f"closed ({exception})")
        elif self in self._clients.idle:
            self._clients.idle.remove(self)
        self._clients.hand_out()


class Clients:
    def __init__(self, address: Address) -> None:
        self._address = address
        self._good, self._broken = list(good_requests(address)), list(broken_requests(address))
        random.Random(0).shuffle(self._good)
        self._due: deque[tuple[Request, float]] = deque()  # and since when
        self._connecting: set[asyncio.Task[None]] = set()
        self.tally = Tally()
        self.waiting = 0  # requests that are due and have no answer so far
        self.open = 0  # connections
        self.idle: deque[Connection] = deque()
        self.then: Callable[[], None] = lambda: None  # what to do after an answer

    async def capacity(self) -> float:
        """Good requests a second if each is sent when another is answered."""
        requests = cycle(self._good)
        self.then = lambda: self._send(next(requests))
        for _ in range(CAPACITY_CONNECTIONS):
            self.then()
        await asyncio.sleep(CAPACITY_SECONDS)  # until the rude ones have all come
        before, start = self.tally.outcomes.total(), time.perf_counter()
        await asyncio.sleep(CAPACITY_SECONDS)
        rate = (self.tally.outcomes.total() - before) / (time.perf_counter() - start)
        self.then = lambda: None
        await self.leave()
        return rate

    async def send_until(self, end: float, rate: float) -> None:
        """Send so many good requests a second, and broken ones beside them."""
        scrape = Request("metrics", head("GET", "/metrics"), 200)
        streams = [
            (cycle(self._good), rate),
            (cycle(self._broken), rate * BROKEN_SHARE),
            (cycle([scrape]), SCRAPES),
        ]
        sent = [0] * len(streams)
        start = time.monotonic()
        while (now := time.monotonic()) < end:
            for number, (requests, frequency) in enumerate(streams):
                while sent[number] < (now - start) * frequency:
                    sent[number] += 1
                    self._send(next(requests))
            await asyncio.sleep(TICK)

    def _send(self, request: Request) -> None:
        self.waiting += 1
        self._due.append((request, time.perf_counter()))
        self.hand_out()

    def hand_out(self) -> None:
        """What is due, to connections that are idle, and to a new one if there is none."""
        while self._due and self.idle:
            self.idle.popleft().send(*self._due.popleft())
        if self._due and self.open < MOST_OPEN:
            self.open += 1
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)  # or nobody would keep it
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Connection(self), *self._address)
        except OSError as error:
            self.open -= 1
            if self._due:
                self.waiting -= 1
                self.tally.unanswered(self._due.popleft()[0], f"no connection ({error})")

    async def leave(self) -> None:
        """Wait for the last answers and close all connections."""
        deadline = time.monotonic() + PATIENCE
        while self.waiting:
            if time.monotonic() > deadline:
                sys.exit(f"{self.waiting} requests have no answer after {PATIENCE} s")
            await asyncio.sleep(0.1)
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()

    @asynccontextmanager
    async def rude(self) -> AsyncIterator[None]:
        """Clients of the other kinds, each again and again."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._again(number, client))
                for client, count in RUDE.items()
                for number in range(count)
            ]
            yield
            for task in tasks:
                task.cancel()

    async def _again(self, number: int, client: Client) -> None:
        kind = client.__name__.replace("_", " ")
        await asyncio.sleep(CAPACITY_SECONDS * number / RUDE[client])  # not all at the same time
        while True:
            stream = await asyncio.open_connection(*self._address, limit=1 << 10)
            try:
                outcome = await client(stream)
            except TimeoutError:
                outcome = "no answer"
            except (ConnectionError, RuntimeError):  # the latter is uvloop's, for a second write
                outcome = "closed"
            finally:
                stream[1].transport.abort()
            self.tally.outcomes[kind, outcome] += 1


async def slow_head(stream: Stream) -> str:
    return await _trickle(stream, b"", head("POST", "/recognize", X_Slow="x" * 30))


async def slow_body(stream: Stream) -> str:
    content = post("/recognize", (NINE.read_bytes(), "image/png"))
    return await _trickle(stream, content[:-20], content[-20:])


async def deaf(stream: Stream) -> str:
    """Never reads its answers, which fill the buffers between it and the service."""
    stream[1].write(head("GET", "/docs/swagger-ui-bundle.js") * 20)  # of 1.5 MB
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
    for _ in range(17 << 4):  # so 17 MiB
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


RUDE: dict[Client, int] = {  # and how many of each there are at a time
    slow_head: 20,
    slow_body: 20,
    deaf: 5,
    leaving_amid_a_request: 2,
    leaving_before_the_answer: 2,
    too_large_in_chunks: 1,
    thousand_pictures: 1,
    photograph: 1,
}


async def _trickle(stream: Stream, first: bytes, rest: bytes) -> str:
    """Send the first part at once, and a byte a second of the rest, unless an answer comes."""
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
        stream[1].close()  # and so in good order; the caller's abort() is not
    await asyncio.sleep(0.1)
    return "left"


# What is watched


class Watch:
    """Samples of the processes of the service, and what they say in the end."""

    def __init__(self, session: int, tally: Tally) -> None:
        self._session = session
        self._tally = tally
        self._memory: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
        self.processes = sorted(processes_of(session))
        self._files = self._open_files()

    async def sample_until(self, end: float) -> None:
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
        """CPU seconds so far of all programs but the service and this one."""
        user, nice, system, _, _, *interrupts = map(
            int, Path("/proc/stat").read_text().split()[1:9]
        )
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return busy - cpu_seconds(self._session) - time.process_time()

    def _open_files(self) -> dict[int, int]:
        return {process: open_files(process) for process in self.processes}

    async def verdict(self) -> bool:
        passed = not self._tally.failures
        print()
        kinds: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (kind, outcome), count in self._tally.outcomes.items():
            kinds[kind][outcome] = count
        for kind, outcomes in kinds.items():
            told = ", ".join(f"{outcome}: {count}" for outcome, count in outcomes.items())
            print(f"{kind:26} {told}")
        for (kind, said), count in self._tally.failures.most_common(20):
            print(f"FAILED {count} x {kind}: {said}")
        for (process, name), samples in self._memory.items():
            quarter = max(1, len(samples) // 4)
            early = statistics.median(samples[quarter : 2 * quarter] or samples)
            late = statistics.median(samples[-quarter:])
            grown = late / early - 1
            too_much = name == "RSS" and grown > MOST_GROWTH
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
        if (now := sorted(processes_of(self._session))) != self.processes:
            passed = False
            print(f"FAILED processes: {self.processes} before, {now} after")
        print("passed" if passed else "FAILED")
        return passed


def processes_of(session: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        try:
            if os.getsid(process) == session:
                yield process
        except ProcessLookupError:  # it ended meanwhile
            pass


def memory(process: int) -> tuple[float, float]:
    """Resident and proportional MiB."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    rss, pss = (re.search(rf"^{name}: +(\d+) kB", text, re.MULTILINE) for name in ("Rss", "Pss"))
    assert rss
    assert pss
    return int(rss[1]) / 1024, int(pss[1]) / 1024


def open_files(process: int) -> int:
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


if __name__ == "__main__":
    main()
