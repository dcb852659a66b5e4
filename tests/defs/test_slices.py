"""Snapshots that are worked on a slice at a time: every table and the release are what they are as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.defs import checks, materialise
from custseg_assets.defs.checks import SuiteRun
from custseg_assets.domain import slices
from custseg_assets.domain.schemas import SEGMENT_ASSIGNMENTS, SEGMENT_MIGRATIONS
from custseg_assets.domain.slices import cut_ranges
from custseg_assets.home import offers
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import TABLES_OF_JOB
from custseg_assets.home.purchases import SCRATCH, Purchases
from custseg_assets.settings import load_settings
from custseg_assets.stores.files import scratch_folder
from custseg_assets.stores.releases import current
from custseg_assets.stores.tables import TableStore
from tests.support.homes import require_same_tables
from tests.support.shops import FilledShop, fill_shop, shop_log

N_AT_ONCE = 45
"""Of 160 customers: four slices, the cuts of which fall among those who are alike."""


@contextlib.contextmanager
def in_slices(n_at_once: int) -> Iterator[None]:
    """Snapshots of more than so many customers are cut into slices of so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "SLICED_FROM", n_at_once)
        patch.setattr(slices, "CUSTOMERS_AT_ONCE", n_at_once)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FilledShop:
    return fill_shop(tmp_path_factory.mktemp("whole"), shop_log(5))


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> FilledShop:
    with in_slices(N_AT_ONCE):
        return fill_shop(tmp_path_factory.mktemp("sliced"), shop_log(5))


def opened(shop: FilledShop) -> OpenHome:
    return OpenHome(load_settings(shop.home.with_name("home.toml"), home=shop.home, environment={}))


def test_slices_change_no_value_of_any_table_and_no_byte_of_the_release(whole: FilledShop, sliced: FilledShop) -> None:
    require_same_tables(whole.home, sliced.home)
    assert current(whole.home / "releases") == current(sliced.home / "releases")
    moves = TableStore(sliced.home / "tables").sizes(SEGMENT_MIGRATIONS)
    assert max(moves.values()) > 0


def test_many_lines_of_few_customers_are_offered_by_slices_to_the_same_end(
    whole: FilledShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = opened(whole)
    keys = home.calendar.snapshot_keys[-2:]
    assert len(offers.ranges_of_offers(home, keys)) == 1
    expected, outcomes = made(home, keys)
    monkeypatch.setattr(offers, "LINES_AT_ONCE", 300)
    assert len(offers.ranges_of_offers(home, keys)) > 5
    parts, outcomes_of_parts = made(home, keys)
    assert parts.equals(expected)
    for key in keys:
        assert outcomes_of_parts[key].sentence == outcomes[key].sentence
        assert outcomes_of_parts[key].segment_products.equals(outcomes[key].segment_products)


def made(home: OpenHome, keys: Sequence[str]) -> tuple[pl.DataFrame, dict[str, offers.Outcome]]:
    outcomes = dict[str, offers.Outcome]()
    with home.locked() as locked, scratch_folder(locked.paths.root, SCRATCH) as folder:
        customers = locked.tables.read(SEGMENT_ASSIGNMENTS, keys[-1:])["customer_id"]
        purchases = Purchases(locked, customers, offers.ranges_of_offers(locked, keys), folder)
        parts = [part for key in keys for part in offers.offer(locked, key, purchases, outcomes)]
    return pl.concat(parts), outcomes


def test_a_home_that_was_made_in_slices_is_not_stale_when_looked_at_as_a_whole(sliced: FilledShop) -> None:
    home = opened(sliced)
    assert home.fingerprints.stale(TABLES_OF_JOB["snapshot"], home.calendar.snapshot_keys) == ()


def test_nothing_is_left_of_the_slices_on_disk(sliced: FilledShop) -> None:
    assert [
        path.name for path in sliced.home.iterdir() if path.name.startswith((".slices", ".purchases", ".value"))
    ] == []


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".slices-killed").mkdir()
    (tmp_path / ".slices-killed" / "0.parquet").write_bytes(b"half")
    with scratch_folder(tmp_path, ".slices-") as folder:
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert not folder.exists()


def slices_of(home: OpenHome, key: str, n: int) -> list[pl.DataFrame]:
    ids = home.tables.read(SEGMENT_ASSIGNMENTS, [key])["customer_id"]
    return [home.tables.read(SEGMENT_ASSIGNMENTS, [key], within=one) for one in cut_ranges(ids, n)]


