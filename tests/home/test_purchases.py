"""Who bought what in each window: what a plain look at the lines of the window says, whatever was read before."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.purchases import Pairs, list_descriptions, list_pairs
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, SEGMENT_ASSIGNMENTS
from custseg_assets.domain.slices import EVERYBODY, cut_ranges
from custseg_assets.home.open import OpenHome
from custseg_assets.home.purchases import Purchases
from custseg_assets.settings import load_settings
from tests.support.shops import fill_shop, shop_log


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> OpenHome:
    """A home whose newest snapshot is open: its window begins in the middle of a month."""
    log = shop_log(9).filter(pl.col("invoiced_at") < datetime(2024, 9, 14))
    shop = fill_shop(tmp_path_factory.mktemp("purchases"), log)
    return OpenHome(load_settings(shop.home.with_name("home.toml"), home=shop.home, environment={}))


def in_words(pairs: Pairs) -> pl.DataFrame:
    """The pairs with ids instead of places."""
    ids = {"customer_id": pairs.customers.gather(pairs.who), "product_id": pairs.products.gather(pairs.what)}
    return pl.DataFrame(ids).hstack(pairs.bought.drop("who", "what")).sort("customer_id", "product_id")


@pytest.mark.parametrize("n_ranges", [1, 7])
def test_windows_have_the_pairs_and_texts_of_their_own_lines(home: OpenHome, n_ranges: int, tmp_path: Path) -> None:
    keys = home.calendar.snapshot_keys[-3:]
    assert home.calendar.window(keys[-1]).is_open
    customers = home.tables.read(SEGMENT_ASSIGNMENTS, keys[-1:])["customer_id"]
    ranges = cut_ranges(customers, n_ranges) if n_ranges > 1 else (EVERYBODY,)
    purchases = Purchases(home, customers, ranges, tmp_path)

    for key in keys:
        window, found = home.calendar.window(key), purchases.within(home.calendar.window(key))
        lines = home.tables.read(CLEAN_TRANSACTIONS, window.keys).filter(pl.col("invoiced_at") >= window.start)
        expected = list_pairs(lines, until=window.as_of, cut=datetime.fromisoformat(key))
        parts = [in_words(pairs) for _, pairs in found]
        assert len(parts) == len(ranges)
        assert pl.concat(parts).equals(in_words(expected))
        for _, pairs in found:
            assert pairs.bought.equals(pairs.bought.sort("who", "what"))
        texts = list_descriptions(lines, until=window.as_of)
        assert found.descriptions.sort("product_id").equals(texts.sort("product_id"))


@pytest.mark.parametrize("n_ranges", [1, 4])
def test_who_came_in_with_late_lines_is_in_the_pairs_too(home: OpenHome, n_ranges: int, tmp_path: Path) -> None:
    window = home.calendar.window(home.calendar.snapshot_keys[-1])
    customers = home.tables.read(SEGMENT_ASSIGNMENTS, [window.key])["customer_id"].gather_every(2)
    ranges = cut_ranges(customers, n_ranges) if n_ranges > 1 else (EVERYBODY,)
    lines = home.tables.read(CLEAN_TRANSACTIONS, window.keys).filter(pl.col("invoiced_at") >= window.start)

    found = Purchases(home, customers, ranges, tmp_path).within(window)

    pairs = pl.concat([in_words(pairs) for _, pairs in found]).sort("customer_id", "product_id")
    expected = list_pairs(lines, until=window.as_of, cut=datetime.fromisoformat(window.key))
    assert pairs.equals(in_words(expected))


def test_what_was_bought_before_the_begin_of_the_test_is_told_apart() -> None:
    cut = datetime(2024, 3, 1)
    bought = [("a", "tea", 1), ("a", "tea", 2), ("a", "tea", 4), ("a", "cup", 3), ("b", "tea", 2)]
    lines = pl.DataFrame(
        {
            "customer_id": [who for who, _, _ in bought],
            "product_id": [what for _, what, _ in bought],
            "invoiced_at": [datetime(2024, month, 1) for _, _, month in bought],
            "is_cancellation": False,
        }
    )

    pairs = list_pairs(lines, until=datetime(2024, 5, 1), cut=cut)

    months = pl.exclude("customer_id", "product_id").dt.month()
    assert in_words(pairs).with_columns(months).rows() == [
        ("a", "cup", 3, 3, None),
        ("a", "tea", 1, 4, 2),
        ("b", "tea", 2, 2, 2),
    ]
    assert in_words(pairs.before(cut)).with_columns(months).rows() == [("a", "tea", 1, 2), ("b", "tea", 2, 2)]
    assert pairs.since(cut).buyers().to_list() == ["a"]
