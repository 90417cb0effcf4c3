"""The page on phones, with pens and palms, in high contrast, and in five languages."""

import re

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.api.pad import ANSWER, DIGITS, draw, draw_at_once, ink, reading, wait_for_scripts
from tests.conftest import Server, wait_until

NUMBERS = re.compile(r"\d+")
TOUCH = """(events) => {
    const pad = document.getElementById("ink");
    const { left, top, width, height } = pad.getBoundingClientRect();
    for (const [kind, pointerId, pointerType, x, y, size] of events)
        pad.dispatchEvent(new PointerEvent(kind, {
            pointerId, pointerType, isPrimary: pointerId === 1, width: size, height: size,
            clientX: left + x * width, clientY: top + y * height,
        }));
}"""


def pressed(pointer: int, kind: str, x: float, y: float, size: int = 20) -> list[object]:
    return ["pointerdown", pointer, kind, x, y, size]


def stroke(pointer: int, kind: str, x: float) -> list[list[object]]:
    """Return the events of a line from the top to the bottom."""
    moves = [["pointermove", pointer, kind, x, y / 10, 20] for y in range(2, 9)]
    return [pressed(pointer, kind, x, 0.2), *moves, ["pointerup", pointer, kind, x, 0.8, 20]]


def test_a_palm_does_not_block_a_finger_or_a_pen(page):
    """Synthetic pointers, because Chromium's own test interface has no pens and no palms."""
    page.evaluate("Element.prototype.setPointerCapture = () => {}")
    page.evaluate(TOUCH, stroke(1, "touch", 0.5))
    line = ink(page)
    cases = {
        "a wide palm, then a finger": [pressed(1, "touch", 0.9, 0.9, 90), *stroke(2, "touch", 0.5)],
        "a resting finger, then another": [pressed(1, "touch", 0.9, 0.9), *stroke(2, "touch", 0.5)],
        "a palm, then a pen": [pressed(1, "touch", 0.9, 0.9), *stroke(2, "pen", 0.5)],
        "a finger, then a palm": [
            *stroke(1, "touch", 0.5)[:4],
            pressed(2, "touch", 0.9, 0.9),
            *stroke(1, "touch", 0.5)[4:],
        ],
        "a pen, then a palm": [
            *stroke(1, "pen", 0.5)[:4],
            pressed(2, "touch", 0.9, 0.9, 30),
            *stroke(1, "pen", 0.5)[4:],
        ],
    }
    for name, events in cases.items():
        page.reload()
        wait_for_scripts(page)
        page.evaluate("Element.prototype.setPointerCapture = () => {}")
        page.evaluate(TOUCH, events)
        assert ink(page) == pytest.approx(line, rel=0.01), name
        page.keyboard.press("Control+z")
        assert ink(page) == 0, f"{name}: the palm left a state"


def touch(session: CDPSession, points: list[tuple[float, float]]) -> None:
    for kind, (x, y) in zip(
        ["touchStart", *["touchMove"] * (len(points) - 1)], points, strict=True
    ):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


PHONES = [(390, 664), (360, 560), (664, 390), (560, 360)]


