"""The page at `GET /`, in a real browser: Chromium, driven by Playwright.

Skipped where there is no Chromium, but not in CI.
"""

import base64
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from service.api import ui as served
from tests.conftest import PROJECT, Server, program, running_server

SAMPLES = sorted((PROJECT / "service/api/static/samples").glob("*.png"))
ANSWER = re.compile(
    r"^(This is an? \d, \d\d\s% sure|Not sure: perhaps an? \d \(\d+\s% sure\), or .*)$"
)
REFUSED = "Failed to load resource"  # what the console says of every answer from 400 on

Point = tuple[float, float]  # of the unit square, y downwards
Strokes = list[list[Point]]


def arc(x: float, y: float, width: float, height: float, start: int, end: int) -> list[Point]:
    """Points on an ellipse. Degrees: 0 is to the right, 90 is down."""
    step = 15 if end > start else -15
    turns = [math.radians(degrees) for degrees in range(start, end + step, step)]
    return [(x + width * math.cos(turn), y + height * math.sin(turn)) for turn in turns]


expect.set_options(timeout=30_000)  # milliseconds; a browser starves beside a training

DIGITS: list[Strokes] = [
    [arc(0.5, 0.5, 0.21, 0.34, -90, -450)],
    [[(0.52, 0.16), (0.5, 0.5), (0.48, 0.84)]],
    [[*arc(0.5, 0.34, 0.2, 0.18, -160, 30), (0.5, 0.62), (0.29, 0.83), (0.5, 0.83), (0.75, 0.83)]],
    [[*arc(0.48, 0.33, 0.19, 0.17, -150, 90), *arc(0.48, 0.67, 0.22, 0.18, -90, 150)]],
    [[(0.36, 0.16), (0.3, 0.52), (0.5, 0.52), (0.74, 0.52)], [(0.66, 0.16), (0.64, 0.84)]],
    [
        [(0.36, 0.17), (0.34, 0.46), *arc(0.47, 0.63, 0.23, 0.21, -120, 150)],
        [(0.36, 0.17), (0.71, 0.16)],
    ],
    [[(0.6, 0.15), (0.44, 0.3), (0.34, 0.5), *arc(0.5, 0.66, 0.18, 0.18, 180, -180)]],
    [[(0.27, 0.18), (0.5, 0.18), (0.73, 0.18), (0.6, 0.45), (0.46, 0.84)]],
    [[*arc(0.5, 0.33, 0.17, 0.17, 90, 450), *arc(0.5, 0.67, 0.19, 0.17, -90, 270)]],
    [[*arc(0.5, 0.34, 0.19, 0.18, 0, -360), (0.67, 0.55), (0.6, 0.85)]],
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = program("chromium", "chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complains of, such as a breach of the page's policy."""
    return []


@pytest.fixture
def blank(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """An empty tab of a browser that must have nothing to complain of in the end."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        tab = context.new_page()
        tab.on(
            "console",
            lambda said: (
                complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        yield tab
        assert complaints == []


@pytest.fixture
def page(blank: Page, server: Server) -> Page:
    """The page of the service, opened."""
    blank.goto(server.url)
    return blank


def draw(page: Page, strokes: Strokes) -> None:
    pad = page.locator("#ink")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    places = [[(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in line]
              for line in strokes]  # fmt: skip
    for line in places:
        page.mouse.move(*line[0])
        page.mouse.down()
        for place in line[1:]:
            page.mouse.move(*place, steps=2)
        page.mouse.up()


def clear(page: Page) -> None:
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("status")).to_have_text("")


def recognized(server: Server, file: Path) -> tuple[int, int]:
    """What the service itself answers for a file: the label, and the percent rounded down."""
    with file.open("rb") as content:
        answer = requests.post(
            f"{server.url}/recognize?probabilities=true", files={"image": content}, timeout=30
        ).json()
    return answer["labels"][0], int(max(answer["probabilities"][0]) * 100)


def expect_answer(page: Page, server: Server, file: Path) -> None:
    label, percent = recognized(server, file)
    words = rf"an? {label}\b.* {min(percent, 99)}\s% sure"
    expect(page.get_by_role("status")).to_have_text(re.compile(words))
    expect(page.locator("#digit")).to_have_text(str(label))
    expect(page.locator("tr.best th")).to_have_text(str(label))


def give(page: Page, how: str, file: Path, kind: str) -> None:
    """Drop a file on the page, or paste one."""
    page.evaluate(
        """([how, name, kind, content]) => {
            const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type: kind }));
            const options = { bubbles: true, cancelable: true };
            const event = how === "drop"
                ? new DragEvent("drop", { dataTransfer: data, ...options })
                : new ClipboardEvent("paste", { clipboardData: data, ...options });
            document.getElementById("pad").dispatchEvent(event);
        }""",
        [how, file.name, kind, base64.b64encode(file.read_bytes()).decode()],
    )


def ink(page: Page) -> int:
    """How many pixels of the pad are drawn on."""
    return page.evaluate(
        """() => {
            const canvas = document.getElementById("ink");
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, width, height);
            return data.filter((value, place) => place % 4 === 3 && value > 0).length;
        }"""
    )


@pytest.mark.pipeline
@pytest.mark.skipif(
    not (PROJECT / "data/model").exists(),
    reason="there is no model yet: `make repro` makes it",
)
def test_each_digit_that_is_drawn_is_recognized(blank):
    with running_server(PROJECT, "--workers=1") as server:
        blank.goto(server.url)
        for digit, strokes in enumerate(DIGITS):
            draw(blank, strokes)
            words = re.compile(rf"^This is an? {digit}, \d\d\s% sure$")
            expect(blank.get_by_role("status")).to_have_text(words)
            clear(blank)


def test_a_drawing_is_answered_while_it_is_drawn(page):
    draw(page, DIGITS[7])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    page.mouse.move(300, 300)
    page.mouse.down()
    for step in range(10):  # the button is never let go
        page.mouse.move(300 + 4 * step, 300 + 4 * step)
    first = page.locator("#rows").inner_text()
    page.mouse.move(400, 500, steps=20)
    expect(page.locator("#rows")).not_to_have_text(first, use_inner_text=True)
    page.mouse.up()


def test_the_probabilities_are_a_table_that_adds_up(page):
    draw(page, DIGITS[3])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    table = page.get_by_role("table", name="How probable each digit is")
    texts = table.locator("tbody td:last-child").all_inner_texts()
    assert sum(float(text.removesuffix("%")) for text in texts) == pytest.approx(100, abs=1.1)
    assert table.get_by_role("rowheader").all_inner_texts() == [str(digit) for digit in range(10)]


def test_the_image_that_the_network_sees_is_shown(page, server):
    file = SAMPLES[0]
    page.locator("#file").set_input_files(file)
    expect_answer(page, server, file)
    shown = page.evaluate(
        """() => [...document.getElementById("preprocessed").getContext("2d")
            .getImageData(0, 0, 28, 28).data].filter((_, place) => place % 4 === 0)"""
    )
    with file.open("rb") as content:
        url = f"{server.url}/recognize?preprocessed=true"
        answer = requests.post(url, files={"image": content}, timeout=30).json()
    assert shown == [grey for row in answer["preprocessed"][0] for grey in row]


def test_the_version_is_shown_short_and_can_be_had_whole(page, version):
    shown = page.locator("#version")
    expect(shown).to_have_attribute("title", version)
    expect(shown).to_have_text(version)
    assert shown.evaluate("element => element.scrollWidth > element.clientWidth")


def test_nothing_is_sent_of_an_empty_pad(page):
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    draw(page, DIGITS[1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    sent.clear()
    clear(page)
    page.reload(wait_until="networkidle")
    assert not any("recognize" in url for url in sent)


def test_one_request_is_in_flight_at_a_time_and_no_old_answer_is_shown(page):
    held: list[Route] = []

    def hold(route):
        held.append(route)

    page.route("**/recognize*", hold)
    with page.expect_request("**/recognize*"):
        draw(page, DIGITS[0])
    draw(page, DIGITS[1])
    assert len(held) == 1
    with page.expect_request("**/recognize*"):
        held[0].continue_()
    expect(page.locator("#sentence")).to_have_text("Nothing drawn yet")  # nor the old answer
    assert len(held) == 2
    page.keyboard.press("Escape")
    draw(page, DIGITS[2])
    with page.expect_request("**/recognize*"):
        held[1].continue_()
    expect(page.locator("#sentence")).to_have_text("Nothing drawn yet")
    assert len(held) == 3
    held[2].continue_()
    expect(page.get_by_role("status")).to_have_text(ANSWER)


@pytest.mark.parametrize("sure", [0.79, 0.8])
def test_doubt_is_said_in_words(page, sure):
    row = [0, 1 - sure, 0, 0, 0, 0, 0, 0, sure, 0]
    answer = {"labels": [8], "probabilities": [row], "preprocessed": [[[0] * 28] * 28]}
    page.route("**/recognize*", lambda route: route.fulfill(json=answer))
    draw(page, DIGITS[8])
    words = (
        "This is an 8, 80 % sure" if sure == 0.8 else "Not sure: perhaps an 8 (79 % sure), or a 1"
    )
    expect(page.get_by_role("status")).to_have_text(words)
    expect(page.locator("#sentence")).to_have_text(words)


def test_a_file_is_uploaded(page, server):
    for file in (SAMPLES[2], SAMPLES[2], SAMPLES[5]):
        page.get_by_label("Upload a picture").set_input_files(file)
        expect_answer(page, server, file)
        expect(page.get_by_role("img", name=f"The picture {file.name}")).to_be_visible()
        clear(page)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_file_is_dropped_and_pasted(page, server, how):
    give(page, how, SAMPLES[7], "image/png")
    expect_answer(page, server, SAMPLES[7])


def test_a_picture_is_pasted_from_the_clipboard(page, server):
    page.evaluate(
        """async (name) => {
            const picture = await (await fetch(`static/samples/${name}`)).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        SAMPLES[7].name,
    )
    page.keyboard.press("Control+V")
    expect_answer(page, server, SAMPLES[7])


