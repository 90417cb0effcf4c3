"""Requests a second of this service, side by side with other servers of the same network.

    apt-get install wrk golang-go golang-github-julienschmidt-httprouter-dev
    pip install '.[bench]'                          # optional: FastAPI and LitServe
    python -m tests.benchmarks.serving              # twelve minutes
    python -m tests.benchmarks.serving --rounds 1 --only 'this project' Go

Prints a table, and saves it unless `--only` is given: this service and others, with one image per
request over 1, 8 and 64 connections; and this service with a picture as the body itself and with
many images per request, over 8 connections. Needs Linux, and `data/model`, `data/mnistmodel` and
`data/png`, so run `dvc repro` first. All of it stays on loopback.

The client is wrk with one thread and keep-alive. It runs on the same cores as the servers, so use
the figures to compare rows, not machines. Every server starts afresh in every round, all of them in
turn. A cell has a median over the rounds for each number of connections.

- requests/s: answers without an error. The latencies are of all answers.
- CPU µs per request: user and system time of all processes of the server.
- memory MiB: of all its processes after the load, each shared page counted once (PSS).
- start s: from the start of its process to its first answer.
- ratio: images/s over those of the naive Flask view with LiteRT, in the same round and over as many
  connections.
- errors, in all rounds: answers of status 400 and above, broken connections and time-outs.

The Go server computes with TensorFlow's C library: once with the library's default threads, as its
author wrote it, and once on the thread of the caller, which is its best configuration.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import requests

from stages.common import paths
from tests.benchmarks import tables
from tests.benchmarks.processes import cpu_seconds, memory_mib
from tests.c_api import library_folder
from tests.conftest import free_port

NINE = paths.PNG / "testing/9/104.png"
MANY = 256  # images in one request
WARM_UP = 2  # seconds
START_TIMEOUT = 60  # seconds
STOP_TIMEOUT = 35  # seconds; the service itself waits 30 for its requests
GO_SOURCE = Path(__file__).parent / "go_server/main.go"
GO_PACKAGES = "golang-go and golang-github-julienschmidt-httprouter-dev"
GO_PATH = Path("/usr/share/gocode")  # where Debian installs the source of Go packages
HTTPROUTER = GO_PATH / "src/github.com/julienschmidt/httprouter"

# wrk's own report is rounded, and programs cannot read it well.
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

# The first columns have figures of each load.
COLUMNS = {
    "requests/s": ".0f",
    "median ms": ".2f",
    "p99 ms": ".1f",
    "CPU µs per request": ".0f",
    "ratio": ".2f",
    "errors": ".0f",
    # These have figures of each server.
    "memory MiB": ".0f",
    "start s": ".1f",
}

Body = tuple[bytes, str]  # and its type
Row = dict[str, float]
Figures = dict[tuple[str, str, int], float]  # by row, column and connections; 0 for any number


@dataclass(frozen=True)
class Load:
    """The requests that wrk sends."""

    connections: int = 8
    images: int = 1  # in a request
    raw: bool = False  # the picture is the body itself, in no form


USUAL = (Load(1), Load(8), Load(64))


@dataclass(frozen=True)
class Server:
    name: str
    command: str  # after the program
    needs: tuple[str, ...] = ()  # modules
    loads: Mapping[str, Sequence[Load]] = field(default_factory=lambda: {"": USUAL})  # by row
    program: tuple[str, ...] = (sys.executable, "-m")


OURS = [
    Server(
        "this project, LiteRT",
        "service --port={port}",
        loads={
            "": USUAL,
            ", raw body": [Load(raw=True)],
            f", {MANY} images a request": [Load(images=MANY)],
        },
    ),
    Server("this project, TensorFlow", "service --port={port} --engine=tensorflow"),
    Server(
        "this project, LiteRT, without its fast path",
        "tests.benchmarks.without_fast_path --port={port}",
    ),
]
FLASK = "naive Flask, gunicorn sync x 2"
NAIVE = f"{FLASK}, LiteRT"


def peers(engine: str, name: str) -> list[Server]:
    """The Python servers of `tests.benchmarks.peers` over an engine."""
    application = f"tests.benchmarks.peers:{{}}_{engine}"
    flask, fastapi = map(application.format, ("flask", "fastapi"))
    return [
        Server(
            f"{FLASK}, {name}",
            f"gunicorn -w 2 -k sync -b 127.0.0.1:{{port}} --no-control-socket {flask}()",
        ),
        Server(
            f"naive Flask, granian x 2, {name}",
            "granian --interface wsgi --workers 2 --blocking-threads 1 --port {port} "
            f"--log-level error --factory {flask}",
        ),
        Server(
            f"FastAPI, uvicorn x 2, {name}",
            f"uvicorn --workers=2 --port={{port}} --no-access-log --factory {fastapi}",
            ("fastapi", "uvicorn", "python_multipart"),
        ),
        Server(
            f"LitServe, {name}",
            f"tests.benchmarks.peers {engine} {{port}}",
            ("litserve", "python_multipart"),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure servers of the network on this machine.")
    parser.add_argument("--seconds", type=int, default=3, help="how long each measurement takes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is taken")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="servers with one of these in their names"
    )
    options = parser.parse_args()
    _require()
    # SIGTERM stops the benchmark and its server, like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        servers = [*OURS, *go_servers(Path(folder))]
        servers += [*peers("litert", "LiteRT"), *peers("tensorflow", "TensorFlow")]
        if options.only:
            servers = [s for s in servers if any(name in s.name for name in options.only)]
        if not servers:
            parser.error(f"no server has one of {options.only} in its name")
        servers = [s for s in servers if _is_installed(s)]
        measured = compare(servers, options.seconds, options.rounds)
    settings = f"Medians of {options.rounds} rounds of {options.seconds} seconds."
    tables.report("serving", {"servers": _table(measured)}, settings, save=not options.only)


def go_servers(folder: Path) -> list[Server]:
    """The Go server in both configurations, built in `folder`; none where Go is not installed."""
    if not (shutil.which("go") and HTTPROUTER.exists()):
        print(f"The Go server is left out: install Debian's packages {GO_PACKAGES}.")
        return []
    tensorflow = library_folder()
    libraries = "-l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2"
    environment = {
        "GO111MODULE": "off",
        "GOPATH": str(GO_PATH),
        "CGO_CFLAGS": f"-I{tensorflow}/include",
        "CGO_LDFLAGS": f"-L{tensorflow} {libraries} -Wl,-rpath,{tensorflow}",
    }
    program = (str(folder / "server"),)
    build = ["go", "build", "-o", *program, str(GO_SOURCE)]
    subprocess.run(build, env=os.environ | environment, check=True)
    return [
        Server("Go server, TensorFlow as its author wrote it", "-port={port}", program=program),
        Server(
            "Go server, TensorFlow on the caller's thread",
            "-port={port} -inline",
            program=program,
        ),
    ]


def compare(servers: list[Server], seconds: int, rounds: int) -> list[Figures]:
    """Measure all servers in turn in each round."""
    measured = []
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        measured.append(measure(servers, seconds))
    return measured


def measure(servers: list[Server], seconds: int) -> Figures:
    """Every server in turn, under each of its loads."""
    figures: Figures = {}
    for server in servers:
        with running(server, body_of(Load())) as (url, session, start):
            send(url, body_of(Load()), 8, WARM_UP)
            figures[server.name, "start s", 0] = start
            for mark, loads in server.loads.items():
                row = server.name + mark
                for load in loads:
                    for column, figure in under(load, url, session, seconds).items():
                        figures[row, column, load.connections] = figure
                figures[row, "memory MiB", 0] = memory_mib(session)
    for (row, column, connections), figure in list(figures.items()):
        if column == "images/s" and (NAIVE, column, connections) in figures:
            ratio = figure / figures[NAIVE, column, connections]
            figures[row, "ratio", connections] = ratio
    return figures


def under(load: Load, url: str, session: int, seconds: int) -> Row:
    """The figures of a server under a load."""
    before = cpu_seconds(session)
    row = send(url, body_of(load), load.connections, seconds)
    row["CPU µs per request"] = (cpu_seconds(session) - before) * 1e6 / row["answers"]
    row["images/s"] = row["requests/s"] * load.images
    return row


def body_of(load: Load) -> Body:
    """A picture as it is, or a form with pictures in its field `image`."""
    if load.raw:
        return NINE.read_bytes(), "image/png"
    files = [NINE]
    if load.images > 1:
        all_files = sorted((paths.PNG / "testing").glob("*/*.png"))
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
    port = free_port()
    url = f"http://127.0.0.1:{port}/recognize"
    with tempfile.TemporaryFile() as log:
        start = time.monotonic()
        process = subprocess.Popen(
            [*server.program, *server.command.format(port=port).split()],
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


def _is_installed(server: Server) -> bool:
    missing = [name for name in server.needs if not find_spec(name)]
    if missing:
        print(f"{server.name} is left out: {', '.join(missing)} is not installed.")
    return not missing


def _require() -> None:
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed; `apt-get install wrk`")
    for path in (paths.MODEL, paths.GRAPH, NINE):
        if not path.exists():
            sys.exit(f"{path} is missing; run `dvc repro`")


def _table(rounds: list[Figures]) -> tables.Table:
    names = dict.fromkeys(row for row, _, _ in rounds[0])
    rows = [
        {"server": name} | {column: _cell(rounds, name, column) for column in COLUMNS}
        for name in names
    ]
    return tables.Table({"server": ""} | COLUMNS, rows)


def _cell(rounds: list[Figures], row: str, column: str) -> list[float]:
    """A figure for each number of connections."""
    middle = sum if column == "errors" else statistics.median
    keys = sorted(key for key in rounds[0] if key[:2] == (row, column))
    return [middle([figures[key] for figures in rounds]) for key in keys]


if __name__ == "__main__":
    main()