def test_a_phone_shows_the_answer_beside_a_pad_that_stays_in_its_place(browser, server):
    for width, height in PHONES:
        with browser.new_context(
            has_touch=True,
            is_mobile=True,
            viewport={"width": width, "height": height},
        ) as context:
            page = context.new_page()
            page.goto(server.url)
            wait_for_scripts(page)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            before = page.locator("#pad").bounding_box()
            session = context.new_cdp_session(page)
            x, y, side = before["x"], before["y"], before["width"]
            assert side == pytest.approx(before["height"], abs=1)
            assert side >= 0.7 * min(width, height)
            touch(session, [(x + side / 2, y + side * part / 10) for part in range(2, 9)])
            line = ink(page)
            for spot in (0.2, 0.8):  # taps right after a stroke
                touch(session, [(x + side * spot, y + side * spot)])
            assert ink(page) > line + 300
            expect(page.get_by_role("status")).to_have_text(re.compile("."))
            assert page.evaluate("[scrollX, scrollY]") == [0, 0]
            assert page.locator("#pad").bounding_box() == before
            for selector in ("#pad", "#digit", "#sentence", "#clear", "#upload"):
                box = page.locator(selector).bounding_box()
                assert box["x"] >= 0, selector
                assert box["y"] >= 0, selector
                assert box["x"] + box["width"] <= width, selector
                assert box["y"] + box["height"] <= height, selector
            if height > width:
                assert page.locator("#answer").bounding_box()["y"] < before["y"]
            assert page.evaluate("document.documentElement.scrollWidth") == width
            for target in ("#samples label", "#upload > span", "#undo", "#photograph > span"):
                box = page.locator(target).first.bounding_box()
                assert min(box["width"], box["height"]) >= 44, target
            camera = page.get_by_label("Take a photograph")
            expect(camera).to_have_attribute("capture", "environment")
            if height == 664:  # the number is in sight, too
                clear = page.get_by_role("button", name="Clear")
                clear.tap()
                expect(page.get_by_role("status")).to_have_text("")


def test_all_of_the_tool_is_above_the_fold_and_the_pad_fits_at_200_percent(blank, server):
    blank.set_viewport_size({"width": 1280, "height": 720})
    blank.goto(server.url)
    draw_at_once(blank, DIGITS[3])
    expect(blank.get_by_role("status")).to_have_text(ANSWER)
    for selector in ("#pad", "#answer", "#details", "#undo", "#upload", "#samples", "#why"):
        box = blank.locator(selector).bounding_box()
        assert box["y"] + box["height"] <= 720, selector
    expect(blank.locator("#photograph")).to_be_hidden()
    for width, height in ((640, 360), (768, 1024), (320, 568), (320, 256), (2560, 1440)):
        blank.set_viewport_size({"width": width, "height": height})
        box = blank.locator("#pad").bounding_box()
        assert box["width"] == pytest.approx(box["height"], abs=1)
        assert blank.evaluate("document.documentElement.scrollWidth") == width
        # At 400 percent of 1280 x 1024 pixels, the pad does not fit, so the page scrolls.
        assert (box["y"] + box["height"] <= height) == (height != 256)
        assert box["width"] > 200


def test_a_browser_without_the_reset_of_a_canvas_works(blank, server):
    blank.add_init_script("delete CanvasRenderingContext2D.prototype.reset")
    blank.goto(server.url)
    draw_at_once(blank, [[(0.5, 0.5), (0.5, 0.5)]])
    assert ink(blank) == pytest.approx(3.1416 * 15**2, rel=0.08)  # a tap leaves a dot
    expect(blank.get_by_role("status")).to_have_text(ANSWER)
    # A stroke with a mouse leaves the focus on the pad, not on the body.
    draw(blank, DIGITS[1])
    assert blank.evaluate("document.activeElement.id") == "ink"