@pytest.mark.parametrize(
    ("how", "words"), [("drop", "That was no picture file."), ("paste", "There is no picture in")]
)
def test_what_is_no_file_is_said_to_be_none(page, how, words):
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
    expect(page.get_by_role("status")).to_contain_text(words)


def test_the_samples_are_test_images_of_every_digit(page):
    assert sorted(file.name[0] for file in SAMPLES) == sorted("0123456789" * 2)
    for radio in page.get_by_role("radio").all():
        digit, number = Path(radio.get_attribute("value")).stem.split("-")
        article = "An" if digit == "8" else "A"
        expect(radio).to_have_accessible_name(f"{article} {digit}, test image {number}")
    assert page.get_by_role("radio").count() == 20


def test_samples_are_stepped_through(page, server):
    first = page.get_by_role("radio").first
    first.check()
    values = [radio.get_attribute("value") for radio in page.get_by_role("radio").all()]
    for value in values[:5]:
        expect_answer(page, server, SAMPLES[0].with_name(value))
        page.keyboard.press("ArrowRight")
    draw(page, DIGITS[1])
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)


def test_a_tap_leaves_a_dot(page):
    draw(page, [[(0.5, 0.5)]])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert ink(page) == pytest.approx(3.1416 * 33**2, rel=0.05)


