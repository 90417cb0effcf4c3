"""The page at `GET /`, tested in Chromium with Playwright.

Without Chromium, the tests are skipped, or fail in CI.
"""

import base64
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from service.api import ui
from tests.conftest import PROJECT, Server, program, running_server

SAMPLES = sorted((PROJECT / "service/api/static/samples").glob("*.png"))
ANSWER = re.compile(
    r"^(This is an? \d, \d\d\s% sure"
    r"|Not sure: perhaps an? \d \(\d+\s% sure\), or an? \d \(\d+\s% sure\)"
    r"|Probably not a digit, or perhaps an? \d \(\d+\s% sure\))$"
)
REJECTED = "Failed to load resource"  # the console message of every response from 400 on

Point = tuple[float, float]  # x and y in the unit square; y points down
Strokes = list[list[Point]]


def arc(x: float, y: float, width: float, height: float, start: int, end: int) -> list[Point]:
    """Return points on an ellipse. The angles are in degrees: 0 is right, 90 is down."""
    step = 15 if end > start else -15
    angles = [math.radians(degrees) for degrees in range(start, end + step, step)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


expect.set_options(timeout=30_000)  # milliseconds; the browser is slow while a training runs

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

# Other styles: those of several countries' schools, of print, and of haste.
STYLES: dict[str, Strokes] = {
    "0, narrow": [arc(0.5, 0.5, 0.13, 0.35, -90, 270)],
    "0, round": [arc(0.5, 0.5, 0.33, 0.33, -60, 300)],
    "1 with an upstroke": [[(0.37, 0.36), (0.54, 0.16), (0.54, 0.84)]],
    "1 with a long upstroke": [[(0.32, 0.48), (0.57, 0.16), (0.55, 0.85)]],
    "1 with an upstroke and a foot": [
        [(0.38, 0.33), (0.52, 0.16), (0.52, 0.84)],
        [(0.36, 0.84), (0.68, 0.84)],
    ],
    "1, slanted": [[(0.62, 0.15), (0.42, 0.85)]],
    "2 with a loop": [
        [
            *arc(0.5, 0.33, 0.18, 0.17, -160, 45),
            (0.42, 0.74),
            *arc(0.37, 0.75, 0.07, 0.08, 60, 330),
            (0.56, 0.82),
            (0.76, 0.8),
        ]
    ],
    "2 like a z": [[(0.3, 0.2), (0.69, 0.2), (0.29, 0.82), (0.72, 0.82)]],
    "3 with a flat top": [
        [(0.31, 0.17), (0.69, 0.17), (0.48, 0.43), *arc(0.47, 0.64, 0.22, 0.2, -85, 150)]
    ],
    "4, closed": [[(0.63, 0.84), (0.63, 0.16), (0.28, 0.63), (0.78, 0.63)]],
    "4 like a chair": [
        [(0.33, 0.18), (0.33, 0.52), (0.68, 0.52)],
        [(0.68, 0.18), (0.68, 0.85)],
    ],
    "5 in one stroke": [
        [(0.7, 0.17), (0.38, 0.17), (0.35, 0.46), *arc(0.48, 0.63, 0.22, 0.2, -115, 140)]
    ],
    "6, straight": [[(0.63, 0.15), (0.35, 0.6), *arc(0.5, 0.68, 0.16, 0.16, 190, -170)]],
    "6, curled": [
        [*arc(0.57, 0.38, 0.23, 0.24, -50, -180), *arc(0.5, 0.65, 0.17, 0.18, 180, -180)]
    ],
    "7, crossed": [[(0.28, 0.18), (0.72, 0.18), (0.46, 0.84)], [(0.36, 0.5), (0.7, 0.5)]],
    "7 with a serif": [[(0.28, 0.32), (0.28, 0.18), (0.73, 0.18), (0.55, 0.5), (0.47, 0.85)]],
    "7, crossed, with a serif": [
        [(0.28, 0.3), (0.28, 0.18), (0.73, 0.18), (0.48, 0.85)],
        [(0.4, 0.54), (0.7, 0.5)],
    ],
    "8 of two circles": [arc(0.5, 0.32, 0.15, 0.15, 0, 360), arc(0.5, 0.66, 0.19, 0.19, 0, 360)],
    "9, straight": [[*arc(0.5, 0.34, 0.18, 0.18, 0, -360), (0.68, 0.85)]],
    "9 like a g": [[*arc(0.5, 0.33, 0.17, 0.17, -20, -380), *arc(0.49, 0.68, 0.18, 0.16, 0, 140)]],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium."""
    chromium = program("chromium", "chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def browser_errors() -> list[str]:
    """Return the errors and warnings of the browser, such as violations of the page's policy."""
    return []


@pytest.fixture
def blank(browser: Browser, browser_errors: list[str]) -> Iterator[Page]:
    """Yield an empty tab, and check at the end that the browser reported no errors or warnings."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        tab = context.new_page()
        tab.on(
            "console",
            lambda message: (
                browser_errors.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        tab.on("pageerror", lambda error: browser_errors.append(str(error)))
        yield tab
        assert browser_errors == []


@pytest.fixture
def page(blank: Page, server: Server) -> Page:
    """Return a tab with the page of the service."""
    blank.goto(server.url)
    return blank


def draw(page: Page, strokes: Strokes) -> None:
    pad = page.locator("#ink")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    scaled = [[(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
              for stroke in strokes]  # fmt: skip
    for stroke in scaled:
        page.mouse.move(*stroke[0])
        page.mouse.down()
        for point in stroke[1:]:
            page.mouse.move(*point, steps=2)
        page.mouse.up()


def draw_at_once(page: Page, strokes: Strokes) -> None:
    """Send the pointer events of a drawing from within the page, which takes a tenth of the time.

    A hand reports many points of each stroke; with the corners alone, the page would round them.
    """
    page.locator("#ink").evaluate(
        """(pad, strokes) => {
            const { left, top, width, height } = pad.getBoundingClientRect();
            const send = (kind, [x, y]) => pad.dispatchEvent(new PointerEvent(kind, {
                pointerId: 1, isPrimary: true, clientX: left + x * width, clientY: top + y * height,
            }));
            for (const stroke of strokes) {
                send("pointerdown", stroke[0]);
                for (const point of stroke) send("pointermove", point);
                send("pointerup", stroke.at(-1));
            }
        }""",
        [
            [
                (x + (next_x - x) * part / 8, y + (next_y - y) * part / 8)
                for (x, y), (next_x, next_y) in pairwise(stroke)
                for part in range(9)
            ]
            for stroke in strokes
        ],
    )


def clear(page: Page) -> None:
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("status")).to_have_text("")


def recognized(server: Server, file: Path) -> tuple[int, int]:
    """Return the label of a file from the service, and its probability in percent, rounded down."""
    with file.open("rb") as content:
        answer = requests.post(
            f"{server.url}/recognize?probabilities=true", files={"image": content}, timeout=30
        ).json()
    return answer["labels"][0], int(max(answer["probabilities"][0]) * 100)


def expect_answer(page: Page, server: Server, file: Path) -> None:
    label, percent = recognized(server, file)
    words = rf"an? {label}\b.*\b{min(percent, 99)}\s% sure"
    expect(page.get_by_role("status")).to_have_text(re.compile(words))
    expect(page.locator("#digit")).to_have_text(str(label))
    expect(page.locator("tr.best th")).to_have_text(str(label))


def transfer(page: Page, how: str, file: Path, kind: str) -> None:
    """Drop a file on the page, or paste it."""
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
    """Return the number of pixels of the pad that have ink."""
    return page.evaluate(
        """() => {
            const canvas = document.getElementById("ink");
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, width, height);
            return data.filter((value, index) => index % 4 === 3 && value > 0).length;
        }"""
    )


@pytest.mark.pipeline
@pytest.mark.skipif(
    not (PROJECT / "data/model").exists(),
    reason="needs the model; create it with `make repro`",
)
def test_drawings_of_many_styles_are_recognized(blank):
    drawings = {str(digit): strokes for digit, strokes in enumerate(DIGITS)} | STYLES
    assert len(drawings) == 30
    with running_server(PROJECT, "--workers=1") as server:
        blank.goto(server.url)
        for name, strokes in drawings.items():
            draw_at_once(blank, strokes)
            words = re.compile(rf"^(This is|Not sure: perhaps) an? {name[0]}\b")
            expect(blank.get_by_role("status"), name).to_have_text(words)
            clear(blank)


def test_the_result_changes_during_a_stroke(page):
    draw(page, DIGITS[7])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    page.mouse.move(300, 300)
    page.mouse.down()
    for step in range(10):  # the mouse button stays down
        page.mouse.move(300 + 4 * step, 300 + 4 * step)
    first = page.locator("#rows").inner_text()
    page.mouse.move(400, 500, steps=20)
    expect(page.locator("#rows")).not_to_have_text(first, use_inner_text=True)
    page.mouse.up()


def test_the_table_of_probabilities_adds_up_to_100_percent(page):
    draw(page, DIGITS[3])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    table = page.get_by_role("table", name="Probability of each digit")
    texts = table.locator("tbody td:last-child").all_inner_texts()
    assert sum(float(text.removesuffix("%")) for text in texts) == pytest.approx(100, abs=1.1)
    assert table.get_by_role("rowheader").all_inner_texts() == [str(digit) for digit in range(10)]


def test_the_page_shows_the_preprocessed_image(page, server):
    file = SAMPLES[0]
    page.locator("#file").set_input_files(file)
    expect_answer(page, server, file)
    shown = page.evaluate(
        """() => [...document.getElementById("preprocessed").getContext("2d")
            .getImageData(0, 0, 28, 28).data].filter((_, index) => index % 4 === 0)"""
    )
    with file.open("rb") as content:
        url = f"{server.url}/recognize?preprocessed=true"
        answer = requests.post(url, files={"image": content}, timeout=30).json()
    assert shown == [gray for row in answer["preprocessed"][0] for gray in row]


def test_the_hashes_of_the_model_are_truncated_and_their_titles_are_complete(page, version, sha256):
    for name, value in (("version", version), ("sha256", sha256)):
        shown = page.locator(f"#{name}")
        expect(shown).to_have_attribute("title", value)
        expect(shown).to_have_text(value)
        assert shown.evaluate("element => element.scrollWidth > element.clientWidth")


def test_a_page_of_a_model_without_a_manifest_says_that_no_sha256_is_pinned(blank, server, version):
    answer = {"status": "ok", "version": version, "sha256": ""}
    blank.route("**/healthz", lambda route: route.fulfill(json=answer))
    blank.goto(server.url)
    expect(blank.locator("#model")).to_have_text(f"Model {version}, SHA-256 not pinned")


def test_a_blank_pad_sends_no_request(page):
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    draw(page, DIGITS[1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    urls.clear()
    clear(page)
    page.reload(wait_until="networkidle")
    assert not any("recognize" in url for url in urls)


def test_one_request_is_in_flight_at_a_time_and_outdated_results_are_not_shown(page):
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
    expect(page.locator("#sentence")).to_have_text("No drawing yet")
    assert len(held) == 2
    page.keyboard.press("Escape")
    draw(page, DIGITS[2])
    with page.expect_request("**/recognize*"):
        held[1].continue_()
    expect(page.locator("#sentence")).to_have_text("No drawing yet")
    assert len(held) == 3
    held[2].continue_()
    expect(page.get_by_role("status")).to_have_text(ANSWER)


@pytest.mark.parametrize(
    ("probabilities", "digit", "words"),
    [
        ({8: 0.9, 1: 0.1}, "8", "This is an 8, 90 % sure"),
        ({8: 0.89, 1: 0.11}, "8", "Not sure: perhaps an 8 (89 % sure), or a 1 (11 % sure)"),
        ({7: 0.51, 1: 0.45}, "7", "Not sure: perhaps a 7 (51 % sure), or a 1 (45 % sure)"),
        ({1: 0.5, 7: 0.5}, "1", "Not sure: perhaps a 1 (50 % sure), or a 7 (50 % sure)"),
        ({7: 0.48, 1: 0.46}, "7", "Not sure: perhaps a 7 (48 % sure), or a 1 (46 % sure)"),
        ({7: 0.49, 1: 0.31}, "?", "Probably not a digit, or perhaps a 7 (49 % sure)"),
        ({}, "?", "Probably not a digit, or perhaps a 0 (10 % sure)"),
    ],
)
def test_an_uncertain_result_is_described_as_uncertain(page, probabilities, digit, words):
    # The other labels share the rest of the probability.
    rest = (1 - sum(probabilities.values())) / (10 - len(probabilities))
    row = [probabilities.get(label, rest) for label in range(10)]
    answer = {"labels": [row.index(max(row))], "probabilities": [row]}
    answer["preprocessed"] = [[[0] * 28] * 28]
    page.route("**/recognize*", lambda route: route.fulfill(json=answer))
    draw(page, DIGITS[8])
    expect(page.get_by_role("status")).to_have_text(words)
    expect(page.locator("#sentence")).to_have_text(words)
    expect(page.locator("#digit")).to_have_text(digit)
    state = "sure" if words.startswith("This is") else "unsure"
    expect(page.locator("body")).to_have_attribute("data-state", state)


def test_an_uploaded_file_is_recognized(page, server):
    for file in (SAMPLES[2], SAMPLES[2], SAMPLES[5]):
        page.get_by_label("Upload a picture").set_input_files(file)
        expect_answer(page, server, file)
        expect(page.get_by_role("img", name=f"The picture {file.name}")).to_be_visible()
        clear(page)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_dropped_or_pasted_file_is_recognized(page, server, how):
    transfer(page, how, SAMPLES[7], "image/png")
    expect_answer(page, server, SAMPLES[7])


def test_a_picture_from_the_clipboard_is_recognized(page, server):
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
    ("how", "words"),
    [
        ("drop", "The dropped item is not a picture file."),
        ("paste", "The clipboard contains no picture."),
    ],
)
def test_text_instead_of_a_file_shows_an_error(page, how, words):
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


def test_arrow_keys_step_through_the_samples(page, server):
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


def test_undo_reverts_strokes_pictures_and_clearing(page, server):
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


def test_every_control_works_with_the_keyboard(page, server):
    # As of version 1.65, Playwright does not wait until the browser intercepts file choosers. This
    # listener starts the interception long before the test opens the file chooser.
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
        is_visible = page.evaluate(
            """() => [document.activeElement, document.activeElement.nextElementSibling]
                .some((each) => each && getComputedStyle(each).outlineStyle === "solid")"""
        )
        assert is_visible, page.evaluate("document.activeElement.outerHTML")


def test_the_page_shows_the_error_of_an_invalid_file(page, tmp_path, browser_errors):
    text = tmp_path / "seven.txt"
    text.write_text("7")
    page.locator("#file").set_input_files(text)
    words = "The file is not a picture; send one of PNG, JPEG, BMP, GIF, WEBP."
    expect(page.get_by_role("status")).to_have_text(words)
    expect(page.locator("#sentence")).to_be_visible()
    expect(page.locator("#sentence")).to_have_text(words)
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    draw(page, DIGITS[0])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


def test_a_file_over_the_limit_shows_an_error(page, tmp_path, browser_errors):
    file = tmp_path / "large.png"
    file.write_bytes(bytes(17 << 20))
    page.locator("#file").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("too large")
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


def test_an_unreachable_service_shows_an_error_and_a_retry_button(
    blank, server, repository, browser_errors
):
    with running_server(repository.path, "--workers=1") as temporary:
        blank.goto(temporary.url)
        draw(blank, DIGITS[0])
        expect(blank.get_by_role("status")).to_have_text(ANSWER)
    draw(blank, DIGITS[1])
    expect(blank.get_by_role("status")).to_have_text("The service is not responding.")
    assert ink(blank) > 0
    blank.route("**/recognize*", lambda route: route.continue_(url=_redirected_url(route, server)))
    blank.get_by_role("button", name="Try again").click()
    expect(blank.get_by_role("status")).to_have_text(ANSWER)
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


def _redirected_url(route: Route, server: Server) -> str:
    return f"{server.url}/{route.request.url.rpartition('/')[2]}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_width_of_a_phone(page, scheme):
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
    """Return the relative luminance of a computed color, as WCAG 2.2 defines it."""
    channels = [int(channel) / 255 for channel in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["sure", "unsure", "error"])
def test_text_has_the_contrast_of_wcag_aa(page, scheme, state):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("state => (document.body.dataset.state = state)", state)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector in (
        "h1",
        "header p",
        "#hint",
        "#sentence",
        "tbody th",
        "tbody td",
        "figcaption",
        "a",
    ):
        color = page.locator(selector).first.evaluate("element => getComputedStyle(element).color")
        dark, light = sorted([luminance(color), luminance(background)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector


def test_a_finger_draws_and_does_not_scroll(browser, server):
    phone = {"width": 390, "height": 844}
    with browser.new_context(has_touch=True, is_mobile=True, viewport=phone) as context:
        page = context.new_page()
        page.goto(server.url)
        box = page.locator("#ink").bounding_box()
        line = [(box["x"] + 180, box["y"] + y) for y in range(60, 300, 20)]
        session = context.new_cdp_session(page)
        for kind, (x, y) in zip(
            ["touchStart", *["touchMove"] * (len(line) - 1)], line, strict=True
        ):
            session.send(
                "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]}
            )
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(page.get_by_role("status")).to_have_text(ANSWER)
        assert page.evaluate("scrollY") == 0
        # The line is about 240 px long. The page shows the canvas's 840 pixels in 358 px, and the
        # stroke is 66 canvas pixels wide.
        assert ink(page) > 840 * 240 / 358 * 66 * 0.8


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/static/samples/7-0.png", "/static/no"])
def test_the_page_and_its_files_have_the_security_policy(client, path):
    answer = client.get(path)
    assert answer.status_code == (404 if path.endswith("no") else 200)
    assert answer.headers["Content-Security-Policy"] == ui.POLICY


def test_the_page_loads_no_resource_from_another_host(blank, server):
    urls = []
    blank.on("request", lambda request: urls.append(request.url))
    blank.goto(server.url, wait_until="networkidle")
    assert len(urls) > 20
    assert all(url.startswith(server.url) for url in urls)
