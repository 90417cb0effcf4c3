"""The page at `GET /`: its answers, pictures and keys, and what it loads."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, Route, expect

from service.api import ui
from tests.api.pad import (
    ANSWER,
    DIGITS,
    REJECTED,
    SAMPLES,
    clear,
    draw,
    draw_at_once,
    expect_answer,
    ink,
    number,
    reading,
    requests_of,
    transfer,
    wait_for_scripts,
)
from tests.conftest import client_of_server


def test_the_result_changes_during_a_stroke_and_its_probabilities_add_up(page):
    draw_at_once(page, DIGITS[3])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    table = page.get_by_role("table", name="Probability of each digit")
    texts = table.locator("tbody td:last-child").all_inner_texts()
    assert sum(float(text.removesuffix("%")) for text in texts) == pytest.approx(100, abs=1.1)
    assert table.get_by_role("rowheader").all_inner_texts() == [str(digit) for digit in range(10)]
    first = page.locator("#rows").inner_text()
    box = page.locator("#ink").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 300, steps=20)  # the mouse button stays down
    expect(page.locator("#rows")).not_to_have_text(first, use_inner_text=True)
    page.mouse.up()


def test_the_page_shows_the_preprocessed_image(page, server):
    file = SAMPLES[0]
    page.locator("#file").set_input_files(file)
    expect_answer(page, server, file)
    shown = page.evaluate(
        """() => [...document.querySelector("#images canvas").getContext("2d")
            .getImageData(0, 0, 28, 28).data].filter((_, index) => index % 4 === 0)"""
    )
    with file.open("rb") as content:
        url = f"{server.url}/recognize?preprocessed=true"
        answer = requests.post(url, files={"image": content}, timeout=30).json()
    assert shown == [gray for row in answer["preprocessed"][0] for gray in row]


def test_the_page_shows_where_the_network_looked(page, server):
    file = SAMPLES[4]
    page.locator("#file").set_input_files(file)
    expect_answer(page, server, file)
    why, overlay = page.get_by_role("button", name="Why?"), page.locator("#images .why")
    why.click()
    expect(overlay).to_have_count(1)
    opacity = overlay.evaluate(
        """canvas => [...canvas.getContext("2d").getImageData(0, 0, 28, 28).data]
            .filter((_, index) => index % 4 === 3)"""
    )
    with file.open("rb") as content:
        answer = requests.post(
            f"{server.url}/recognize?why=true", files={"image": content}, timeout=30
        ).json()
    values = [value for row in answer["why"][0] for value in row]
    assert max(values) > 0
    assert [each > 0 for each in opacity] == [
        210 * value / max(*values, 0.02) > 0.5 for value in values
    ]
    why.click()
    expect(overlay).to_have_count(0)
    draw_at_once(page, number("10"))
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    why.click()
    expect(overlay).to_have_count(2)


def test_the_hashes_of_the_model_are_truncated_and_their_titles_are_complete(page, version, sha256):
    for name, value in (("version", version), ("sha256", sha256)):
        shown = page.locator(f"#{name}")
        expect(shown).to_have_attribute("title", value)
        expect(shown).to_have_text(value)
        assert shown.evaluate("element => element.scrollWidth > element.clientWidth")
    expect(page.get_by_role("link", name="About the model")).to_have_attribute("href", "model/")


def test_a_page_of_a_model_without_a_manifest_says_that_no_sha256_is_pinned(blank, server, version):
    answer = {"status": "ok", "version": version, "sha256": ""}
    blank.route("**/healthz", lambda route: route.fulfill(json=answer))
    blank.goto(server.url)
    expect(blank.locator("#model")).to_have_text(f"Model {version}, SHA-256 not pinned")


CASES = [
    ({8: 0.9, 1: 0.1}, "8", "Looks like an 8, 90% sure"),
    ({8: 0.89, 1: 0.11}, "8", "Could be an 8 (89%) or a 1 (11%)"),
    ({7: 0.51, 1: 0.45}, "7", "Could be a 7 (51%) or a 1 (45%)"),
    ({1: 0.5, 7: 0.5}, "1", "Could be a 1 (50%) or a 7 (50%)"),
    ({7: 0.48, 1: 0.46}, "7", "Could be a 7 (48%) or a 1 (46%)"),
    ({7: 0.49, 1: 0.31}, "?", "Probably not a digit"),
    ({}, "?", "Probably not a digit"),
]


def answer_of(*probabilities):
    """Return an answer. The other labels share the rest of the probability of each digit."""
    rows = [
        [each.get(label, (1 - sum(each.values())) / (10 - len(each))) for label in range(10)]
        for each in probabilities
    ]
    labels = [row.index(max(row)) for row in rows]
    images = [[[0] * 28] * 28] * len(rows)
    boxes = [[20, 20, 40, 100]] * len(rows)
    return {"labels": labels, "probabilities": rows, "preprocessed": images, "boxes": boxes}


def test_the_words_say_how_sure_the_network_is(page):
    answers = [(answer_of(each), digit, words) for each, digit, words in CASES]
    answers += [
        (answer_of({1: 0.99}, {8: 0.99}), "18", "Looks like 18, 98% sure"),
        (answer_of({1: 1.0}, {7: 0.6, 1: 0.4}), "17", "Could be 17 (60%) or 11 (40%)"),
        (answer_of({1: 1.0}, {}), "1?", "Looks like 1?, where “?” is probably not a digit"),
        (answer_of({}, {}), "??", "Probably not a number"),
    ]
    served: list[dict[str, Any]] = []
    page.route("**/recognize*", lambda route: route.fulfill(json=served[-1]))
    for answer, digits, words in answers:
        served.append(answer)
        draw_at_once(page, DIGITS[8])
        expect(page.get_by_role("status")).to_have_text(words)
        expect(page.locator("#sentence")).to_have_text(words)
        expect(reading(page)).to_have_attribute("data-written", digits)
        state = "sure" if words.endswith("sure") else "unsure"
        expect(page.locator("body")).to_have_attribute("data-state", state)
        clear(page)


def test_a_picture_is_recognized_from_a_file_a_drop_and_the_clipboard(page, server):
    for file in (SAMPLES[2], SAMPLES[2], SAMPLES[5]):
        page.get_by_label("Upload a picture").set_input_files(file)
        expect_answer(page, server, file)
        expect(page.get_by_role("img", name=file.name)).to_be_visible()
        clear(page)
    for how, file in (("drop", SAMPLES[7]), ("paste", SAMPLES[9])):
        transfer(page, how, file, "image/png")
        expect_answer(page, server, file)
    page.evaluate(
        """async (name) => {
            const picture = await (await fetch(`static/samples/${name}`)).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        SAMPLES[11].name,
    )
    page.keyboard.press("Control+V")
    expect_answer(page, server, SAMPLES[11])