def test_undo_takes_back_strokes_pictures_and_clearing(page, server):
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_disabled()
    draw(page, DIGITS[4][:1])
    one = ink(page)
    draw(page, DIGITS[4][1:])
    two = ink(page)
    assert two > one > 0
    page.keyboard.press("Escape")
    assert ink(page) == 0
    undo.click()
    assert ink(page) == two
    page.locator("#file").set_input_files(SAMPLES[3])
    expect_answer(page, server, SAMPLES[3])
    assert ink(page) == 0
    page.keyboard.press("Control+z")
    assert ink(page) == two
    page.keyboard.press("Meta+z")
    assert ink(page) == one
    undo.click()
    assert ink(page) == 0
    expect(undo).to_be_disabled()
    expect(page.get_by_role("status")).to_have_text("")


def test_all_of_it_can_be_done_by_keyboard(page, server):
    # The browser must know well before that a test picks the file: it is told without an answer.
    page.on("filechooser", lambda _: None)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Upload a picture")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(SAMPLES[9])
    expect_answer(page, server, SAMPLES[9])
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    first = page.get_by_role("radio").first
    expect(first).to_be_focused()
    expect_answer(page, server, SAMPLES[0].with_name(first.get_attribute("value")))
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Clear")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("")


def test_focus_is_always_visible(page):
    draw(page, DIGITS[1])
    for _ in range(5):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => [document.activeElement, document.activeElement.nextElementSibling]
                .some((each) => each && getComputedStyle(each).outlineStyle === "solid")"""
        )
        assert seen, page.evaluate("document.activeElement.outerHTML")


def test_what_the_service_says_of_a_bad_file_is_shown(page, tmp_path, complaints):
    text = tmp_path / "seven.txt"
    text.write_text("7")
    page.locator("#file").set_input_files(text)
    words = "The file is not an image; send one of PNG, JPEG, BMP, GIF, WEBP."
    expect(page.get_by_role("status")).to_have_text(words)
    expect(page.locator("#sentence")).to_be_visible()
    expect(page.locator("#sentence")).to_have_text(words)
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    draw(page, DIGITS[0])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert all(REFUSED in text for text in complaints)
    complaints.clear()


def test_a_file_over_the_limit_is_said_to_be_too_large(page, tmp_path, complaints):
    file = tmp_path / "large.png"
    file.write_bytes(bytes(17 << 20))
    page.locator("#file").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("too large")
    assert all(REFUSED in text for text in complaints)
    complaints.clear()


def test_a_service_that_is_gone_is_said_so_and_can_be_tried_again(
    blank, server, repository, complaints
):
    with running_server(repository.path, "--workers=1") as mortal:
        blank.goto(mortal.url)
        draw(blank, DIGITS[0])
        expect(blank.get_by_role("status")).to_have_text(ANSWER)
    draw(blank, DIGITS[1])
    expect(blank.get_by_role("status")).to_have_text("The service does not answer.")
    assert ink(blank) > 0
    blank.route("**/recognize*", lambda route: route.continue_(url=_moved(route, server)))
    blank.get_by_role("button", name="Try again").click()
    expect(blank.get_by_role("status")).to_have_text(ANSWER)
    assert all(REFUSED in text for text in complaints)
    complaints.clear()


def _moved(route: Route, server: Server) -> str:
    return f"{server.url}/{route.request.url.rpartition('/')[2]}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    draw(page, DIGITS[2])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator("#ink").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert box["width"] == pytest.approx(box["height"], abs=1)


def luminance(color: str) -> float:
    """Of a colour as computed styles have it; WCAG 2.2 defines the formula."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["sure", "unsure", "error"])
