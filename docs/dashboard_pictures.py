"""Pictures of the dashboard for the documentation, taken in Chromium from a service that runs."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

WIDTH, PHONE_WIDTH, MARGIN = 1240, 390, 16
COLOURS, FREQUENT = 256, 64
"""Colours that a picture keeps, and how many of them for being frequent: a third of the bytes of full colour."""


def take_dashboard_pictures(address: str, key: str | None, folder: Path) -> list[Path]:
    """Take ``dashboard-*.png`` of every view.

    Args:
        address: of the service, such as ``http://127.0.0.1:8080``.
        key: with the scope ``lookup``; ``None`` where the service needs none.
        folder: that they are written to.

    Raises:
        RuntimeError: Chromium is not installed.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("got no chromium on the path; expected one to take pictures with; install it")
    headers = {"X-API-Key": key} if key else {}
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, (take, width, scheme) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
                reduced_motion="reduce",
                extra_http_headers=headers,
            )
            page.goto(address)
            page.wait_for_selector("#segments .segment")
            page.wait_for_selector("html:not(.is-waiting)")
            path = folder / f"dashboard-{name}.png"
            path.write_bytes(_reduced(take(page)))
            taken.append(path)
            page.close()
        browser.close()
    return taken


def _first_page(page: Page) -> bytes:
    return _from_top_to(page, "#true-section")


def _segments(page: Page) -> bytes:
    return _from_to(page, "#segments-section", "#heatmap-section")


def _movement(page: Page) -> bytes:
    return _from_to(page, "#moves-section", "#drift-section")


def _list(page: Page) -> bytes:
    page.get_by_role("link", name=re.compile(r"^All [\d,]+ of them$")).click()
    page.wait_for_selector("#list td")
    return page.screenshot()


def _customer(page: Page) -> bytes:
    page.locator("#write-to tbody a").first.click()
    page.wait_for_selector("#history svg")
    return _from_top_to(page, ".columns")


def _phone(page: Page) -> bytes:
    return page.screenshot()


PICTURES: Mapping[str, tuple[Callable[[Page], bytes], int, str]] = {
    "first-page": (_first_page, WIDTH, "light"),
    "segments": (_segments, WIDTH, "light"),
    "movement": (_movement, WIDTH, "light"),
    "list": (_list, 1440, "light"),
    "customer": (_customer, WIDTH, "light"),
    "dark": (_first_page, WIDTH, "dark"),
    "phone": (_phone, PHONE_WIDTH, "light"),
}
"""Each picture: how it is taken from the overview, how wide the page is, and its colours."""


def _from_top_to(page: Page, last: str) -> bytes:
    return _slice(page, 0.0, _edge(page, last, "bottom") + MARGIN)


def _from_to(page: Page, first: str, last: str) -> bytes:
    return _slice(page, _edge(page, first, "top") - MARGIN, _edge(page, last, "bottom") + MARGIN)


def _edge(page: Page, selector: str, side: str) -> float:
    return float(page.locator(selector).evaluate(f"element => element.getBoundingClientRect().{side} + scrollY"))


def _slice(page: Page, top: float, bottom: float) -> bytes:
    width = float(page.evaluate("innerWidth"))
    return page.screenshot(full_page=True, clip={"x": 0.0, "y": top, "width": width, "height": bottom - top})


def _reduced(picture: bytes) -> bytes:
    """The picture with its most frequent colours, and those furthest from them; all others become the nearest."""
    # Pillow's own ways to a palette shift the page's white, and lose the colours of small things.
    full = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    pixels = full.astype(np.int64)
    codes = (pixels[..., 0] << 16) + (pixels[..., 1] << 8) + pixels[..., 2]
    unique, first, places, n_pixels = np.unique(
        codes.ravel(), return_index=True, return_inverse=True, return_counts=True
    )
    colours = pixels.reshape(-1, 3)[first]
    chosen = [*np.argsort(-n_pixels)[:FREQUENT]]
    distances = np.stack([((colours - colours[one]) ** 2).sum(axis=1) for one in chosen])
    while len(chosen) < min(COLOURS, len(unique)):
        chosen.append(distances.min(axis=0).argmax())
        distances = np.vstack([distances, ((colours - colours[chosen[-1]]) ** 2).sum(axis=1)])
    image = Image.fromarray(distances.argmin(axis=0)[places].reshape(codes.shape).astype(np.uint8), "P")
    image.putpalette(colours[chosen].astype(np.uint8).tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
