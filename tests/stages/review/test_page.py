"""The page of a review, in a browser, and what it refuses to other pages."""

import json
from pathlib import Path

import pytest
import requests
from PIL import Image
from playwright.sync_api import expect

from stages import handwriting
from stages.commands.review import page as page_module
from stages.commands.review import source
from stages.commands.review.session import Session
from stages.common import params
from tests.conftest import answering
from tests.stages.review.conftest import LABELS, SEMEION, numbers_of, png, send


def running(inbox):
    """Return a context that serves the page of a new review. Its value is the URL of the page."""
    return answering(page_module.Server(Session(inbox), 0))


def post(url, path, body):
    """Send what the page sends."""
    return requests.post(f"{url}{path}", data=body, headers={"Origin": url}, timeout=60)


def label_of(sha256):
    return source.load()[sha256].label


def wait_for_images(page):
    """Wait until the page has all images, which would fail after the server ends."""
    page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")


def test_a_person_reviews_an_inbox_with_keys(project, inbox, blank):
    numbers = [*numbers_of("testing", 1), *numbers_of("training", 6)]
    hashes = [
        send(inbox, png(number), int(LABELS[number]), confidence=0.1 + 0.1 * place)
        for place, number in enumerate(numbers)
    ]
    held_back = send(inbox, png(0), int(LABELS[0]), confidence=0.9)
    (inbox / "3").mkdir(exist_ok=True)
    (inbox / "3/<b>.json").write_text("<script>alert(1)</script>")
    with running(inbox) as url:
        begin(blank, url, hashes, numbers)
    with running(inbox) as url:  # closed and opened again
        end(blank, url, held_back)
    entry = params.load().data.handwriting[-1]
    read = handwriting.read(Path(entry.path))
    assert (entry.name, entry.sha256) == ("feedback", read.sha256)
    assert sorted(read.writers) == sorted([*hashes[:2], *hashes[4:7]])
    assert [file.name for file in inbox.rglob("*") if file.is_file()] == ["<b>.json"]


def begin(page, url, hashes, numbers):
    """Decide about all but the last two corrections."""
    options = page.get_by_role("option")
    selected = page.locator("[aria-selected=true]")
    counts = page.locator("#counts")
    page.goto(url)
    expect(options).to_have_count(8)
    expect(counts).to_have_text("8 waiting, 0 accepted, 0 rejected")
    first = options.first
    expect(first.locator(".label")).to_have_text(str(LABELS[numbers[0]]))
    expect(first.locator(".answer")).to_have_text(f"{(LABELS[numbers[0]] + 1) % 10} 10.0%")
    widths = "images => images.map((image) => image.complete && image.naturalWidth)"
    wait_for_images(page)
    assert first.locator("img").evaluate_all(widths) == [28, 28]
    page.get_by_text("1 skipped").click()
    expect(page.locator("#problems li")).to_contain_text("'3/<b>.json' has no valid facts")
    expect(options.last.locator(".note")).to_contain_text("it cannot be accepted")

    # One at a time: accept, accept with another label, reject, undo.
    page.locator("#corrections").focus()
    page.keyboard.press("a")
    expect(counts).to_have_text("7 waiting, 1 accepted, 0 rejected")
    page.keyboard.press("6")
    expect(counts).to_have_text("6 waiting, 2 accepted, 0 rejected")
    assert (label_of(hashes[0]), label_of(hashes[1])) == (LABELS[numbers[0]], 6)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    expect(counts).to_have_text("5 waiting, 2 accepted, 1 rejected")
    expect(page.locator(f"[id='{hashes[3]}']")).to_have_count(0)
    page.keyboard.press("u")
    expect(counts).to_have_text("6 waiting, 2 accepted, 0 rejected")
    expect(selected).to_have_attribute("id", hashes[3])

    # A range, with the keys and with the mouse.
    page.keyboard.press("Shift+ArrowLeft")
    expect(selected).to_have_count(2)
    page.keyboard.press("r")
    expect(counts).to_have_text("4 waiting, 2 accepted, 2 rejected")
    options.nth(0).click()
    options.nth(1).click(modifiers=["Shift"])
    expect(selected).to_have_count(2)
    page.get_by_role("button", name="Accept").click()
    expect(counts).to_have_text("2 waiting, 4 accepted, 2 rejected")

    page.reload()
    expect(options).to_have_count(2)
    wait_for_images(page)