@pytest.mark.parametrize("n", [1, 3, 8])
def test_checks_say_of_slices_what_they_say_of_the_whole(whole: FilledShop, n: int) -> None:
    home = opened(whole)
    key = home.calendar.snapshot_keys[-1]
    rows = home.tables.read(SEGMENT_ASSIGNMENTS, [key])
    kept: list[pl.DataFrame] = []
    as_whole, as_slices = SuiteRun(SEGMENT_ASSIGNMENTS, home), SuiteRun(SEGMENT_ASSIGNMENTS, home)
    assert not as_whole.check([rows])
    assert not as_slices.check_slices(slices_of(home, key, n), kept.append)
    assert pl.concat(kept).equals(rows)
    assert [described(one) for one in as_slices.results()] == [described(one) for one in as_whole.results()]


def described(result: Any) -> tuple[object, ...]:
    return (
        result.check_name,
        result.passed,
        result.severity,
        *(result.metadata[name].value for name in ("summary", "n_rows", "n_unexpected")),
    )


def test_a_rule_about_all_rows_is_not_broken_by_a_slice_of_one_cluster(whole: FilledShop) -> None:
    home = opened(whole)
    key = home.calendar.snapshot_keys[-1]
    rows = home.tables.read(SEGMENT_ASSIGNMENTS, [key])
    # Ids that tell the cluster: each slice holds one.
    order = rows.sort("cluster", "customer_id").with_columns(
        customer_id=pl.format("{}", pl.int_range(pl.len()).cast(pl.String).str.zfill(4))
    )
    parts = [part for _, part in order.group_by("cluster", maintain_order=True)]
    suite = SuiteRun(SEGMENT_ASSIGNMENTS, home)
    suite.check_slices(parts, lambda _: None)
    assert all(result.passed for result in suite.results())
    # And it is broken where all rows are of one cluster.
    suite = SuiteRun(SEGMENT_ASSIGNMENTS, home)
    suite.check_slices([parts[-1].head(3), parts[-1].slice(3)], lambda _: None)
    assert [result.check_name for result in suite.results() if not result.passed] == ["no_empty_segment"]


def test_one_wrong_row_in_one_slice_blocks_the_partition(whole: FilledShop) -> None:
    home = opened(whole)
    parts = slices_of(home, home.calendar.snapshot_keys[-1], 4)
    parts[1] = parts[1].with_columns(
        margin=pl.when(pl.int_range(pl.len()) == 2).then(7.0).otherwise("margin")  # a margin is at most 1
    )
    suite = SuiteRun(SEGMENT_ASSIGNMENTS, home)
    assert suite.check_slices(parts, lambda _: None)
    [broken] = [result for result in suite.results() if not result.passed]
    assert (broken.check_name, broken.metadata["n_unexpected"].value) == ("margin_in_range", 1)


def test_a_customer_in_two_slices_is_refused(whole: FilledShop) -> None:
    home = opened(whole)
    one, other, *_ = slices_of(home, home.calendar.snapshot_keys[-1], 4)
    with pytest.raises(ValueError, match=r"a slice begins with .*, the one before ends with"):
        SuiteRun(SEGMENT_ASSIGNMENTS, home).check_slices([one, pl.concat([one.tail(1), other])], lambda _: None)


def test_a_blocked_partition_in_slices_is_written_but_not_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = fill_shop(tmp_path, shop_log(3))
    key = opened(shop).calendar.snapshot_keys[-1]
    home = opened(shop)
    assert home.tables.fingerprint_of(SEGMENT_ASSIGNMENTS.name, key)
    n_customers = home.tables.sizes(SEGMENT_ASSIGNMENTS)[key]
    monkeypatch.setattr(checks, "_is_blocking", lambda _: True)
    parts = iter(slices_of(home, key, 3))
    with home.locked() as locked:
        context: Any = _Context([key])
        materialise.materialise(context, locked, SEGMENT_ASSIGNMENTS, [([key], parts)])
        assert locked.tables.fingerprint_of(SEGMENT_ASSIGNMENTS.name, key) is None
        assert locked.tables.sizes(SEGMENT_ASSIGNMENTS)[key] == n_customers


class _Context:
    """As much of Dagster's context as ``materialise`` uses."""

    def __init__(self, partition_keys: list[str]) -> None:
        self.partition_keys, self.log = partition_keys, self

    def info(self, *_: object) -> None: ...

    def add_asset_metadata(self, *_: object, **__: object) -> None: ...
