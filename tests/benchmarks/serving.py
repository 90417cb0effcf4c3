"""Requests a second of this service, side by side with other servers of the same network.

    apt-get install wrk
    pip install '.[bench]'                          # if you like: FastAPI and LitServe too
    python -m tests.benchmarks.serving              # five minutes
    python -m tests.benchmarks.serving --seconds 2 --rounds 1

Prints a table: this service and others with one image a request over 8 connections, and this
service with a picture as the body itself, with fewer and more connections, and with many images a
request. Needs Linux, and `data/model`, `data/mnistmodel` and `data/png`, so run `dvc repro` first.
All of it stays on loopback.

The client is wrk with one thread. It takes its share of the same cores, so use the figures to
compare rows, not machines. Every server starts afresh in every round, all of them in turn, and a
cell is the median over the rounds.

- requests/s: answers without an error. The latencies are of all answers.
- CPU us a request: user and system time of all processes of the server.
- memory MiB: resident memory of its largest process, after the first answer and before the load.
- start s: from the start of its process to its first answer.
- ratio: images/s over those of the naive Flask view in the same round.
- errors, in all rounds: answers of status 400 and above, broken connections and time-outs.

The row of TensorFlow's C API is no server: it is the CPU time of one call of the network from
outside Python, in two processes at once as under load, and `GO_MICROSECONDS` for what a server in
Go does besides.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from service.silence import silence
from tests.c_api import Graph

MODEL, GRAPH, PNG = Path("data/model"), Path("data/mnistmodel"), Path("data/png/testing")
NINE = PNG / "9/104.png"
MANY = 256  # images in one request
WARM_UP = 2  # seconds
START_TIMEOUT = 60  # seconds
STOP_TIMEOUT = 35  # seconds; the service itself waits 30 for its requests
GO_MICROSECONDS = 150  # the original Go server's work on HTTP and PNG, measured

# What wrk reports by itself is rounded, and for people.
SCRIPT = """
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
function done(summary, latency)
  local failed = summary.errors
  io.write(string.format(
    '\\n{"all": %d, "us": %d, "median": %d, "p99": %d, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    failed.status, failed.connect + failed.read + failed.write + failed.timeout))
end
"""

COLUMNS = {
    "requests/s": ".0f",
    "images/s": ".0f",
    "median ms": ".2f",
    "p99 ms": ".1f",
    "CPU us a request": ".0f",
    "memory MiB": ".0f",
    "start s": ".1f",
    "ratio": ".2f",
    "errors": ".0f",
}

Body = tuple[bytes, str]  # and its type
Row = dict[str, float]  # a figure for each column
Rows = dict[str, Row]


@dataclass(frozen=True)
class Load:
    """What wrk sends."""

    connections: int = 8
    images: int = 1  # in a request
    raw: bool = False  # the picture is the body itself, in no form


@dataclass(frozen=True)
class Server:
    name: str
    command: str  # after `python -m`
    needs: tuple[str, ...] = ()  # modules
    loads: Mapping[str, Load] = field(default_factory=lambda: {"": Load()})  # by what marks its row


NAIVE = "naive Flask, gunicorn sync x 2"
SERVERS = [
    Server(
        "this project",
        "service --port={port}",
        loads={
            "": Load(),
            ", raw body": Load(raw=True),
            ", 1 connection": Load(connections=1),
            ", 64 connections": Load(connections=64),
            f", {MANY} images a request": Load(images=MANY),
        },
    ),
    Server(
        NAIVE,
        "gunicorn -w 2 -k sync -b 127.0.0.1:{port} --no-control-socket "
        "tests.benchmarks.peers:flask_app()",
    ),
    Server(
        "FastAPI, uvicorn x 2",
        "uvicorn --workers=2 --port={port} --no-access-log --factory "
        "tests.benchmarks.peers:fastapi_app",
        ("fastapi", "uvicorn", "python_multipart"),
    ),
    Server("LitServe", "tests.benchmarks.peers {port}", ("litserve", "python_multipart")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure servers of the network on this machine.")
    parser.add_argument("--seconds", type=int, default=5, help="how long each measurement takes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is taken")
    options = parser.parse_args()
    _require()
    # A benchmark that is told to end stops its server, as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    missing = {s.name: [name for name in s.needs if not find_spec(name)] for s in SERVERS}
    rounds = []
    for number in range(1, options.rounds + 1):
        print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
        rounds.append(compare([s for s in SERVERS if not missing[s.name]], options.seconds))
    _print(rounds)
    for name, names in missing.items():
        if names:
            print(f"\n{name} was left out: {', '.join(names)} is not installed.")


def compare(servers: list[Server], seconds: int) -> Rows:
    """Every server in turn, under each of its loads."""
    rows = {}
    for server in servers:
        first = body_of(Load())
        with running(server, first) as (url, process, start):
            rest = {"memory MiB": usage(process)[1], "start s": start}
            send(url, first, 8, WARM_UP)
            for mark, load in server.loads.items():
                before = usage(process)[0]
                row = send(url, body_of(load), load.connections, seconds)
                row["CPU us a request"] = (usage(process)[0] - before) * 1e6 / row["answers"]
                row["images/s"] = row["requests/s"] * load.images
                rows[f"{server.name}{mark}"] = row | (rest if not mark else {})
    for row in rows.values():
        row["ratio"] = row["images/s"] / rows[NAIVE]["images/s"]
    # Fresh, because TensorFlow takes the number of its threads when it is loaded.
    with ProcessPoolExecutor(2, get_context("spawn")) as fresh:
        price = statistics.mean(fresh.map(c_api, [seconds] * 2)) + GO_MICROSECONDS
    return rows | {f"TensorFlow's C API + {GO_MICROSECONDS} us": {"CPU us a request": price}}


def c_api(seconds: int) -> float:
    """CPU microseconds of one call of the network through TensorFlow's C API."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    with silence():
        graph = Graph(GRAPH, "model")
    pixels = np.asarray(Image.open(NINE), np.float32).reshape(1, 784)

    def call_for(seconds: int) -> int:
        calls, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            graph.run("inputdata", pixels, "inference")
            calls += 1
        return calls

    call_for(WARM_UP)
    start = time.process_time()
    calls = call_for(seconds)
    return (time.process_time() - start) * 1e6 / calls


def body_of(load: Load) -> Body:
    """A picture as it is, or a form with pictures in its field `image`."""
    if load.raw:
        return NINE.read_bytes(), "image/png"
    files = [NINE]
    if load.images > 1:
        all_files = sorted(PNG.glob("*/*.png"))
        files = all_files[:: len(all_files) // load.images][: load.images]
    fields = [("image", (file.name, file.read_bytes(), "image/png")) for file in files]
    made = requests.Request("POST", "http://localhost", files=fields).prepare()
    assert isinstance(made.body, bytes)
    return made.body, made.headers["Content-Type"]


def send(url: str, body: Body, connections: int, seconds: int) -> Row:
    """Let wrk send `body` again and again."""
    with tempfile.NamedTemporaryFile() as content, tempfile.NamedTemporaryFile("w") as script:
        Path(content.name).write_bytes(body[0])
        Path(script.name).write_text(SCRIPT)
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", f"-HContent-Type: {body[1]}"]
        report = subprocess.run(
            [*wrk, f"-s{script.name}", url],
            env={**os.environ, "BODY": content.name},
            stdout=subprocess.PIPE,
            check=True,
            timeout=seconds + 30,
        ).stdout
    figures = json.loads(report.splitlines()[-1])
    answers = figures["all"] - figures["refused"]
    if not answers:
        sys.exit(f"{url} answered no request under load")
    return {
        "answers": answers,
        "requests/s": answers / figures["us"] * 1e6,
        "median ms": figures["median"] / 1e3,
        "p99 ms": figures["p99"] / 1e3,
        "errors": figures["refused"] + figures["broken"],
    }


@contextmanager
def running(server: Server, body: Body) -> Iterator[tuple[str, int, float]]:
    """Start a server on a free port; stop it at the end.

    Yields:
        Its address, the number of its first process, and the seconds to its first answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/recognize"
    with tempfile.TemporaryFile() as log:
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", *server.command.format(port=port).split()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while not _answers(url, body):
                if process.poll() is not None or time.monotonic() > start + START_TIMEOUT:
                    log.seek(0)
                    sys.exit(f"{server.name} does not answer:\n{log.read().decode()}")
                time.sleep(0.02)
            yield url, process.pid, time.monotonic() - start
        finally:
            _stop(process)


def _answers(url: str, body: Body) -> bool:
    headers = {"Content-Type": body[1]}
    try:
        answer = requests.post(url, body[0], headers=headers, timeout=START_TIMEOUT)
    except requests.ConnectionError:
        return False
    if not answer.ok or answer.json()["labels"] != [9]:
        sys.exit(f"{url} answers {answer.status_code} {answer.text}")
    return True


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"{process.args!r} had to be killed", file=sys.stderr)
    finally:
        with suppress(ProcessLookupError):  # none of its processes is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def usage(session: int) -> tuple[float, float]:
    """CPU seconds so far of the processes of a session, and resident MiB of the largest."""
    ticks = pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            # From the third field on: the second, a name, may hold spaces and parentheses.
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
                pages = max(pages, int(fields[21]))
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _require() -> None:
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed; `apt-get install wrk`")
    for path in (MODEL, GRAPH, NINE):
        if not path.exists():
            sys.exit(f"{path} is missing; run `dvc repro`")


def _print(rounds: list[Rows]) -> None:
    print(f"| server | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    for name in rounds[0]:
        cells = []
        for column, style in COLUMNS.items():
            figures = [rows[name][column] for rows in rounds if column in rows[name]]
            middle = sum(figures) if column == "errors" else statistics.median(figures or [0])
            cells.append(format(middle, style) if figures else "")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
