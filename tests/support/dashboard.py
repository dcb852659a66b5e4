"""The dashboard in a browser: opened with an eye on errors and other hosts, and used with nothing but the keyboard."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
MAX_TABS = 300
PATIENCE_SECONDS = 20


@contextlib.contextmanager
def launch_browser() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


@contextlib.contextmanager
def open_dashboard(
    browser: Browser, port: int, path: str = "/", expected: tuple[str, ...] = (), **context: Any
) -> Iterator[Page]:
    """Open an address of the dashboard; fail on anything in the console and on any request to another host.

    Args:
        browser: to open it in.
        port: of the service.
        path: of the address.
        expected: parts of messages in the console that are no problem.
        context: options of the browser's context.
    """
    own = browser.new_context(**{"reduced_motion": "reduce", **context})
    page, address = own.new_page(), f"http://127.0.0.1:{port}/"
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else problems.append(request.url))
    page.goto(address.rstrip("/") + path)
    yield page
    own.close()
    assert [one for one in problems if not any(part in one for part in expected)] == []


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for something that a page comes to; the page's policy forbids to evaluate conditions in itself.

    Raises:
        AssertionError: it has not come to it in time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, page.locator("main").inner_text()
        page.wait_for_timeout(20)


def settle(page: Page) -> None:
    """Wait until nothing that a view asked for is missing."""
    wait_until(page, lambda: page.locator(".is-waiting, [aria-busy]").count() == 0)


def serious_problems(page: Page) -> list[tuple[str, str]]:
    """What axe finds on a page that is serious or critical; the context has to be opened with ``bypass_csp``."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


@dataclass
class Keyboard:
    """Somebody who uses a page without a mouse.

    Attributes:
        page: the page.
        n_activations: how often something was activated, which is what a click would be.
    """

    page: Page
    n_activations: int = 0

    def reach(self, target: Locator) -> None:
        """Press Tab until an element has the focus, which has to be visible there."""
        for _ in range(MAX_TABS):
            if target.evaluate("element => element === document.activeElement"):
                assert target.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{target} is not reached with {MAX_TABS} times Tab")

    def activate(self, target: Locator) -> None:
        """Reach an element and press Enter."""
        self.reach(target)
        self.n_activations += 1
        self.page.keyboard.press("Enter")

    def download(self, target: Locator, folder: Path) -> Path:
        """Activate a link to a file, and keep the file."""
        with self.page.expect_download() as waiting:
            self.activate(target)
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path
