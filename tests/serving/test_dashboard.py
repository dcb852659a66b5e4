"""The dashboard in a browser: every chart, by mouse, keyboard and phone, without a request to any other host."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from custseg_serving.keys import KeyFile
from tests.support.releases import make_content, make_release
from tests.support.server import RunningServer, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
CHARTS = ("segments", "heatmap", "migration", "verdicts", "drift", "history", "traffic")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("dashboard")
    make_release(home / "releases")
    with serving(home, "--workers", "1") as running:
        yield running


@contextlib.contextmanager
def open_dashboard(browser: Browser, server: RunningServer, **context: Any) -> Iterator[Page]:
    """Open the dashboard; fail on anything in the console and on any request to another host."""
    own = browser.new_context(**context)
    page, address = own.new_page(), f"http://127.0.0.1:{server.port}/"
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else problems.append(request.url))
    page.goto(address)
    yield page
    own.close()
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_shows_the_release_and_axe_finds_nothing_serious(
    browser: Browser, server: RunningServer, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    # axe runs in the page, which the page's own policy forbids to anything that is not served with it.
    with open_dashboard(browser, server, color_scheme=scheme, bypass_csp=True) as page:
        page.wait_for_selector("#traffic figure")
        for chart in CHARTS:
            assert page.locator(f"#{chart}").inner_text().strip(), chart
        assert page.locator("#drift svg").count() == 3
        assert page.locator("#drift circle.alert").count() == 1
        assert "stale" in page.locator("#alert").inner_text()
        page.locator("summary").click()
        assert page.locator("#card h3").all_inner_texts() == ["Model card"]
        found = axe.Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_moves_are_told_with_their_rates(browser: Browser, server: RunningServer, tmp_path: Path) -> None:
    note = "#migration-note"
    with open_dashboard(browser, server) as page:
        page.wait_for_selector("#migration td")
        text = page.locator(note).inner_text()
        assert "Of the customers in a segment of K-means, 20 % moved." in text
        assert "to and fro" not in text
    content = make_content()
    now = content.assignments.filter(period=content.window.key)
    earlier = now.with_columns(period=pl.lit("2011-09-01"))
    make_release(tmp_path / "releases", replace(content, assignments=pl.concat([earlier, content.assignments])))
    with serving(tmp_path, "--workers", "1") as other, open_dashboard(browser, other) as page:
        page.wait_for_selector("#migration td")
        assert "20 % went to and fro: back to where they were two snapshots ago." in page.locator(note).inner_text()


def test_search_finds_a_customer_with_the_keyboard_alone(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server) as page:
        page.wait_for_selector("#heatmap td")
        page.locator("#customer").focus()
        page.keyboard.type('C/ü "x"')
        page.keyboard.press("Enter")
        page.wait_for_selector(".result")
        assert 'C/ü "x": Promising (S2)' in page.locator("#found").inner_text()
        assert "REGENCY CAKESTAND" in page.locator("#found").inner_text()


def test_a_point_tells_its_value_on_hover_and_on_focus(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server) as page:
        point = page.locator("#drift circle.alert")
        point.hover()
        assert "alert" in page.locator("#tooltip").inner_text()
        page.keyboard.press("Escape")
        assert page.locator("#tooltip").is_hidden()
        page.locator("#heatmap td[tabindex]").first.focus()
        assert "typical customer" in page.locator("#tooltip").inner_text()


def test_nothing_is_wider_than_a_phone(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server, viewport={"width": 360, "height": 700}) as page:
        page.wait_for_selector("#heatmap td")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_text_from_the_shop_is_never_markup(browser: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    content = make_content()
    profiles = content.segment_profiles.with_columns(segment_name=pl.lit(evil), description=pl.lit(evil))
    make_release(tmp_path / "releases", replace(content, segment_profiles=profiles, model_card=f"# {evil}\n\n{evil}"))
    with serving(tmp_path, "--workers", "1") as server, open_dashboard(browser, server) as page:
        page.wait_for_selector("#heatmap td")
        assert evil in page.locator("#segments").inner_text()
        assert page.locator("img").count() == 0


def test_the_page_asks_for_a_key_and_lets_in_who_has_one(browser: Browser, tmp_path: Path) -> None:
    make_release(tmp_path / "releases")
    token = KeyFile(tmp_path / "keys.json").create("somebody", ["lookup"], 500)
    with serving(tmp_path, "--workers", "1") as server:
        own = browser.new_context()
        page = own.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("#login-form")
        page.fill("#key", "csk_no_no")
        page.keyboard.press("Enter")
        page.get_by_text("This is not a valid API key.").wait_for()
        page.fill("#key", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#heatmap td")
        page.click("#logout button")
        page.wait_for_selector("#login-form")
        own.close()
