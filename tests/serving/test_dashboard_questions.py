"""A marketer's five questions on a home that a run has filled: at most three clicks from ``/``, without a mouse.

1. Who should I write to this week? 2. Who left a segment, as a file? 3. What is at stake? 4. What is one customer's
history? 5. Is it still true?
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.support.dashboard import DESK, PHONE, Keyboard, open_dashboard, serious_problems
from tests.support.server import RunningServer, serving
from tests.support.shops import FilledShop, custseg

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MAX_CLICKS = 3
VIEWS = {"/": "#traffic figure", "/customers?sort=spend_change": "#list td", "/customer?id=A001": "#history svg"}


@pytest.fixture(scope="module")
def server(filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("questions")
    shutil.copytree(filled_shop.home / "releases", home / "releases")
    with serving(home, "--workers", "1") as running:
        yield running


@pytest.fixture(scope="module")
def tables(filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """The home's tables of the newest snapshots, as ``custseg export`` gives them."""
    folder = tmp_path_factory.mktemp("tables")
    found = {}
    for name in ("segment_assignments", "segment_migrations", "customer_features", "product_recommendations"):
        path = folder / f"{name}.parquet"
        assert custseg(filled_shop.home, "export", name, "--all", "--out", path).status == 0
        found[name] = pl.read_parquet(path)
    return found


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(browser: Browser, server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The dashboard, filled, at either size."""
    with open_dashboard(browser, server.port, viewport=request.param) as opened:
        opened.wait_for_selector("#write-to table")
        opened.wait_for_selector("#segments .segment")
        yield opened


def ask(server: RunningServer, path: str) -> Any:
    return json.loads(server.get(path)[1])


def written(amount: float) -> str:
    """An amount as the page writes it: halves are rounded up."""
    return f"{math.floor(amount + 0.5):,}"


def test_who_to_write_to(page: Page, server: RunningServer, tmp_path: Path) -> None:
    right = ask(server, "/v1/customers?at_risk=true&limit=500")["customers"]
    names = page.locator("#write-to tbody th").all_inner_texts()
    assert names == [one["customer_id"] for one in right[:5]]
    keyboard = Keyboard(page)
    keyboard.activate(page.get_by_role("link", name=f"All {len(right)} of them"))
    page.wait_for_selector("#list td")
    file = keyboard.download(page.locator("#totals").get_by_role("link"), tmp_path)
    assert pl.read_csv(file, infer_schema=False)["customer_id"].to_list() == [one["customer_id"] for one in right]
    assert keyboard.n_activations <= MAX_CLICKS


def test_who_left_a_segment_as_a_file(page: Page, tables: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    moves = tables["segment_migrations"]
    last = moves.filter(period=moves["period"].max())
    segment, n_left = last["from_segment_name"].value_counts(sort=True).row(0)
    keyboard = Keyboard(page)
    keyboard.activate(page.locator("#nav").get_by_role("link", name="Moves"))
    file = keyboard.download(page.get_by_role("link", name=f"CSV of the {n_left} who left {segment}"), tmp_path)
    found = pl.read_csv(file, infer_schema=False)
    right = last.filter(from_segment_name=segment)
    columns = ("customer_id", "moved_from", "segment_id", "cause")
    assert set(found.select(columns).iter_rows()) == set(
        right.select("customer_id", "from_segment_name", "to_segment_id", "cause").iter_rows()
    )
    assert keyboard.n_activations <= MAX_CLICKS


def test_what_is_at_stake(page: Page, server: RunningServer) -> None:
    at_risk = ask(server, "/v1/customers?at_risk=true")
    assert f"{written(at_risk['value_at_stake'])} at stake" in page.locator("#write-to").inner_text()
    shown = page.locator("#segments .segment").first.inner_text()
    by_segment = [
        ask(server, f"/v1/customers?at_risk=true&segment={one['segment_id']}")["value_at_stake"]
        for one in ask(server, "/v1/segments")["segments"]
    ]
    assert written(max(by_segment)) in shown


def test_the_history_of_a_customer(page: Page, tables: dict[str, pl.DataFrame]) -> None:
    keyboard = Keyboard(page)
    keyboard.reach(page.locator("#search-text"))
    page.keyboard.type("A007")
    keyboard.n_activations += 1
    page.keyboard.press("Enter")
    page.wait_for_selector("#history tbody tr")
    found = [text.replace(" so far", "") for text in page.locator("#history tbody th").all_inner_texts()]
    known = tables["segment_assignments"].filter(customer_id="A007").sort("period", descending=True)
    assert found == known["period"].str.to_date().dt.strftime("%B %Y").to_list()
    assert page.locator("#history tbody .segment-label").all_inner_texts() == known["segment_name"].to_list()
    assert page.locator("#history rect").count() == known.height
    assert keyboard.n_activations <= MAX_CLICKS


def test_whether_it_is_still_true(page: Page, server: RunningServer) -> None:
    text = page.locator("#still-true").inner_text()
    assert "As of" in text
    assert "Overdue" in text
    verdict = ask(server, "/dashboard/data")["drift"][-1]["verdict"]
    shown = {"stable": "Stable", "watch": "Watch", "breach": "Changed", "not enough data": "Not enough data"}[verdict]
    keyboard = Keyboard(page)
    keyboard.activate(page.locator("#nav").get_by_role("link", name="Changes"))
    assert shown in page.locator("#drift .lead").inner_text()
    assert page.locator("#drift-section").evaluate("element => element.getBoundingClientRect().top") < 844
    assert keyboard.n_activations <= MAX_CLICKS


def test_the_file_of_all_customers_is_what_the_tables_say(
    server: RunningServer, tables: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(server.get("/v1/customers.csv?sort=customer_id")[1])
    found = pl.read_csv(path, infer_schema=False)
    before, now = tables["segment_assignments"]["period"].unique().sort()[-2:]
    assigned = tables["segment_assignments"].filter(period=now).sort("customer_id")
    features = tables["customer_features"]
    spend = features.filter(period=now).select("customer_id", "recency_days", "frequency_orders", "monetary_net")
    earlier = (
        tables["segment_assignments"]
        .filter(period=before)
        .select("customer_id", was=pl.col("segment_id"), was_in=pl.col("segment_name"))
    )
    spend_before = features.filter(period=before).select("customer_id", then="monetary_net")
    offers = tables["product_recommendations"].filter(period=now).sort("customer_id", "rank")
    right = (
        assigned.select("customer_id", "segment_id", segment="segment_name")
        .join(spend, on="customer_id", how="left")
        .join(earlier, on="customer_id", how="left")
        .join(spend_before, on="customer_id", how="left")
        .with_columns(then=pl.when(pl.col("was").is_not_null()).then(pl.col("then").fill_null(0.0)))
        .with_columns(spend=pl.col("monetary_net").fill_null(0.0), orders=pl.col("frequency_orders").fill_null(0))
        .with_columns(change=pl.col("spend") - pl.col("then"), recency=pl.col("recency_days"))
        .with_columns(at_stake=pl.max_horizontal("spend", "then", pl.lit(0.0)))
        .sort("customer_id")
    )
    for column in ("customer_id", "segment_id", "segment"):
        assert found[column].to_list() == right[column].to_list()
    for column in ("recency", "orders", "spend", "change", "at_stake"):
        assert found[column].cast(pl.Float64).to_list() == pytest.approx(
            right[column].cast(pl.Float64).to_list(), abs=1e-6, nan_ok=True
        )
    moved = right.select(pl.when(pl.col("was") != pl.col("segment_id")).then("was_in"))["was_in"].to_list()
    assert found["moved_from"].to_list() == moved
    products = dict(offers.group_by("customer_id", maintain_order=True).agg("product_id").iter_rows())
    for customer_id, text in found.select("customer_id", "offers").iter_rows():
        named = [one.split(" ", 1)[0] for one in (text or "").split("; ") if one]
        assert named == products.get(customer_id, [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("path", VIEWS)
def test_axe_finds_nothing_serious_in_any_view(
    browser: Browser, server: RunningServer, path: str, size: Any, scheme: Any
) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    # axe runs in the page, which the page's own policy forbids to anything that is not served with it.
    context = {"viewport": size, "color_scheme": scheme, "bypass_csp": True}
    with open_dashboard(browser, server.port, path, **context) as page:
        page.wait_for_selector(VIEWS[path])
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert serious_problems(page) == []
