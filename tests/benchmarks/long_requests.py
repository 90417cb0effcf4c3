"""Measure whether long requests hold up short ones.

    python -m tests.benchmarks.long_requests                # three minutes
    python -m tests.benchmarks.long_requests --seconds 20

The program starts the service with its default options. Four clients send forms of 1,000 pictures
of 316 x 316 pixels and four send photographs of 25 megapixels, all without a pause. They first run
alone. Then other clients request the health, the metrics, and the digit of one small picture at the
same time. The program prints and saves the images per second of the long requests, alone and beside
the others, and the latency of the short ones. It needs `data/model` and `data/png`, so run
`dvc repro` first. It uses only loopback. The clients share the cores with the service.
"""

import argparse
import statistics
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from io import BytesIO
from multiprocessing import get_context
from urllib.parse import urljoin

import numpy as np
import requests
from PIL import Image

from stages.common import paths
from tests.benchmarks import tables
from tests.benchmarks.serving import NINE, Body, Load, Server, body_of, running

SERVER = Server("this project", "service --port={port}")
CLIENTS = 4  # of each kind of long requests
PICTURES, SIDE = 1000, 316  # of a form; pixels
PHOTOGRAPH = 5000  # pixels along each side
LONG_COLUMNS = {
    "long requests": "",
    "images/s alone": ".1f",
    "beside short ones": ".1f",
    "ratio": ".2f",
}
SHORT_COLUMNS = {
    "short requests": "",
    "answers": ".0f",
    "failures": ".0f",
    "median ms": ".1f",
    "p99 ms": ".1f",
}
PAUSE = 0.02  # seconds between two requests of a short client
SHORT = {"/healthz": None, "/metrics": None, "/recognize": body_of(Load())}  # path and body

Finished = list[tuple[float, int]]  # when a long request was answered, and how many images it had


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="of each half (default: 60)")
    seconds = parser.parse_args().seconds
    for path in (paths.MODEL, NINE):
        if not path.exists():
            sys.exit(f"{path} is missing; run `dvc repro`")
    with (
        running(SERVER, body_of(Load())) as (url, *_),
        ThreadPoolExecutor(2 * CLIENTS) as long,
        ProcessPoolExecutor(len(SHORT), get_context("spawn")) as short,
    ):
        start = time.monotonic()
        middle, end = start + seconds, start + 2 * seconds
        senders = {
            f"forms of {PICTURES} pictures": _start(long, url, form(), PICTURES, end),
            "photographs of 25 megapixels": _start(long, url, photograph(), 1, end),
        }
        time.sleep(middle - time.monotonic())
        latencies = {
            route: short.submit(ask, urljoin(url, route), body, seconds)
            for route, body in SHORT.items()
        }
        long_rows = [_long_row(name, senders[name], middle) for name in senders]
        short_rows = [_short_row(route, *latencies[route].result()) for route in latencies]
    tables.report(
        "long_requests",
        {
            "long": tables.Table(LONG_COLUMNS, long_rows),
            "short": tables.Table(SHORT_COLUMNS, short_rows),
        },
        f"{seconds} seconds without short requests, then {seconds} seconds with them.",
    )


def _long_row(name: str, futures: list[Future[Finished]], middle: float) -> tables.Row:
    finished = sorted(entry for future in futures for entry in future.result())
    alone = _rate([entry for entry in finished if entry[0] < middle])
    beside = _rate([entry for entry in finished if entry[0] >= middle])
    cells = (name, alone, beside, beside / alone)
    return dict(zip(LONG_COLUMNS, cells, strict=True))


def _short_row(route: str, answers: list[float], failures: int) -> tables.Row:
    median, p99 = statistics.median(answers), statistics.quantiles(answers, n=100)[98]
    cells = (route, len(answers), failures, median * 1e3, p99 * 1e3)
    return dict(zip(SHORT_COLUMNS, cells, strict=True))


def _start(
    pool: ThreadPoolExecutor, url: str, body: Body, images: int, end: float
) -> list[Future[Finished]]:
    return [pool.submit(send, url, body, images, end) for _ in range(CLIENTS)]


def send(url: str, body: Body, images: int, end: float) -> Finished:
    """Send a long request again and again until `end`, a time of `time.monotonic`."""
    finished = []
    with requests.Session() as session:
        while time.monotonic() < end:
            headers = {"Content-Type": body[1]}
            session.post(url, body[0], headers=headers, timeout=60).raise_for_status()
            finished.append((time.monotonic(), images))
    return finished


def ask(url: str, body: Body | None, seconds: float) -> tuple[list[float], int]:
    """Send a short request again and again for some seconds.

    Returns:
        The seconds that each answer took, and how many requests had another answer than 200.
    """
    answers, failures, end = [], 0, time.monotonic() + seconds
    with requests.Session() as session:
        while time.monotonic() < end:
            start = time.perf_counter()
            if body is None:
                answer = session.get(url, timeout=60)
            else:
                answer = session.post(url, body[0], headers={"Content-Type": body[1]}, timeout=60)
            answers.append(time.perf_counter() - start)
            failures += not answer.ok
            time.sleep(PAUSE)
    return answers, failures


@cache
def form() -> Body:
    content = drawing(SIDE)
    files = [("image", (f"{number}.jpg", content)) for number in range(PICTURES)]
    made = requests.Request("POST", "http://localhost", files=files).prepare()
    assert isinstance(made.body, bytes)
    return made.body, made.headers["Content-Type"]


@cache
def photograph() -> Body:
    return drawing(PHOTOGRAPH), "image/jpeg"


def drawing(side: int) -> bytes:
    """A JPEG file of a digit on unevenly lit paper."""
    digit = np.asarray(Image.open(NINE).resize((side, side)), float)
    light = np.linspace(160, 220, side)
    content = BytesIO()
    Image.fromarray((light * (1 - digit / 400)).astype(np.uint8)).save(content, "JPEG")
    return content.getvalue()


def _rate(finished: Finished) -> float:
    """Images a second, from the first answer to the last."""
    times = [when for when, _ in finished]
    if len(times) < 2:
        sys.exit("too few long requests were answered; raise --seconds")
    return sum(images for _, images in finished[1:]) / (times[-1] - times[0])


if __name__ == "__main__":
    main()
