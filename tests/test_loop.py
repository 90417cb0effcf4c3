"""From a wrong answer to a better model, as stages/README.md describes it, and nothing simulated.

A person draws ones on the page, which the service takes for sevens, and corrects them. Another one
reviews the corrections. `dvc repro` trains with them, and the running service switches to the new
model.
"""

import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml
from playwright.sync_api import Locator, Page, expect

from stages import handwriting
from stages.commands.review import source
from tests.api.conftest import blank, browser, browser_errors
from tests.api.pad import ANSWER, Strokes, clear, draw_at_once, wait_for_scripts
from tests.conftest import ENVIRONMENT, Params, Repository, Server, pinned_version, running_server
from tests.test_reload import wait_for

__all__ = ["blank", "browser", "browser_errors"]  # fixtures
REVIEW = [sys.executable, "-m", "stages.commands.review"]
# Of the 30 ones, the networks of three seeds took 24 or more for a 7. After the training with the
# corrections, they took all for a 1. Other processors round in another way, as seeds do.
FEWEST = 10  # wrong answers
CORRECTED = 0.9  # of the wrong answers


def one(reach: float, drop: float, lean: float) -> Strokes:
    """Return a 1 with a long upstroke, as people in Europe write it.

    Args:
        reach: The width of the upstroke, as a fraction of the pad.
        drop: Its height.
        lean: How far the stem leans to each side.
    """
    top, foot = (0.55 + lean, 0.16), (0.55 - lean, 0.85)
    return [[(top[0] - reach, top[1] + drop), top, foot]]


# The first one looks most like a 7 to the network.
ONES = [
    one(reach, drop, lean)
    for reach, lean, drop in itertools.product(
        (0.4, 0.375, 0.35, 0.325, 0.3), (0.05, 0.0), (0.17, 0.14, 0.2)
    )
]


def edit(params: Params) -> None:
    # In the 3 epochs of the slice, the network learns the corrections at the cost of other digits.
    params["train"]["epochs"] = 8


@pytest.mark.server
def test_a_wrong_answer_becomes_a_better_model_in_service(
    scratch: Repository, tmp_path: Path, blank: Page
) -> None:
    scratch.edit_params(edit)
    inbox, old = tmp_path / "inbox", pinned_version(scratch.path)
    options = ("--workers=1", f"--feedback={inbox}", "--watch")
    with running_server(scratch.path, *options) as server:
        blank.goto(server.url)
        assert answer(blank, ONES[0]) != 1
        count = sum([correct(blank, strokes) for strokes in ONES])
        assert count >= FEWEST
        facts = [json.loads(file.read_text()) for file in inbox.glob("1/*.json")]
        assert len(facts) == count
        assert {(each["label"], each["version"]) for each in facts} == {(1, old)}
        assert 1 not in {each["answered"] for each in facts}

        pictures = review(scratch, inbox, blank, count)
        assert list(inbox.glob("*/*")) == []
        scratch.run("dvc", "repro")
        metrics = json.loads((scratch.path / "data/evaluation/metrics.json").read_text())
        held_back = metrics["handwriting"]["feedback"]["digits"]
        assert 0 < held_back < count

        new = pinned_version(scratch.path)
        assert new != old
        wait_for(server, new)
        assert labels(server, pictures).count(1) >= CORRECTED * count
        blank.goto(server.url)
        assert answer(blank, ONES[0]) == 1
        expect(blank.get_by_text(new[:12])).to_be_visible()
    remove(scratch, pictures[0])


def answer(page: Page, strokes: Strokes) -> int:
    """Draw on the empty pad, and return the digit that the page shows."""
    wait_for_scripts(page)
    clear(page)
    draw_at_once(page, strokes)
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    return int(page.locator("tr.best th").inner_text())


def correct(page: Page, strokes: Strokes) -> bool:
    """Draw a 1, and correct the answer if it is wrong. Return whether it was."""
    if answer(page, strokes) == 1:
        return False
    button = offer(page).get_by_role("button", name="It is a 1")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    return True


def offer(page: Page) -> Locator:
    return page.get_by_role("region", name="Not right?")


def labels(server: Server, pictures: list[Path]) -> list[int]:
    files = [("image", (file.name, file.read_bytes())) for file in pictures]
    found = requests.post(f"{server.url}/recognize", files=files, timeout=60).json()
    return [label for result in found["results"] for label in result["labels"]]


def review(repository: Repository, inbox: Path, page: Page, count: int) -> list[Path]:
    """Accept all corrections on the page of the review, and commit that. Return the pictures."""
    with reviewing(repository, inbox) as url:
        page.goto(url)
        expect(page.locator("#counts")).to_have_text(f"{count} waiting, 0 accepted, 0 rejected")
        # The first correction has the focus.
        page.keyboard.press("Control+a")
        page.keyboard.press("a")
        expect(page.locator("#counts")).to_have_text(f"0 waiting, {count} accepted, 0 rejected")
        page.get_by_role("button", name="Finish").click()
        expect(page.get_by_text("Run `dvc repro` to train with them.")).to_be_visible()
    repository.run("git", "add", "params.yaml", "data/feedback.jsonl", "data/sources")
    repository.run("git", "commit", "--quiet", "--message=Corrections")
    pictures = sorted((repository.path / source.FOLDER / "1").iterdir())
    assert len(pictures) == count
    return pictures


@contextmanager
def reviewing(repository: Repository, inbox: Path) -> Iterator[str]:
    """Start a review, yield the URL of its page, and wait until it is finished."""
    with subprocess.Popen(
        [*REVIEW, str(inbox), "--port=0"],
        cwd=repository.path,
        env={**ENVIRONMENT, "BROWSER": "true"},  # with `true` as the browser, no page opens
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        try:
            [url] = re.findall(r"corrections wait on (\S+) ", line)
            yield url
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise
        output = process.stdout.read()
    assert process.returncode == 0, output


def remove(repository: Repository, picture: Path) -> None:
    """Take a picture out of the source, and check that nothing of it is left there."""
    folder = repository.path / source.FOLDER
    before = sorted(folder.glob("*/*"))
    repository.run(*REVIEW, "--remove", picture.stem)
    assert sorted(folder.glob("*/*")) == [file for file in before if file != picture]
    listed = yaml.safe_load((repository.path / "params.yaml").read_text())["data"]["handwriting"]
    assert listed[-1]["name"] == source.NAME
    assert listed[-1]["sha256"] == handwriting.read(folder).sha256
    lines = (repository.path / source.FACTS).read_text().splitlines()
    decisions = {review["sha256"]: review["decision"] for review in map(json.loads, lines)}
    assert decisions.pop(picture.stem) == "removed"
    assert set(decisions.values()) == {"accepted"}