def test_the_samples_are_test_images_of_every_digit(page, server):
    assert sorted(file.name[0] for file in SAMPLES) == sorted("0123456789" * 2)
    for radio in page.get_by_role("radio").all():
        digit, number = Path(radio.get_attribute("value")).stem.split("-")
        article = "An" if digit == "8" else "A"
        expect(radio).to_have_accessible_name(f"{article} {digit}, test image {number}")
    assert page.get_by_role("radio").count() == 20
    page.get_by_role("radio").first.check()
    values = [radio.get_attribute("value") for radio in page.get_by_role("radio").all()]
    for value in values[:4]:
        expect_answer(page, server, SAMPLES[0].with_name(value))
        page.keyboard.press("ArrowRight")
    draw_at_once(page, DIGITS[1])
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)


def test_a_sample_that_cannot_be_loaded_is_reported_in_one_sentence(page, browser_errors):
    draw_at_once(page, DIGITS[1])
    drawn = ink(page)
    page.route("**/static/samples/*", lambda route: route.abort())
    page.locator("#samples label").nth(4).click()
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("alert")).to_have_text("This test image cannot be loaded.")
    expect(page.locator("#samples :checked")).to_have_count(0)
    assert ink(page) == drawn
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


def test_undo_and_redo_step_through_strokes_pictures_and_clearing(page, server):
    sent = requests_of(page)
    undo = page.get_by_role("button", name="Undo")
    redo = page.get_by_role("button", name="Redo")
    expect(undo).to_be_disabled()
    draw_at_once(page, DIGITS[4][:1])
    one = ink(page)
    draw_at_once(page, DIGITS[4][1:])
    two = ink(page)
    assert two > one > 0
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")  # for both strokes
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    page.keyboard.press("Escape")
    assert ink(page) == 0
    undo.click()
    assert ink(page) == two
    page.locator("#file").set_input_files(SAMPLES[3])
    expect_answer(page, server, SAMPLES[3])
    assert ink(page) == 0
    answered = len(sent)
    page.keyboard.press("Control+z")
    assert ink(page) == two
    expect(redo).to_be_enabled()
    page.keyboard.press("Control+y")
    expect_answer(page, server, SAMPLES[3])
    page.keyboard.press("Meta+z")
    assert len(sent) == answered  # undo and redo show the answers that are known
    page.keyboard.press("Control+z")
    assert ink(page) == one
    page.keyboard.press("Control+Shift+Z")
    assert ink(page) == two
    draw_at_once(page, DIGITS[1])
    expect(redo).to_be_disabled()


