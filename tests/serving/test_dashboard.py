"""The dashboard's first page in a browser: what it shows, by mouse, keyboard and phone, and who may see it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from werkzeug.serving import make_server

from custseg_serving.keys import KeyFile
from custseg_serving.settings import ServingSettings
from tests.support.dashboard import open_dashboard, wait_until
from tests.support.releases import make_content, make_release
from tests.support.server import RunningServer, open_app, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

SHOWN = ("write-to", "still-true", "segments", "heatmap", "moves", "drift", "models", "traffic")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("dashboard")
    make_release(home / "releases")
    with serving(home, "--workers", "1") as running:
        yield running


def test_every_section_shows_the_release(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#traffic figure")
        page.wait_for_selector("#segments .segment")
        for section in SHOWN:
            assert page.locator(f"#{section}").inner_text().strip(), section
        assert "Overdue: this is as of 1 December 2011" in page.locator("#alert").inner_text()
        assert page.locator("#provenance").inner_text() == "November 2011, as of 1 December 2011"
        assert page.locator("#demo").is_hidden()
        page.locator("#card-details summary").click()
        assert page.locator("#card h3").all_inner_texts() == ["Model card"]


def test_drift_is_ranked_by_how_far_it_is_over_its_threshold_and_charts_open_on_demand(
    browser: Browser, server: RunningServer
) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#segments .segment")
        assert "Changed" in page.locator("#drift .lead").inner_text()
        subjects = page.locator("#drift > ol h3").all_inner_texts()
        assert [" ".join(one.split()) for one in subjects] == ["Orders more than chance"]
        assert "0.3, alerts from 0.25" in page.locator("#drift > ol").inner_text()
        page.get_by_text("2 more are within what is expected").click()
        calm = [" ".join(one.split()) for one in page.locator("#drift details ol h3").all_inner_texts()]
        assert calm == ["Days since last order within what is expected", "Net spend not measured"]
        assert page.locator("#drift svg").count() == 0
        page.get_by_text("Every score over 2 snapshots").click()
        wait_until(page, lambda: page.locator("#drift svg").count() == 3)
        assert page.locator("#drift circle.alert").count() == 1


def test_bars_reach_to_a_hundred_percent(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#segments .segment")
        bars = page.locator("#segments .bar").evaluate_all(
            "all => all.map((bar) => [bar.querySelector('.fill').offsetWidth / bar.querySelector('.track').offsetWidth,"
            " parseFloat(bar.querySelector('.bar-figure').textContent.replace('−', '-'))])"
        )
        assert len(bars) == 10
        for width, percent in bars:
            assert width == pytest.approx(max(percent, 0) / 100, abs=0.01)


def test_moves_are_told_with_their_rates(browser: Browser, server: RunningServer, tmp_path: Path) -> None:
    note = "#moves-note"
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#moves td")
        text = page.locator(note).inner_text()
        assert "From October 2011 (rows) to November 2011 (columns)" in text
        assert "Of the customers in a segment of K-means, 20 % moved." in text
        assert "to and fro" not in text
    content = make_content()
    now = content.assignments.filter(period=content.window.key)
    earlier = now.with_columns(period=pl.lit("2011-09-01"))
    make_release(tmp_path / "releases", replace(content, assignments=pl.concat([earlier, content.assignments])))
    with serving(tmp_path, "--workers", "1") as other, open_dashboard(browser, other.port) as page:
        page.wait_for_selector("#moves td")
        assert "20 % went to and fro: back to where they were two snapshots ago." in page.locator(note).inner_text()


def changed_data(page: Page, **changes: Any) -> None:
    """Let the release be told otherwise from now on, and open the page again."""

    def answer(route: Route) -> None:
        answered = route.fetch()
        route.fulfill(response=answered, json={**answered.json(), **changes})

    page.route("**/dashboard/data", answer)
    page.reload()
    page.wait_for_selector("#segments .segment")


def test_amounts_have_the_shops_currency_and_none_where_it_is_not_known(
    browser: Browser, server: RunningServer
) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#segments .segment")
        segment = page.locator(".segment", has_text="Promising")
        assert "1,922" in segment.inner_text()
        assert "£" not in page.locator("main").inner_text()
        changed_data(page, currency="GBP")
        assert "£1,922" in segment.inner_text()
        changed_data(page, currency="EUR")
        assert "€1,922" in segment.inner_text()
        changed_data(page, currency="not one")
        assert "1,922 not one" in segment.inner_text()


def test_the_demo_says_that_it_is_the_demo_and_is_never_overdue(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        manifest = json.loads(server.get("/dashboard/data")[1])["manifest"]
        changed_data(page, manifest={**manifest, "is_demo": True})
        assert "This is the demo" in page.locator("#demo").inner_text()
        assert page.locator("#alert").is_hidden()
        assert "Overdue" not in page.locator("#still-true").inner_text()


def test_a_period_that_is_not_over_is_so_far(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        changed_data(page, is_open=True)
        assert page.locator("#provenance").inner_text() == "November 2011 so far, as of 1 December 2011"
        assert "November 2011 is not over yet" in page.locator("#still-true").inner_text()
        assert "to November 2011 so far (columns)" in page.locator("#moves-note").inner_text()


def test_weeks_and_days_are_called_so(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        manifest = {
            "period": "2011-11-21",
            "as_of": "2011-11-28T00:00:00",
            "window_start": "2011-10-17T00:00:00",
            "trained_on": "2011-11-07",
        }
        changed_data(page, manifest=manifest, period=manifest["period"], as_of=manifest["as_of"])
        assert page.locator("#provenance").inner_text() == "week of 21 November 2011, as of 28 November 2011"
        assert "Trained on week of 7 November 2011" in page.locator("#still-true").inner_text()


def test_a_slow_answer_shows_that_it_loads(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#segments .segment")
        held: list[Route] = []

        def hold(route: Route) -> None:
            held.append(route)

        page.route("**/v1/customers?*", hold)
        page.get_by_role("link", name="All customers").click()
        page.wait_for_selector("html.is-waiting #list[aria-busy]")
        assert "Loading" in page.locator("#list").inner_text()
        wait_until(page, lambda: bool(held))
        held[0].continue_()
        page.wait_for_selector("#list td")
        assert page.locator(".is-waiting, [aria-busy]").count() == 0


def test_search_finds_a_customer_with_the_keyboard_alone(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#heatmap td")
        page.locator("#search-text").focus()
        page.keyboard.type('C/ü "x"')
        page.keyboard.press("Enter")
        page.wait_for_selector("#history svg")
        assert page.locator("h1").inner_text() == 'Customer C/ü "x"'
        assert "REGENCY CAKESTAND" in page.locator("#placement").inner_text()
        assert page.evaluate("document.activeElement.id") == "customer-title"


def test_a_value_tells_more_on_hover_and_on_focus_until_escape(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        page.get_by_text("Every score over 2 snapshots").click()
        page.locator("#drift circle.alert").hover()
        assert "alert" in page.locator("#tooltip").inner_text()
        page.keyboard.press("Escape")
        assert page.locator("#tooltip").is_hidden()
        page.mouse.move(0, 0)
        page.locator("#heatmap td [tabindex='0']").first.focus()
        assert "typical customer" in page.locator("#tooltip").inner_text()


def test_the_skip_link_leads_past_the_sections(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#write-to table, #write-to p")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")


def test_the_page_asks_for_a_key_and_lets_in_who_has_one_to_the_address_that_was_asked_for(
    browser: Browser, tmp_path: Path
) -> None:
    make_release(tmp_path / "releases")
    token = KeyFile(tmp_path / "keys.json").create("somebody", ["lookup"], 500)
    with serving(tmp_path, "--workers", "1") as server:
        own = browser.new_context()
        page = own.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/customers?segment=S1")
        page.wait_for_selector("#login-form")
        page.fill("#key", "csk_no_no")
        page.keyboard.press("Enter")
        page.get_by_text("This is not a valid API key.").wait_for()
        page.fill("#key", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#list td")
        assert page.locator("h1").inner_text() == "Champions"
        page.click("#logout button")
        page.wait_for_selector("#login-form")
        own.close()


def test_a_home_without_a_release_is_told_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with open_app(ServingSettings(tmp_path, is_open=True)) as application:
        empty = make_server("127.0.0.1", 0, application, threaded=True)
        thread = threading.Thread(target=empty.serve_forever)
        thread.start()
        try:
            with open_dashboard(browser, empty.port, expected=("503",)) as page:
                page.get_by_text("There is nothing to show yet").wait_for()
                assert "custseg run --source" in page.locator("main").inner_text()
        finally:
            empty.shutdown()
            thread.join()
            empty.server_close()


def test_an_answer_that_does_not_come_is_told_and_can_be_asked_for_again(
    browser: Browser, server: RunningServer
) -> None:
    with open_dashboard(browser, server.port, expected=("Failed to load resource",)) as page:
        page.wait_for_selector("#segments .segment")
        page.route("**/dashboard/data", lambda route: route.abort())
        page.reload()
        page.get_by_text("The service does not answer.").wait_for()
        page.unroute("**/dashboard/data")
        page.get_by_role("link", name="Try again").click()
        page.wait_for_selector("#segments .segment")
