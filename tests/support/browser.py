"""A browser for tests that look at a page as a person does: the system's Chromium, without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_page(width: int = 1600, height: int = 1000) -> Iterator[tuple[Page, list[str]]]:
    """An empty page, and the errors that whatever is opened in it reports; skips the test where there is no Chromium.

    Args:
        width: of the page, in pixels.
        height: of the page, in pixels.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed here")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*_FLAGS])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page, errors
        browser.close()