def test_text_has_the_contrast_of_wcag_aa(page, scheme, state):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("state => (document.body.dataset.state = state)", state)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for place in (
        "h1",
        "header p",
        "#hint",
        "#sentence",
        "tbody th",
        "tbody td",
        "figcaption",
        "a",
    ):
        color = page.locator(place).first.evaluate("element => getComputedStyle(element).color")
        dark, light = sorted([luminance(color), luminance(paper)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, place


def test_a_finger_draws_and_does_not_scroll(browser, server):
    phone = {"width": 390, "height": 844}
    with browser.new_context(has_touch=True, is_mobile=True, viewport=phone) as context:
        page = context.new_page()
        page.goto(server.url)
        box = page.locator("#ink").bounding_box()
        line = [(box["x"] + 180, box["y"] + y) for y in range(60, 300, 20)]
        hand = context.new_cdp_session(page)
        for kind, (x, y) in zip(
            ["touchStart", *["touchMove"] * (len(line) - 1)], line, strict=True
        ):
            hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(page.get_by_role("status")).to_have_text(ANSWER)
        assert page.evaluate("scrollY") == 0
        assert ink(page) > 840 * 240 / 358 * 66 * 0.8  # a line of that length, 66 pixels wide


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/static/samples/7-0.png", "/static/no"])
def test_the_page_and_its_files_are_protected(client, path):
    answer = client.get(path)
    assert answer.status_code == (404 if path.endswith("no") else 200)
    assert answer.headers["Content-Security-Policy"] == served.POLICY


def test_nothing_comes_from_another_host(blank, server):
    asked = []
    blank.on("request", lambda request: asked.append(request.url))
    blank.goto(server.url, wait_until="networkidle")
    assert len(asked) > 20
    assert all(url.startswith(server.url) for url in asked)
