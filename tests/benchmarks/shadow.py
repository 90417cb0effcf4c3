"""Measure what a trial in the shadow costs the requests beside it.

    python -m tests.benchmarks.shadow                # three minutes
    python -m tests.benchmarks.shadow --rounds 5

The program starts two services: one without `--shadow`, and one whose `--shadow` is too large for
the trial to end. `wrk` sends both the same picture in turn, for a second each. The program prints
and saves how many requests per second the second service answers as a fraction of the first: before
the trial, and during it. It needs `data/model` and `data/png`, so run `dvc repro` first. It uses
only loopback. `wrk` shares the cores with the services.
"""

import argparse
import re
import shutil
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urljoin

import requests

from service.recognition import pin
from stages.common import paths
from tests.benchmarks import tables
from tests.benchmarks.serving import NINE, Load, Server, body_of, running, send
from tests.conftest import pin_artifact

CONNECTIONS = (1, 8)
COLUMNS = {"trial": "", "ratio of requests/s": ".3f", "p99 ms": ".2f", "p99 ms without": ".2f"}
START_TIMEOUT = 60  # seconds until the trial begins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="of each row (default: 20)")
    rounds = parser.parse_args().rounds
    for path in (paths.MODEL, NINE):
        if not path.exists():
            sys.exit(f"{path} is missing; run `dvc repro`")
    body = body_of(Load())
    with TemporaryDirectory() as folder:
        shutil.copytree(paths.MODEL, Path(folder) / pin.ARTIFACT)
        pin_artifact(Path(folder))
        command = f"service --port={{port}} --lock={folder}/dvc.lock"
        plain = Server("without --shadow", command)
        shadow = Server("with --shadow", f"{command} --watch --shadow=1000000")
        with running(plain, body) as (plain_url, *_), running(shadow, body) as (url, *_):
            rows = [compare("none", plain_url, url, rounds)]
            (Path(folder) / pin.ARTIFACT / "note.txt").write_text("another version")
            pin_artifact(Path(folder))
            wait_for_trial(url)
            rows.append(compare("in progress", plain_url, url, rounds))
            compared = images_of_trial(url)
    settings = (
        f"Medians over {rounds} seconds of each service in turn, over "
        f"{' and '.join(map(str, CONNECTIONS))} connections. Meanwhile, the trial "
        f"compared {compared:,} images."
    )
    tables.report("shadow", {"trials": tables.Table(COLUMNS, rows)}, settings)


def compare(trial: str, plain_url: str, url: str, rounds: int) -> tables.Row:
    """Measure both services, and return a row with a figure for each number of connections."""
    row: dict[str, tables.Cell] = {"trial": trial}
    figures: list[tuple[float, float, float]] = []
    for connections in CONNECTIONS:
        pairs = [one_round(plain_url, url, connections, number) for number in range(rounds)]
        rates, p99s, plain_p99s = zip(*pairs, strict=True)
        figures.append(tuple(map(statistics.median, (rates, p99s, plain_p99s))))
    return row | dict(zip(list(COLUMNS)[1:], zip(*figures, strict=True), strict=True))


def one_round(plain_url: str, url: str, connections: int, number: int) -> tuple[float, ...]:
    """Return the ratio of requests/s, and the 99th percentiles with and without --shadow, in ms."""
    urls = (plain_url, url) if number % 2 else (url, plain_url)
    found = {each: send(each, body_of(Load()), connections, 1) for each in urls}
    with_, without = found[url], found[plain_url]
    ratio = with_["requests/s"] / without["requests/s"]
    return ratio, with_["p99 ms"], without["p99 ms"]


def wait_for_trial(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    status = urljoin(url, "/v1/models/mnist")
    while "LOADING" not in requests.get(status, timeout=START_TIMEOUT).text:
        if time.monotonic() > deadline:
            sys.exit("the trial does not begin")
        time.sleep(0.1)
    time.sleep(2)  # until its process has loaded both models


def images_of_trial(url: str) -> int:
    text = requests.get(urljoin(url, "/metrics"), timeout=START_TIMEOUT).text
    found = re.search(r"^mnist_shadow_images_total\{.*\} (.*)$", text, re.MULTILINE)
    return int(float(found[1])) if found else sys.exit("the trial compared no image")


if __name__ == "__main__":
    main()
