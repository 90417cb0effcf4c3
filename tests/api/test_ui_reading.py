"""What the page and the trained model read together: at any size, several digits, and no digit."""

import re

import pytest
from playwright.sync_api import expect

from tests.api.pad import (
    DIGITS,
    STYLES,
    Strokes,
    arc,
    clear,
    draw_at_once,
    number,
    placed,
    reading,
)
from tests.conftest import PROJECT, running_server

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(
        not (PROJECT / "data/model").exists(),
        reason="needs the model; create it with `make repro`",
    ),
]
NO_DIGITS: dict[str, Strokes] = {
    "A": [[(0.25, 0.85), (0.5, 0.15), (0.75, 0.85)], [(0.34, 0.6), (0.66, 0.6)]],
    "heart": [
        [
            (0.5, 0.85),
            (0.2, 0.5),
            *arc(0.35, 0.35, 0.15, 0.15, 180, 360),
            *arc(0.65, 0.35, 0.15, 0.15, 180, 360),
            (0.8, 0.5),
            (0.5, 0.85),
        ]
    ],
    "smiley": [
        arc(0.5, 0.5, 0.38, 0.38, 0, 360),
        [(0.36, 0.38), (0.36, 0.44)],
        [(0.64, 0.38), (0.64, 0.44)],
        arc(0.5, 0.52, 0.2, 0.2, 20, 160),
    ],
    "dot": [[(0.5, 0.5), (0.5, 0.5)]],
}


@pytest.fixture(scope="module")
def trained():
    """The service with the model that the pipeline made."""
    with running_server(PROJECT, "--workers=1") as server:
        yield server


def test_drawings_of_many_styles_are_recognized(blank, trained):
    drawings = {str(digit): strokes for digit, strokes in enumerate(DIGITS)} | STYLES
    assert len(drawings) == 30
    blank.goto(trained.url)
    for name, strokes in drawings.items():
        draw_at_once(blank, strokes)
        words = re.compile(rf"^(Looks like|Could be) an? {name[0]}\b")
        expect(blank.get_by_role("status"), name).to_have_text(words)
        clear(blank)


def test_a_wide_digit_is_one_digit(blank, trained):
    blank.goto(trained.url)
    for digit in (2, 4, 5, 7):
        wide = [
            [(0.5 + 1.2 * (x - 0.5), 0.3 + 0.5 * (y - 0.5)) for x, y in stroke]
            for stroke in DIGITS[digit]
        ]
        draw_at_once(blank, wide)
        words = re.compile(rf"^(Looks like|Could be) an? {digit}\b")
        expect(blank.get_by_role("status"), str(digit)).to_have_text(words)
        clear(blank)


def test_the_size_and_the_place_of_a_digit_do_not_matter(blank, trained):
    """The page sends the same picture of a digit of any size, up to rounding."""
    blank.goto(trained.url)
    for digit in (1, 2, 5, 8):
        strokes, shown = DIGITS[digit], set()
        for left, size in ((0, 1), (0.4, 0.5), (0.8, 0.12)):
            draw_at_once(blank, placed(strokes, left, left, size))
            expect(blank.get_by_role("status")).to_have_text(
                re.compile(rf"^Looks like an? {digit},")
            )
            shown.add(blank.get_by_role("status").inner_text())
            clear(blank)
        assert len(shown) == 1, shown


def test_digits_beside_each_other_are_a_number_and_the_strokes_of_one_digit_are_not(blank, trained):
    blank.goto(trained.url)
    for text in ("10", "42", "57", "1234", "2026"):
        for size in (0.24, 0.12):
            draw_at_once(blank, number(text, size))
            words = re.compile(rf"^Looks like {text}, \d\d% sure$")
            expect(blank.get_by_role("status"), text).to_have_text(words)
            assert blank.locator("#boxes rect").count() == len(text)
            assert blank.locator("#boxes text").all_text_contents() == list(text)
            rows = blank.locator("#rows tr")
            assert rows.locator("th").all_inner_texts() == list(text)
            assert rows.first.locator("td").count() == 10
            assert blank.locator("#images canvas").count() == len(text)
            if size == 0.24:
                first = blank.locator("#boxes rect").first
                left, width = (float(first.get_attribute(name)) for name in ("x", "width"))
                drawn = [x * 280 for x, _ in (point for s in number(text[0]) for point in s)]
                assert left < min(drawn)
                assert left + width > max(drawn)
                assert width < max(drawn) - min(drawn) + 50
            clear(blank)
    broken = [[(0.52, 0.15), (0.5, 0.42)], [(0.49, 0.58), (0.47, 0.85)]]
    several = [*DIGITS[4:6], STYLES["4 like a chair"], STYLES["7, crossed"], broken]
    for strokes in several:
        assert len(strokes) == 2
        draw_at_once(blank, strokes)
        expect(reading(blank)).to_have_attribute("data-written", re.compile(r"^[1457]$"))
        clear(blank)
    touching = [*placed(DIGITS[0], 0, 0.2, 0.6), *placed(DIGITS[0], 0.26, 0.2, 0.6)]
    draw_at_once(blank, touching)
    expect(reading(blank)).to_have_attribute("data-written", re.compile(r"^\d\d$"))


def test_what_is_no_digit_is_called_no_digit(blank, trained):
    blank.goto(trained.url)
    for name, strokes in NO_DIGITS.items():
        for size in (1, 0.25):
            draw_at_once(blank, placed(strokes, 0, 0, size))
            expect(blank.get_by_role("status"), name).to_have_text("Probably not a digit")
            clear(blank)


def test_a_picture_of_a_number_is_read_with_the_switch(blank, trained, tmp_path):
    blank.goto(trained.url)
    draw_at_once(blank, number("57"))
    picture = tmp_path / "57.png"
    picture.write_bytes(bytes(blank.evaluate("""async (strokes) => {
        const { toPicture } = await import("/static/strokes.js");
        const points = strokes.map((stroke) => stroke.map(([x, y]) => [280 * x, 280 * y]));
        return [...new Uint8Array(await (await toPicture(points)).blob.arrayBuffer())];
    }""", number("57"))))  # fmt: skip
    switch = blank.get_by_role("checkbox", name="Several digits")
    expect(switch).to_be_hidden()
    blank.locator("#file").set_input_files(picture)
    expect(switch).to_be_visible()
    expect(switch).not_to_be_checked()
    expect(blank.locator("#images canvas")).to_have_count(1)
    switch.check()
    expect(blank.get_by_role("status")).to_have_text(re.compile(r"^(Looks like|Could be) 57"))
    assert blank.locator("#boxes rect").count() == 2
    expect(switch).to_be_focused()
    blank.keyboard.press("Control+z")
    expect(switch).not_to_be_checked()
    expect(blank.locator("#boxes rect")).to_have_count(0)
    blank.keyboard.press("Control+z")
    expect(switch).to_be_hidden()
    assert blank.evaluate("document.activeElement.id") == "ink"  # not the body