def end(page, url, held_back):
    """Decide about the last two corrections, of which one cannot be accepted, and finish."""
    options = page.get_by_role("option")
    selected = page.locator("[aria-selected=true]")
    counts = page.locator("#counts")
    page.goto(url)
    expect(counts).to_have_text("2 waiting, 4 accepted, 2 rejected")
    wait_for_images(page)
    page.keyboard.press("Control+a")
    expect(selected).to_have_count(2)
    page.keyboard.press("a")
    expect(page.get_by_role("alert")).to_have_text("A digit of a test set cannot be accepted.")
    expect(options).to_have_attribute("id", held_back)
    page.keyboard.press("Delete")
    expect(page.get_by_text("No correction waits.")).to_be_visible()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_text("Run `dvc repro` to train with them.")).to_be_visible()


def test_other_pages_can_neither_read_nor_change_a_review(project, inbox):
    sha256 = send(inbox, png(SEMEION.stop), 3)
    with running(inbox) as url:
        host = url.removeprefix("http://")
        rebound = {"Host": f"attacker.example:{host.partition(':')[2]}"}
        assert requests.get(f"{url}/state", headers=rebound, timeout=60).status_code == 403
        body = {"hashes": [sha256]}
        for headers in (
            {},
            {"Origin": "http://attacker.example"},
            {"Origin": "null"},
            {**rebound, "Origin": f"http://{rebound['Host']}"},
        ):
            answer = requests.post(f"{url}/accept", json=body, headers=headers, timeout=60)
            assert answer.status_code == 403, headers
        assert source.load() == {}
        for path in ("/", "/review.js", "/state", f"/picture/{sha256}", "/nothing"):
            sent = requests.get(f"{url}{path}", timeout=60).headers
            assert sent["Content-Security-Policy"].startswith("default-src 'none'; ")
            assert sent["X-Content-Type-Options"] == "nosniff"
            assert sent["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_picture_is_sent_as_a_new_and_small_png_file(project, inbox, tmp_path):
    picture = Image.new("RGB", (900, 600), "white")
    picture.paste("black", (400, 100, 450, 500))
    picture.save(tmp_path / "one.jpg", comment=b"<script>alert(1)</script>")
    sha256 = send(inbox, (tmp_path / "one.jpg").read_bytes(), 1, "jpg")
    with running(inbox) as url:
        answer = requests.get(f"{url}/picture/{sha256}", timeout=60)
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")
        assert b"script" not in answer.content
        (tmp_path / "shown.png").write_bytes(answer.content)
        with Image.open(tmp_path / "shown.png") as shown:
            assert shown.size == (320, 213)
        (inbox / f"1/{sha256}.jpg").unlink()
        gone = requests.get(f"{url}/picture/{sha256}", timeout=60)
        assert (gone.status_code, "cannot be read" in gone.json()["error"]) == (404, True)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/accept", b"{", 400),
        ("/accept", b'{"hashes": [1]}', 400),
        ("/accept", b'{"label": 10}', 400),
        ("/accept", b'{"more": 1}', 400),
        ("/accept", b" " * 70_000, 413),
        ("/nothing", b"{}", 404),
    ],
)
def test_a_wrong_request_is_refused(project, inbox, path, body, status):
    with running(inbox) as url:
        answer = post(url, path, body)
        assert answer.status_code == status
        assert answer.json()["error"]


def test_a_review_that_cannot_be_finished_goes_on(project, inbox):
    sha256 = send(inbox, png(SEMEION.stop), 3)
    with running(inbox) as url:
        post(url, "/accept", json.dumps({"hashes": [sha256]})).raise_for_status()
        text = (project / "params.yaml").read_text()
        (project / "params.yaml").write_text("data: {}")
        answer = post(url, "/finish", "{}")
        assert (answer.status_code, "params.yaml" in answer.json()["error"]) == (409, True)
        (project / "params.yaml").write_text(text)
        assert "1 pictures are accepted" in post(url, "/finish", "{}").json()["summary"]