def test_the_eraser_removes_what_it_touches(page):
    draw_at_once(page, [[(0.2, 0.5), (0.8, 0.5)], [(0.5, 0.2), (0.5, 0.3)]])
    whole = ink(page)
    eraser = page.get_by_role("button", name="Eraser")
    eraser.click()
    expect(eraser).to_have_attribute("aria-pressed", "true")
    draw_at_once(page, [[(0.45, 0.5), (0.55, 0.5)]])
    assert 0.5 * whole < ink(page) < 0.95 * whole
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    eraser.click()
    page.keyboard.press("Control+z")
    assert ink(page) == whole
    eraser.click()
    for y in (0.2, 0.25, 0.3, 0.5):
        draw_at_once(page, [[(0, y), (1, y)]])
    assert ink(page) == 0
    expect(page.get_by_role("status")).to_have_text("")


def test_an_eraser_that_touches_nothing_changes_nothing(page):
    draw_at_once(page, DIGITS[1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    drawn, sent = ink(page), requests_of(page)
    eraser = page.get_by_role("button", name="Eraser")
    eraser.click()
    draw_at_once(page, [[(0.1, 0.1), (0.1, 0.9)]])
    assert ink(page) == drawn
    assert sent == []
    draw_at_once(page, [[(0.5, 0.1), (0.5, 0.9)]])
    assert ink(page) == 0
    expect(eraser).to_have_attribute("aria-pressed", "false")  # the next stroke draws
    draw_at_once(page, DIGITS[7])
    assert ink(page) > 0


def test_every_control_works_with_the_keyboard_and_shows_the_focus(page, server):
    # As of version 1.65, Playwright does not wait until the browser intercepts file choosers. This
    # listener starts the interception long before the test opens the file chooser.
    page.on("filechooser", lambda _: None)
    draw(page, DIGITS[1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    for name in ("Undo", "Redo", "Eraser", "Clear", "Link and code"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid"
    page.keyboard.press("Tab")
    expect(page.get_by_label("Upload a picture")).to_be_focused()
    assert page.evaluate(
        "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    ) == "solid"  # fmt: skip
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(SAMPLES[9])
    expect_answer(page, server, SAMPLES[9])
    page.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    first = page.get_by_role("radio").first.get_attribute("value")
    expect_answer(page, server, SAMPLES[0].with_name(first))
    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("")
    # A button that can do nothing more keeps the focus.
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Clear")).to_be_focused()


@pytest.mark.parametrize(
    "path",
    ["/", "/static/page.js", "/static/languages/en.js", "/static/samples/7-0.png", "/static/no"],
)
def test_the_page_and_its_files_have_the_security_policy(client, path):
    answer = client.get(path)
    assert answer.status_code == (404 if path.endswith("no") else 200)
    assert answer.headers["Content-Security-Policy"] == ui.POLICY


def test_the_page_loads_no_resource_from_another_host_and_sends_nothing_when_blank(blank, server):
    urls = []
    blank.on("request", lambda request: urls.append(request.url))
    blank.goto(server.url, wait_until="networkidle")
    assert len(urls) > 20
    assert all(url.startswith(server.url) for url in urls)
    assert not any("recognize?" in url for url in urls)
    assert not any("/languages/" in url and not url.endswith("en.js") for url in urls)


def luminance(color: str) -> float:
    """Return the relative luminance of a computed color, as WCAG 2.2 defines it."""
    channels = [int(channel) / 255 for channel in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_edges_have_the_contrast_of_wcag_aa(page, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    texts = ["h1", "header p", "#hint", "#sentence", "tbody th", "tbody td", "figcaption", "a"]

    def color(selector, name):
        return page.locator(selector).first.evaluate(
            "(element, name) => getComputedStyle(element)[name]", name
        )

    background = color("body", "backgroundColor")
    sheet = color("#pad", "backgroundColor")
    for state in ("blank", "pending", "sure", "unsure", "error"):
        page.evaluate("state => (document.body.dataset.state = state)", state)
        for selector in texts:
            assert contrast(color(selector, "color"), background) >= 4.5, (state, selector)
    assert contrast(color("#pad", "borderTopColor"), background) >= 3
    assert contrast(color("#images canvas", "outlineColor"), background) >= 3
    assert contrast(color("#upload > span", "borderTopColor"), background) >= 3
    assert contrast(color("#ink", "color"), sheet) >= 4.5
    assert color("#picture", "backgroundColor") == "rgb(255, 255, 255)"  # of a transparent picture


def test_an_invalid_file_is_refused_in_one_sentence_and_the_drawing_stays(
    page, tmp_path, browser_errors
):
    """Neither text, nor a vector graphic, nor a blank picture replaces the drawing."""
    draw_at_once(page, DIGITS[0])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    drawn, answer = ink(page), page.get_by_role("status").inner_text()
    notice = page.get_by_role("alert")
    text, vector, white = (tmp_path / f"seven.{kind}" for kind in ("txt", "svg", "bmp"))
    text.write_text("7")
    vector.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    white.write_bytes(
        b"BM" + (54 + 27 * 32).to_bytes(4, "little") + bytes(4) + b"\x36\0\0\0\x28\0\0\0"
        b"\x09\0\0\0\x20\0\0\0\x01\0\x18\0" + bytes(24) + b"\xff" * (28 * 32)
    )
    no_picture = "The page cannot use this file. Use PNG, JPEG, BMP, GIF or WebP."
    for turn, (file, words) in enumerate(
        [
            (text, no_picture),
            (vector, no_picture),
            (white, "There is no digit in this picture."),
        ]
    ):
        page.locator("#file").set_input_files(file)
        expect(notice).to_have_text(words)
        expect(notice).to_be_visible()
        if turn % 2:
            page.keyboard.press("Escape")
        else:
            page.get_by_role("button", name="Clear").click()
        expect(notice).to_be_hidden()
        assert ink(page) == drawn
        expect(page.get_by_role("status")).to_have_text(answer)
    transfer(page, "drop", SAMPLES[0], "image/svg+xml")
    expect(notice).to_have_text(no_picture)
    page.keyboard.press("Control+z")  # leads to the blank pad, not to a bad file
    assert ink(page) == 0
    expect(notice).to_be_hidden()
    for how in ("drop", "paste"):
        page.evaluate(
            """(how) => {
                const data = new DataTransfer();
                data.setData("text/plain", "7");
                const event = how === "drop"
                    ? new DragEvent("drop", { dataTransfer: data })
                    : new ClipboardEvent("paste", { clipboardData: data });
                document.dispatchEvent(event);
            }""",
            how,
        )
        expect(notice).to_have_text("This is not a picture. Choose, drop or paste a picture file.")
        page.keyboard.press("Escape")
        expect(notice).to_be_hidden()
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            for (const name of ["1.png", "2.png"]) data.items.add(new File(["7"], name));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        }"""
    )
    expect(notice).to_have_text("Use one picture at a time.")
    draw_at_once(page, DIGITS[1])
    expect(notice).to_be_hidden()
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


TOKEN = "x" * 64


@pytest.fixture(scope="module")
def collecting(artifact, tmp_path_factory):
    """Yield the URL of a service that collects corrections and requires a token, and its folder."""
    folder = tmp_path_factory.mktemp("collecting")
    (folder / "token").write_text(TOKEN)
    options = [f"--token-file={folder / 'token'}", f"--feedback={folder / 'inbox'}"]
    with client_of_server(artifact, *options) as client:
        yield client.url, folder / "inbox"


def corrections(inbox: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of each correction by the SHA-256 of its picture."""
    return {file.stem: json.loads(file.read_text()) for file in inbox.glob("*/*.json")}


def failure(status: int | None) -> Callable[[Route], None]:
    """Return a handler that answers a request with a status, or ends it without an answer."""
    return lambda route: route.fulfill(status=status) if status else route.abort()


def enter_token(page: Page) -> None:
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.keyboard.press("Enter")


@pytest.mark.server
def test_one_press_sends_the_drawing_that_was_recognized_and_the_right_digit(
    blank, collecting, artifact, browser_errors
):
    url, inbox = collecting
    blank.add_init_script(
        """const { send } = XMLHttpRequest.prototype;
        XMLHttpRequest.prototype.send = function (form) {
            window.sent = form.get("image");
            send.call(this, form);
        };"""
    )
    blank.goto(url)
    offer = blank.get_by_role("region", name="Not right?")
    draw_at_once(blank, DIGITS[1])
    enter_token(blank)
    group = offer.get_by_role("group", name="Not right?")
    expect(group).to_have_accessible_description(re.compile("It keeps nothing unless you press"))
    buttons = group.get_by_role("button").all()
    for digit, button in enumerate(buttons):
        expect(button).to_have_accessible_name(f"It is {'an' if digit == 8 else 'a'} {digit}")
    assert corrections(inbox) == {}

    # With the keyboard. The later label replaces the earlier one.
    blank.get_by_role("button", name="Why?").focus()
    for label, button in enumerate(buttons[:2]):
        blank.keyboard.press("Tab")
        expect(button).to_be_focused()
        blank.keyboard.press("Enter")
        expect(button).to_have_attribute("aria-pressed", "true")
        thanks = f"Thank you. The service keeps this picture as a {label}."
        expect(offer.locator("[aria-live=polite]")).to_have_text(thanks)
        expect(offer.get_by_role("button", pressed=True)).to_have_count(1)
        expect(button).to_be_focused()
    [(sha256, facts)] = corrections(inbox).items()
    shown = int(blank.locator("tr.best th").inner_text())
    assert (facts["label"], facts["answered"]) == (1, shown)
    assert facts["version"] == artifact.version
    sent = blank.evaluate("sent.arrayBuffer().then((bytes) => [...new Uint8Array(bytes)])")
    assert (inbox / f"1/{sha256}.png").read_bytes() == bytes(sent)

    # Neither a number nor a test image can be corrected.
    draw_at_once(blank, number("10"))
    expect(offer).to_be_hidden()
    blank.locator("#samples label").nth(4).click()
    expect(blank.get_by_role("img", name="4-4.png")).to_be_visible()
    expect(blank.locator("#answer")).to_have_attribute("aria-busy", "false")
    expect(offer).to_be_hidden()
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


@pytest.mark.server
def test_an_uploaded_picture_is_kept_as_it_is_and_failures_are_sentences(
    blank, collecting, browser_errors
):
    url, inbox = collecting
    blank.add_init_script(f"sessionStorage.setItem('token', '{TOKEN}')")
    blank.goto(url)
    wait_for_scripts(blank)
    offer = blank.get_by_role("region", name="Not right?")
    seven, eight = (offer.get_by_role("button", name=f" {digit}") for digit in (7, 8))
    blank.locator("#file").set_input_files(SAMPLES[5])
    blank.route("**/feedback", lambda route: route.fulfill(status=401), times=1)
    seven.click()
    enter_token(blank)
    expect(seven).to_have_attribute("aria-pressed", "true")
    sha256 = hashlib.sha256(SAMPLES[5].read_bytes()).hexdigest()
    assert corrections(inbox)[sha256]["label"] == 7
    message = offer.locator("[aria-live=polite]")
    for status, words in [
        (507, "The service did not keep this: it has no room for more corrections."),
        (429, "The service did not keep this: too many corrections came in the last minute."),
        (422, "The service did not keep this: it would now answer otherwise. Draw it again."),
        (500, "The service did not keep this because of an error."),
        (None, "The service did not answer. Press again to try again."),
    ]:
        blank.route("**/feedback", failure(status), times=1)
        eight.click()
        expect(message).to_have_text(words)
        expect(seven).to_have_attribute("aria-pressed", "true")  # what is kept
    eight.click()
    expect(eight).to_have_attribute("aria-pressed", "true")
    assert corrections(inbox)[sha256]["label"] == 8
    for width in (1280, 360):
        blank.set_viewport_size({"width": width, "height": 700})
        assert blank.evaluate("document.documentElement.scrollWidth") == width
        assert min(seven.bounding_box()[side] for side in ("width", "height")) >= 44
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


def test_a_service_without_feedback_offers_no_correction(page):
    draw_at_once(page, DIGITS[1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    expect(page.locator("#feedback")).to_be_hidden()
    expect(page.locator("#feedback button")).to_have_count(0)
