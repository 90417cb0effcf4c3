"""What the page says while it waits, and while the service is slow, hung or gone."""

import os
import re
import signal
from datetime import UTC, datetime, timedelta

from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.api.pad import (
    ANSWER,
    DIGITS,
    REJECTED,
    SAMPLES,
    draw,
    draw_at_once,
    expect_answer,
    ink,
    number,
    reading,
    requests_of,
)
from tests.conftest import Server, running_server

SLOW = "The service is slow. Still waiting…"
HUNG = "The service does not answer. Trying again…"
GONE = "The service cannot be reached. Trying again…"
PENDING = re.compile("Recognizing…|slow")  # after a second, the page says that it is slow
OFFLINE = "You are offline. Trying again…"


def test_one_drawing_costs_at_most_8_requests(page):
    sent = requests_of(page)
    for strokes in (number("2026"), number("4444")):
        sent.clear()
        for stroke in strokes:
            draw(page, [stroke])
            page.wait_for_timeout(150)  # a hand pauses between strokes
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
        expect(page.get_by_role("status")).not_to_have_text("")
        assert 1 <= len(sent) <= 8
        page.keyboard.press("Escape")


def hold(page: Page) -> list[Route]:
    """Hold all requests that send a picture, and return the list of them, which grows."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route("**/recognize*", keep)
    return held


def test_after_8_requests_the_visitor_decides_when_to_read_the_drawing(page):
    sent = requests_of(page)
    status = page.get_by_role("status")
    paused = "Press “Try again” to read this drawing."
    for place in range(12):
        draw(page, [[(0.05 + 0.08 * place, 0.3), (0.05 + 0.08 * place, 0.7)]])
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
        if status.inner_text() == paused:
            break
    assert len(sent) == 8
    page.get_by_role("button", name="Try again").click()
    expect(status).to_have_text(ANSWER)
    assert len(sent) == 9
    page.keyboard.press("Escape")
    draw(page, DIGITS[1])
    expect(status).to_have_text(ANSWER)


def test_a_stroke_that_follows_at_once_is_read_with_the_one_before(page):
    page.clock.install()
    page.clock.pause_at(datetime.now(tz=UTC) + timedelta(hours=1))
    sent = requests_of(page)
    draw_at_once(page, DIGITS[4], begun=True)
    page.clock.run_for(600)  # more than the pause after a stroke; the next one is still short
    assert sent == []
    page.locator("#ink").dispatch_event("pointercancel", {"pointerId": 1, "isPrimary": True})
    page.clock.resume()
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert len(sent) <= 2


def test_an_old_answer_is_dimmed_beside_its_drawing_and_gone_beside_another_picture(page, server):
    answer, sentence = page.locator("#answer"), page.locator("#sentence")
    expect(sentence).to_have_text("Waiting for your first stroke")
    draw_at_once(page, DIGITS[4][:1])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    first = reading(page).get_attribute("data-written")
    page.evaluate(
        """() => {
            window.texts = [];
            const sentence = document.getElementById("sentence");
            new MutationObserver(() => texts.push(sentence.textContent))
                .observe(sentence, { childList: true });
        }"""
    )
    held = hold(page)
    with page.expect_request("**/recognize*"):
        draw_at_once(page, DIGITS[4][1:])
        expect(answer).to_have_attribute("aria-busy", "true")
    expect(sentence).to_have_text(PENDING)
    expect(reading(page)).to_have_attribute("data-written", first)  # dimmed
    expect(answer).to_have_css("opacity", "0.5")
    with page.expect_request("**/recognize*"):
        page.locator("#file").set_input_files(SAMPLES[3])
    expect(reading(page)).to_have_attribute("data-written", "…")  # of no other picture
    expect(page.locator("tr.best")).to_have_count(0)
    expect(page.get_by_role("status")).to_have_text(PENDING)
    assert page.evaluate("texts.filter((each) => each === 'Recognizing…').length") == 2
    # The request about the drawing was aborted, so that only the last one is answered.
    expect(answer).to_have_attribute("aria-busy", "true")
    assert len(held) == 2
    held[1].continue_()
    expect_answer(page, server, SAMPLES[3])
    expect(answer).to_have_attribute("aria-busy", "false")
    with page.expect_request("**/recognize*"):
        page.locator("#file").set_input_files(SAMPLES[5])
    page.keyboard.press("Escape")
    held[2].abort()  # the page does not wait for it anymore
    expect(sentence).to_have_text("Waiting for your first stroke")


def test_a_slow_service_is_told_apart_and_its_answer_is_shown(page):
    held = hold(page)
    draw_at_once(page, DIGITS[0])
    expect(page.get_by_role("status")).to_have_text(SLOW)
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    assert len(held) == 1
    held[0].continue_()
    expect(page.get_by_role("status")).to_have_text(ANSWER)


def test_a_slow_line_does_not_end_a_request(page):
    """On a slow line, the request that asks how the service is gets no answer in time, either."""
    page.route("**/healthz", lambda route: None)
    held = hold(page)
    draw_at_once(page, DIGITS[0])
    expect(page.get_by_role("status")).to_have_text(HUNG)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.wait_for_timeout(3000)
    assert len(held) == 1
    held[0].continue_()
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_hung_and_a_gone_service_are_told_apart_and_the_page_recovers_by_itself(
    blank, server, repository, browser_errors
):
    status = blank.get_by_role("status")
    with running_server(repository.path, "--workers=1") as temporary:
        blank.goto(temporary.url)
        draw_at_once(blank, DIGITS[0])
        expect(status).to_have_text(ANSWER)
        worker = temporary.worker()
        os.kill(worker, signal.SIGSTOP)
        try:
            draw_at_once(blank, DIGITS[1])
            expect(status).to_have_text(HUNG)
            expect(reading(blank)).to_have_attribute("data-written", "!")
        finally:
            os.kill(worker, signal.SIGCONT)
        expect(status).to_have_text(ANSWER)
    blank.keyboard.press("Escape")
    draw_at_once(blank, DIGITS[7])
    expect(status).to_have_text(GONE)
    again = blank.get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    assert ink(blank) > 0
    again.focus()
    blank.keyboard.press("Enter")
    expect(status).to_have_text(GONE)
    assert blank.evaluate("document.activeElement.id") == "ink"  # not the body
    redirect(blank, server)
    expect(status).to_have_text(ANSWER)
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


def redirect(page: Page, server: Server) -> None:
    """Let another server answer the requests of a page."""
    page.route(
        "**/*",
        lambda route: route.continue_(url=f"{server.url}/{route.request.url.rpartition('/')[2]}"),
    )


def test_a_page_without_a_connection_says_so_and_recovers_by_itself(page, browser_errors):
    page.context.set_offline(True)
    draw_at_once(page, DIGITS[2])
    expect(page.get_by_role("status")).to_have_text(OFFLINE)
    page.context.set_offline(False)
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()


def test_a_photograph_is_made_smaller_and_sent_with_a_progress_bar(page, tmp_path, browser_errors):
    """A photograph of 48 megapixels that EXIF turns, over a slow line."""
    photograph = tmp_path / "photograph.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    picture = Image.effect_noise((1000, 750), 60).resize((8000, 6000))
    picture.paste(20, (3900, 1500, 4300, 4500))
    picture.save(photograph, exif=exif, quality=60)
    session = page.context.new_cdp_session(page)
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000},
    )
    page.evaluate(
        """() => {
            window.seen = [];
            const bar = document.getElementById("progress");
            new MutationObserver(() => bar.hidden || seen.push(bar.value))
                .observe(bar, { attributes: true });
        }"""
    )
    busy = "document.getElementById('answer').getAttribute('aria-busy')"
    page.locator("#file").set_input_files(photograph)
    assert page.evaluate(busy) == "true"  # while the browser decodes it
    draw_at_once(page, DIGITS[7])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    page.wait_for_timeout(4000)
    expect(page.locator("#picture")).to_be_hidden()  # what was drawn later stays
    page.keyboard.press("Escape")
    page.evaluate(
        """() => {
            const { send } = XMLHttpRequest.prototype;
            XMLHttpRequest.prototype.send = function (form) {
                window.sent = form.get("image").size;
                send.call(this, form);
            };
        }"""
    )
    with page.expect_request("**/recognize*"):
        page.locator("#file").set_input_files(photograph)
    assert page.evaluate("sent") <= 1 << 18  # bytes; a slow line needs ten seconds
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    seen = page.evaluate("seen")
    assert seen
    assert all(0 < part < 1 for part in seen)
    expect(page.locator("#progress")).to_be_hidden()
    width, height = page.evaluate(
        "[document.getElementById('picture').naturalWidth, picture.naturalHeight]"
    )
    assert (width, height) in [(1500, 2000), (750, 1000)]
    # A line that is slower still: the service ends the request after --timeout.
    page.route("**/recognize*", lambda route: route.fulfill(status=408))
    page.locator("#file").set_input_files(photograph)
    expect(page.get_by_role("status")).to_have_text("The connection is too slow for this picture.")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()
