"""The link that brings back a drawing, the request as code, and the page behind a token."""

import ast
import json
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.api.pad import (
    ANSWER,
    DIGITS,
    REJECTED,
    SAMPLES,
    draw_at_once,
    ink,
    number,
    requests_of,
)
from tests.conftest import client_of_server

TOKEN = "x" * 64


def test_a_link_brings_back_the_drawing_and_never_reaches_the_server(page, server):
    draw_at_once(page, DIGITS[4])
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    drawn = ink(page)
    page.get_by_role("button", name="Link and code").click()
    dialog = page.get_by_role("dialog", name="Link and code")
    dialog.get_by_role("button", name="Copy").first.click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{server.url}/#")
    assert len(link) < 1000
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Link and code")).to_be_focused()
    assert ink(page) == drawn  # Esc has closed the dialog, and has not cleared the pad
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert abs(ink(page) - drawn) < 0.05 * drawn
    fragment = link.partition("#")[2]
    assert fragment.partition("=")[2] not in json.dumps(urls[1:])
    page.evaluate("location.hash = '#drawing=*'")
    expect(page.get_by_role("alert")).to_have_text("This link contains no drawing.")
    assert ink(page) > 0


def test_the_request_as_code_gives_the_same_answer(page):
    for strokes in (DIGITS[2], number("10")):
        sent = requests_of(page)
        with page.expect_response("**/recognize*") as response:
            draw_at_once(page, strokes)
        expect(page.get_by_role("status")).to_have_text(ANSWER)
        expected = response.value.json()
        page.get_by_role("button", name="Link and code").click()
        expect(page.get_by_role("dialog", name="Link and code")).to_be_visible()
        curl, python = (page.locator(name).text_content() for name in ("#curl", "#python"))
        assert sent[-1] in curl
        printed = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
        assert json.loads(printed.stdout) == expected
        done = subprocess.run(
            [sys.executable, "-c", python], capture_output=True, text=True, check=True
        )
        assert ast.literal_eval(done.stdout) == expected
        page.get_by_role("button", name="Close").click()
        page.keyboard.press("Escape")
    page.locator("#file").set_input_files(SAMPLES[0])
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="Link and code").click()
    expect(page.get_by_role("dialog", name="Link and code")).to_be_visible()
    expect(page.locator("#link")).to_be_hidden()  # a picture does not fit into a link
    curl = page.locator("#curl").text_content()
    done = subprocess.run(
        ["bash", "-c", curl], cwd=SAMPLES[0].parent, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["filename"] == SAMPLES[0].name


@pytest.mark.server
def test_behind_a_token_the_page_asks_once_and_keeps_it(blank, artifact, tmp_path, browser_errors):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with client_of_server(artifact, f"--token-file={file}") as client:
        blank.goto(client.url)
        draw_at_once(blank, DIGITS[3])
        dialog = blank.get_by_role("dialog")
        token = blank.get_by_label("Token", exact=True)
        token.fill("wrong")
        blank.get_by_role("button", name="Continue").click()
        expect(token).to_have_value("")
        token.fill("\u00fc")  # no header can carry it, so the browser refuses it
        blank.get_by_role("button", name="Continue").click()
        expect(dialog).to_be_visible()
        blank.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(blank.get_by_role("status")).to_have_text("The service requires a token.")
        assert ink(blank) > 0
        blank.get_by_role("button", name="Try again").click()
        token.fill(TOKEN)
        blank.keyboard.press("Enter")
        expect(blank.get_by_role("status")).to_have_text(ANSWER)
        blank.get_by_role("button", name="Link and code").click()
        expect(blank.locator("#curl")).to_contain_text('-H "Authorization: Bearer $TOKEN"')
        assert TOKEN not in blank.content()
        blank.reload()
        draw_at_once(blank, DIGITS[1])
        expect(blank.get_by_role("status")).to_have_text(ANSWER)
        expect(dialog).to_be_hidden()
        blank.locator("#file").set_input_files(SAMPLES[1])
        expect(blank.locator("tr.best")).to_have_count(1)
    assert all(REJECTED in error for error in browser_errors)
    browser_errors.clear()
