"""The dashboard's lists of customers: ways into one, its order, restrictions, pages, address and file."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlparse

import polars as pl
import pytest

from custseg_assets.stores.release_writer import ReleaseContent
from tests.support.dashboard import PHONE, open_dashboard, settle, wait_until
from tests.support.releases import PERIODS, make_assignments, make_content, make_features, make_model, make_release
from tests.support.server import RunningServer, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

N_CUSTOMERS, PAGE = 131, 50
EVIL = "=<img src=x onerror=alert(1)>"


def make_shop(last: str = "c129") -> ReleaseContent:
    """131 customers: some moved to another segment, ten were not known before, and one has lapsed.

    Args:
        last: id of the last customer.
    """
    model = make_model()
    customers = [(f"c{n:03}", 5 + n, 1 + (7 * n) % 11, 20.0 + (37 * n) % 1_000) for n in range(N_CUSTOMERS - 2)]
    customers.append((last, 60, 3, 500.25))
    earlier = [(name, 2, 9, 2_500.0) if n < 10 else (name, *rest) for n, (name, *rest) in enumerate(customers[:-10])]
    content, features_before = make_content(model, customers), make_features(earlier, PERIODS[0])
    now = content.assignments.collect().filter(period=PERIODS[1])
    before = make_assignments(features_before, model)
    moved = now.join(before, on="customer_id").filter(pl.col("segment_id") != pl.col("segment_id_right"))
    migrations = pl.DataFrame({"customer_id": moved["customer_id"], "cause": ["behaviour"] * moved.height})
    return replace(
        content,
        assignments=pl.concat([before, now]).lazy(),
        earlier_features=features_before.lazy(),
        segment_migrations=migrations,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("lists")
    make_release(home / "releases", make_shop())
    with serving(home, "--workers", "1") as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    with open_dashboard(browser, server.port, "/customers") as opened:
        opened.wait_for_selector("#list td")
        yield opened


def ask(server: RunningServer, path: str) -> Any:
    return json.loads(server.get(path)[1])


def ids(page: Page) -> list[str]:
    return page.locator("#list tbody th").all_inner_texts()


def parameters(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def test_a_heading_orders_the_list_and_keeps_the_focus(page: Page, server: RunningServer) -> None:
    page.get_by_role("link", name="Spend", exact=True).focus()
    for sort, shown in (("-monetary_net", "descending"), ("monetary_net", "ascending")):
        page.keyboard.press("Enter")
        page.wait_for_url(f"**sort={sort}")
        settle(page)
        assert page.locator("th[aria-sort]").all_inner_texts() == ["Spend"]
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == shown
        right = ask(server, f"/v1/customers?sort={sort}")["customers"]
        assert ids(page) == [one["customer_id"] for one in right]
        assert page.evaluate("document.activeElement.textContent") == "Spend"


def test_pages_go_on_and_back_and_the_address_of_one_can_be_shared(
    page: Page, browser: Browser, server: RunningServer
) -> None:
    seen = [ids(page)]
    for _ in range(2):
        page.get_by_role("link", name="Next").click()
        wait_until(page, lambda: ids(page)[:1] != seen[-1][:1])
        settle(page)
        seen.append(ids(page))
    everybody = ask(server, "/v1/customers?limit=500")["customers"]
    assert [one for part in seen for one in part] == [one["customer_id"] for one in everybody]
    assert "101–131 of 131" in page.locator("#pager").inner_text()
    assert page.get_by_role("link", name="Next").count() == 0
    with open_dashboard(browser, server.port, page.url.split(str(server.port))[1]) as other:
        other.wait_for_selector("#list td")
        assert ids(other) == seen[2]
    page.get_by_role("link", name="Back").click()
    page.get_by_text("51–100 of 131").wait_for()
    assert ids(page) == seen[1]
    page.go_back()
    page.get_by_text("101–131 of 131").wait_for()
    assert ids(page) == seen[2]
    page.reload()
    page.get_by_text("101–131 of 131").wait_for()
    assert ids(page) == seen[2]


def test_the_form_restricts_the_list_and_each_restriction_can_be_taken_away(page: Page, server: RunningServer) -> None:
    page.get_by_label("Segment", exact=True).select_option("Promising")
    page.get_by_label("Spend from").fill("100.5")
    page.get_by_label("Orders to").fill("6")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**min_spend**")
    settle(page)
    wanted = {"segment": "S2", "min_spend": "100.5", "max_orders": "6", "sort": "-value_at_stake"}
    assert parameters(page) == wanted
    right = ask(server, "/v1/customers?segment=S2&min_spend=100.5&max_orders=6")
    assert ids(page) == [one["customer_id"] for one in right["customers"]]
    assert f"{right['n_customers']} customers" in page.locator("#totals").inner_text()
    assert page.locator(".chip").all_inner_texts() == ["now in Promising ×", "spend from 101 ×", "up to 6 orders ×"]
    page.get_by_role("link", name="Remove: up to 6 orders").press("Enter")
    wait_until(page, lambda: page.locator(".chip").count() == 2)
    settle(page)
    assert parameters(page) == {name: value for name, value in wanted.items() if name != "max_orders"}
    assert page.evaluate("document.activeElement.id") == "list-title"
    page.go_back()
    wait_until(page, lambda: page.locator(".chip").count() == 3)
    assert page.get_by_label("Orders to").input_value() == "6"


def test_the_file_is_the_list(page: Page, server: RunningServer) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/customers?segment=S3&sort=customer_id")
    page.wait_for_selector("#list td")
    address = page.locator("#totals a").get_attribute("href")
    assert address is not None
    found = pl.read_csv(io.BytesIO(server.get(address)[1]), infer_schema=False)
    everybody = ask(server, "/v1/customers?segment=S3&sort=customer_id&limit=500")["customers"]
    assert found["customer_id"].to_list() == [one["customer_id"] for one in everybody]
    assert ids(page) == found["customer_id"].to_list()[:PAGE]
    assert found["spend"].cast(pl.Float64).to_list() == [one["monetary_net"] for one in everybody]


def test_the_file_has_decimal_commas_where_the_language_does(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port, "/customers", locale="de-DE") as page:
        address = page.locator("#totals a").get_attribute("href")
    assert address is not None
    found = pl.read_csv(io.BytesIO(server.get(address)[1]), separator=";", decimal_comma=True)
    assert found["spend"].dtype == pl.Float64


def test_every_number_of_the_moves_opens_a_list_of_that_many(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port) as page:
        page.wait_for_selector("#moves td a")
        cells = page.locator("#moves td a:not([download])")
        found = cells.evaluate_all("all => all.map((one) => [one.getAttribute('href'), one.textContent])")
        assert len(found) >= 8
        shown = 0
        for address, n in found:
            query = urlparse(address).query
            assert ask(server, f"/v1/customers?{query}")["n_customers"] == int(n.replace(",", "")), address
            shown += int(n) if "segment=" in query else 0
        assert shown == N_CUSTOMERS
        cells.last.click()
        page.wait_for_selector("#list td")
        assert len(ids(page)) == min(int(found[-1][1]), PAGE)
        assert "not known before" in page.locator("#chips").inner_text()


def test_every_segment_opens_its_list(browser: Browser, server: RunningServer) -> None:
    profiles = {one["segment_name"]: one["n_customers"] for one in ask(server, "/v1/segments")["segments"]}
    with open_dashboard(browser, server.port) as page:
        for name, n in profiles.items():
            page.locator("#segments").get_by_role("link", name=name, exact=True).click()
            page.get_by_text(re.compile(f"^{n} customers?,?")).first.wait_for()
            assert page.locator("h1").inner_text() == name
            page.go_back()
            page.wait_for_selector("#segments .segment")


def test_a_part_of_an_id_finds_one_customer_or_a_list(browser: Browser, server: RunningServer) -> None:
    with open_dashboard(browser, server.port, expected=("404",)) as page:
        for text, path, heading in (
            ("c12", "/customers", "Customers"),
            ("C104", "/customer", "Customer c104"),
            ("nobody", "/customer", "Customer nobody"),
        ):
            page.wait_for_selector("#search-text")
            page.fill("#search-text", text)
            page.keyboard.press("Enter")
            page.wait_for_url(f"**{path}?*")
            settle(page)
            assert page.locator("h1").inner_text() == heading
            if path == "/customers":
                assert len(ids(page)) == 10
        assert "No customer with this id" in page.get_by_role("alert").last.inner_text()
        page.get_by_role("link", name="Customers whose id contains").click()
        page.get_by_text("No customer is like that.").wait_for()


def test_a_page_of_an_earlier_release_starts_the_list_anew_and_says_so(browser: Browser, tmp_path: Path) -> None:
    make_release(tmp_path / "releases", make_shop())
    expected = ("409",)
    with (
        serving(tmp_path, "--workers", "1") as other,
        open_dashboard(browser, other.port, "/customers?sort=customer_id", expected) as page,
    ):
        page.wait_for_selector("#list td")
        release_id = make_release(tmp_path / "releases", make_shop("0 is new"))
        while ask(other, "/readyz")["release_id"] != release_id:
            pass
        page.get_by_role("link", name="Next").click()
        page.get_by_text("the list starts anew").wait_for()
        settle(page)
        assert ids(page)[0] == "0 is new"
        assert parameters(page) == {"sort": "customer_id"}
        assert release_id in page.locator("#origin").inner_text()
        page.get_by_role("link", name="Next").click()
        page.get_by_text("51–100 of 131").wait_for()
        assert page.locator("#list-note").inner_text() == ""


def test_text_from_the_shop_is_never_markup_in_any_view(browser: Browser, tmp_path: Path) -> None:
    content = make_shop(EVIL)
    profiles = content.segment_profiles.with_columns(
        segment_name=pl.lit(EVIL), description=pl.lit(EVIL), advice=pl.lit(EVIL)
    )
    offers = content.product_recommendations.with_columns(description=pl.lit(EVIL))
    changed = replace(
        content, segment_profiles=profiles, product_recommendations=offers, model_card=f"# {EVIL}\n\n{EVIL}"
    )
    make_release(tmp_path / "releases", changed)
    with serving(tmp_path, "--workers", "1") as other, open_dashboard(browser, other.port) as page:
        page.wait_for_selector("#segments .segment")
        assert EVIL in page.locator("#segments").inner_text()
        page.fill("#search-text", "<img")
        page.keyboard.press("Enter")
        page.wait_for_selector("#history svg")
        assert page.locator("h1").inner_text() == f"Customer {EVIL}"
        assert EVIL in page.locator("#placement").inner_text()
        page.get_by_role("link", name="Customers whose id contains").click()
        page.wait_for_selector("#list td")
        assert ids(page) == [EVIL]
        assert page.locator("img").count() == 0
        page.locator("#list tbody a").click()
        page.wait_for_selector("#history svg")
        assert page.locator("h1").inner_text() == f"Customer {EVIL}"


def test_customers_are_cards_on_a_phone_and_a_wide_table_says_that_it_scrolls(
    browser: Browser, server: RunningServer
) -> None:
    with open_dashboard(browser, server.port, "/customers", viewport=PHONE) as page:
        page.wait_for_selector("#list td")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        box = page.locator("#list tbody tr").first.bounding_box()
        assert box is not None
        assert box["width"] < PHONE["width"]
        heights = page.locator("#list tbody tr").evaluate_all("all => all.map((one) => one.offsetHeight)")
        assert max(heights) < 400
        page.goto(f"http://127.0.0.1:{server.port}/")
        hint = page.locator("#moves .hint")
        wait_until(page, hint.is_visible)
        page.locator("#moves .scroll").evaluate("one => { one.scrollLeft = one.scrollWidth; }")
        wait_until(page, hint.is_hidden)


def test_an_address_that_asks_for_what_there_is_not_gets_a_readable_error(
    browser: Browser, server: RunningServer
) -> None:
    with open_dashboard(browser, server.port, "/customers?segment=S9", expected=("404",)) as page:
        page.locator("#list [role=alert]").wait_for()
        assert "There is no segment 'S9'" in page.locator("#list").inner_text()
        page.get_by_role("link", name="Show all customers").click()
        page.wait_for_selector("#list td")
        assert page.locator("#list [role=alert]").count() == 0


def test_who_is_held_out_of_a_campaign_is_in_no_list_and_is_said(browser: Browser, tmp_path: Path) -> None:
    content = replace(make_shop(), held_out=pl.Series(["c005", "c012"]))
    make_release(tmp_path / "releases", content)
    with serving(tmp_path) as server, open_dashboard(browser, server.port, "/customers") as page:
        page.wait_for_selector("#list td")
        said = page.locator("#totals").inner_text()
        assert f"{N_CUSTOMERS - 2} customers" in said
        assert "2 more customers held out of a running campaign, in no list" in said
        assert {"c005", "c012"}.isdisjoint(ids(page))
        # Who looks for one of them finds it all the same.
        page.get_by_role("searchbox").fill("c005")
        page.keyboard.press("Enter")
        page.wait_for_url("**/customer?id=c005")
