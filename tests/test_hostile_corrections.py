"""Ten thousand hostile corrections change nothing but an inbox of a limited size.

A model learns from a correction only after a review, which cannot accept test images; see
`test_a_test_digit_cannot_be_accepted_but_rejected` in tests/stages/review/test_session.py.
"""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests

from service.feedback import ATTEMPTS, LOCK
from tests.conftest import PROJECT, Artifact, Server, running_server
from tests.test_feedback import corrections

CLIENTS, EACH = 4, 2500
MAX_FILES, MAX_BYTES = 20, 10_000
OPTIONS = [
    f"--feedback-max-files={MAX_FILES}",
    f"--feedback-max-bytes={MAX_BYTES}",
    "--feedback-per-minute=300",
]
FORM = "multipart/form-data; boundary=x"
# The result in `mnist_feedback_total` of each status. 413 and 503 do not occur.
RESULTS = dict.fromkeys((400, 415, 422), "refused") | {200: "kept", 429: "too_many", 507: "full"}

Hostile = Callable[[random.Random], tuple[bytes, str]]  # the body and its content type


def form(picture: bytes, **fields: object) -> tuple[bytes, str]:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    return b"".join([*parts, head, picture, b"\r\n--x--\r\n"]), FORM


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def noise(chance: random.Random) -> bytes:
    side = chance.randint(8, 60)
    return png(np.frombuffer(chance.randbytes(side * side), np.uint8).reshape(side, side))


def damaged(chance: random.Random, picture: bytes) -> bytes:
    content = bytearray(picture[: chance.randint(1, len(picture))])
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def kinds(test_images: list[bytes]) -> list[Hostile]:
    """Return functions that make a hostile correction."""
    blank = png(np.full((50, 50), 255, np.uint8))
    return [
        lambda chance: form(chance.choice(test_images), label=chance.randrange(10)),
        lambda chance: form(test_images[0], label=chance.randrange(10)),  # a duplicate
        lambda chance: form(noise(chance), label=chance.randrange(10)),
        lambda chance: form(damaged(chance, chance.choice(test_images)), label=1),
        lambda _: form(blank, label=8),
        lambda chance: form(chance.randbytes(500), label=3),
        lambda chance: form(chance.choice(test_images), label="../../params.yaml"),
        lambda _: form(test_images[1], label=1, version="0" * 32),
        lambda chance: (chance.randbytes(200), FORM),
        lambda chance: (noise(chance), "image/png"),
    ]


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def storm(server: Server, seed: int, hostile: list[Hostile]) -> "Counter[int]":
    """Send corrections, and return how many responses there were of each status."""
    chance, statuses = random.Random(seed), Counter[int]()
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    for _ in range(EACH):
        body, kind = chance.choice(hostile)(chance)
        connection.request("POST", "/feedback", body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
    connection.close()
    return statuses


@pytest.mark.slow
@pytest.mark.server
def test_ten_thousand_hostile_corrections_change_neither_the_model_nor_its_answers(
    artifact: Artifact, png_files: list[Path], tmp_path: Path
) -> None:
    inbox, pinned = tmp_path / "inbox", contents(artifact.path)
    params = (PROJECT / "params.yaml").read_bytes()
    pictures = [file.read_bytes() for file in png_files]
    options = ["--workers=2", f"--lock={artifact.path / 'dvc.lock'}", "--watch"]
    with (
        running_server(PROJECT, *options, f"--feedback={inbox}", *OPTIONS) as server,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        hostile = kinds(pictures)
        storms = [pool.submit(storm, server, seed, hostile) for seed in range(CLIENTS)]
        for number in count():
            place = number % len(pictures)
            part = {"image": pictures[place]}
            answer = requests.post(f"{server.url}/recognize", files=part, timeout=60)
            assert answer.json()["labels"] == [artifact.predictions[place]]
            assert answer.headers["X-Model-Version"] == artifact.version
            assert len({file.stem for file in inbox.glob("*/*.json")}) <= MAX_FILES
            if not wait(storms, timeout=0.1).not_done:
                break
        statuses = sum((each.result() for each in storms), Counter[int]())
        text = requests.get(f"{server.url}/metrics", timeout=60).text
        output = server.stop()
    assert "Traceback" not in output
    assert set(statuses) == set(RESULTS)
    results = Counter[str]()
    for status, times in statuses.items():
        results[RESULTS[status]] += times
    for result in ("kept", "refused", "too_many", "full", "failed"):
        assert f'mnist_feedback_total{{result="{result}"}} {results[result]:.1f}\n' in text

    files = [inbox / name for name in corrections(inbox)]
    assert len(files) <= 2 * MAX_FILES
    assert sum(file.stat().st_size for file in files) <= MAX_BYTES
    facts = [file.stem for file in files if file.suffix == ".json"]
    assert len(facts) == len(set(facts))
    assert set(facts) == {file.stem for file in files if file.suffix != ".json"}
    assert {file.name for file in inbox.iterdir()} <= {LOCK, ATTEMPTS, *"0123456789"}
    assert contents(artifact.path) == pinned
    assert (PROJECT / "params.yaml").read_bytes() == params
