"""The fixtures of the tests of the page: Chromium, driven by Playwright.

Without Chromium, the tests are skipped, or fail in CI.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.api.pad import wait_for_scripts
from tests.conftest import Server, program

expect.set_options(timeout=30_000)  # milliseconds; the browser is slow while a training runs


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium."""
    chromium = program("chromium-headless-shell", "chromium-headless-shell")
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
    wait_for_scripts(blank)
    return blank