def test_the_page_respects_forced_colors_contrast_and_reduced_motion(page):
    draw_at_once(page, DIGITS[1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    style = """([selector, name]) => getComputedStyle(document.querySelector(selector))[name]"""
    assert page.evaluate(style, [".written path", "animationName"]) == "write"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(style, [".written path", "animationName"]) == "none"
    muted = page.evaluate(style, ["figcaption", "color"])
    page.emulate_media(contrast="more")
    assert page.evaluate(style, ["figcaption", "color"]) != muted
    page.emulate_media(forced_colors="active", color_scheme="dark")
    text = page.evaluate(style, ["body", "color"])
    for selector, name in (("#ink", "color"), (".written", "stroke")):
        assert page.evaluate(style, [selector, name]) == text
    bar, background = (
        page.evaluate(style, [selector, "backgroundColor"])
        for selector in (".best .bar div", "body")
    )
    assert bar != background
    # The ink changes with the colors.
    pixel = """() => {
        const copy = new OffscreenCanvas(840, 840).getContext("2d");
        copy.drawImage(document.getElementById("ink"), 0, 0);
        const { data } = copy.getImageData(0, 0, 840, 840);
        const first = data.findIndex((value, index) => index % 4 === 3 && value === 255) - 3;
        return `rgb(${[...data.slice(first, first + 3)].join(", ")})`;
    }"""
    wait_until(lambda: page.evaluate(pixel) == text, "the ink keeps its old color")


def test_the_page_mirrors_itself_from_right_to_left(page):
    page.set_viewport_size({"width": 1280, "height": 720})
    page.evaluate("document.documentElement.dir = 'rtl'")
    draw_at_once(page, DIGITS[1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    pad, answer = (page.locator(name).bounding_box() for name in ("#pad", "#answer"))
    assert pad["x"] > answer["x"]
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert page.evaluate("scrollX") == 0
    page.set_viewport_size({"width": 390, "height": 664})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


LANGUAGES = [
    ("de-CH", "de", "Rückgängig", "Sieht aus wie eine 7, zu 98% sicher"),
    ("de", "de", "Rückgängig", "Sieht aus wie eine 7, zu 98\xa0% sicher"),
    ("fr-FR", "fr", "Annuler", "On dirait un 7, sûr à 98\u202f%"),
    ("es", "es", "Deshacer", "Parece un 7, con un 98\xa0% de certeza"),
    ("zh-CN", "zh-Hans", "撤销", "看起来是 7，把握 98%"),  # noqa: RUF001
    ("zh-u-nu-hanidec", "zh-Hans", "撤销", "看起来是 七，把握 九八%"),  # noqa: RUF001
    ("pt-BR", "en", "Undo", "Looks like a 7, 98% sure"),
]


@pytest.mark.parametrize(("locale", "language", "undo", "words"), LANGUAGES)
def test_the_page_speaks_the_language_of_the_browser(
    browser: Browser, server: Server, locale, language, undo, words
):
    row = [0.02 / 9] * 7 + [0.98] + [0.02 / 9] * 2
    answer = {"labels": [7], "probabilities": [row], "preprocessed": [[[0] * 28] * 28]}
    with browser.new_context(locale=locale) as context:
        page = context.new_page()
        page.route("**/recognize*", lambda route: route.fulfill(json=answer))
        page.goto(server.url)
        expect(page.locator("html")).to_have_attribute("lang", language)
        expect(page.locator("html")).to_have_attribute("dir", "ltr")
        draw_at_once(page, DIGITS[7])
        expect(page.get_by_role("status")).to_have_text(words, use_inner_text=True)
        expect(reading(page)).to_have_attribute("data-written", "7")
        expect(page.get_by_role("button", name=re.compile(f"^{undo}"))).to_be_visible()
        assert untranslated(page) == [], "a text of the page is missing in a language"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_language_without_a_valid_name_is_passed_over_and_percentages_are_exact(blank, server):
    """Browsers on Linux may report en-US@posix, which the functions of Intl reject."""
    languages = "Object.defineProperty(navigator, 'languages', { value: ['en-US@posix', 'de'] })"
    blank.add_init_script(languages)
    blank.goto(server.url)
    expect(blank).to_have_title("Handgeschriebene Ziffern")
    shown = blank.evaluate(
        """async () => {
            const { percent } = await import("/static/words.js");
            return Array.from({ length: 100 }, (_, number) => parseInt(percent(number / 100)));
        }"""
    )
    assert shown == list(range(100))


def untranslated(page: Page) -> list[str]:
    """Return what a language lacks, or has too much, beside English."""
    return page.evaluate(
        """async () => {
            const { words } = await import("/static/words.js");
            const { default: english } = await import("/static/languages/en.js");
            const [mine, all] = [words, english].map((each) => Object.keys(each));
            const missing = [...document.querySelectorAll("[data-text], [data-label]")]
                .map(({ dataset }) => dataset.text ?? dataset.label)
                .filter((key) => !(key in words));
            return [...missing, ...all.filter((key) => !mine.includes(key)),
                ...mine.filter((key) => !all.includes(key))];
        }"""
    )
