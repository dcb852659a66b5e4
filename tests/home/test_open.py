"""A home, opened: what is kept between two looks and until when, who may write, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.domain import schemas
from custseg_assets.domain.schemas import Table
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource
from custseg_assets.stores.tables import TableStore
from tests.support.files import DATA
from tests.support.homes import locked_by_another_process

MAY, JUNE, JULY = "2011-05-01", "2011-06-01", "2011-07-01"
HEADER = "customer_id,invoiced_at,line_amount"
RETAIL_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
RETAIL_ROW = "536365,85123A,LANTERN,6,2010-12-01 08:26:00,2.55,17850,United Kingdom"

OpenStore = Callable[[OpenHome], DeliveryStore]
STORES: list[OpenStore] = [lambda home: home.deliveries, lambda home: DeliveryStore(home.paths.deliveries)]
"""The store of a home that is open, or another one on the same folder, as another process has it."""
WHOSE = ["its own store", "another store"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def home(folder: Path) -> OpenHome:
    """A home that has taken in May and June, and whose tables of trainings have a row of June."""
    opened = OpenHome(Settings(home=folder, snapshots={"lookback": 2}))
    make_current(opened.deliveries, "log.csv", f"1,{MAY},5", f"2,{JUNE},6")
    for table in (schemas.MODEL_CANDIDATES, schemas.SEGMENTATION_MODEL, schemas.PROMOTION_DECISION):
        commit(TableStore(folder / "tables"), table, JUNE)
    return opened


def make_current(store: DeliveryStore, name: str, *rows: str, header: str = HEADER) -> None:
    """Accept a file and make it the home's only delivery."""
    path = store.root.parent.with_name(name)
    path.write_text("\n".join([header, *rows]) + "\n")
    store.set_current(CurrentSource((store.accept(path, SourceSettings(), print),), description=name))


def commit(store: TableStore, table: Table, key: str) -> None:
    """Write a partition with one row, in a commit of its own."""
    store.write(table, pl.DataFrame([{"period": key}], schema=table.schema), {key: 1})


@pytest.mark.parametrize("store_of", STORES, ids=WHOSE)
def test_the_calendar_is_kept_until_other_deliveries_are_current(home: OpenHome, store_of: OpenStore) -> None:
    calendar = home.calendar
    assert home.calendar is calendar
    assert calendar.period_keys == (MAY, JUNE)
    make_current(store_of(home), "longer.csv", f"1,{MAY},5", f"3,{JULY},7")
    assert home.calendar is not calendar
    assert home.calendar.period_keys == (MAY, JUNE, JULY)
    assert home.calendar is home.calendar


@pytest.mark.parametrize("store_of", STORES, ids=WHOSE)
def test_rules_and_fingerprints_are_kept_until_other_deliveries_are_current(
    home: OpenHome, store_of: OpenStore
) -> None:
    rules, fingerprints = home.cleaning_rules, home.fingerprints
    assert (home.cleaning_rules is rules, home.fingerprints is fingerprints) == (True, True)
    make_current(store_of(home), "retail.csv", RETAIL_ROW, header=RETAIL_HEADER)
    assert home.fingerprints is not fingerprints
    assert home.cleaning_rules != rules


@pytest.mark.parametrize("is_own", [True, False], ids=WHOSE)
@pytest.mark.parametrize(
    ("table", "ends"),
    [
        (schemas.PROMOTION_DECISION, {"champions", "fingerprints"}),
        (schemas.SEGMENTATION_MODEL, {"champions", "fingerprints"}),
        (schemas.MODEL_CANDIDATES, {"fingerprints"}),
        (schemas.CUSTOMER_FEATURES, set()),
        (schemas.RETRAIN_DECISION, set()),
    ],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
def test_champions_and_fingerprints_are_kept_until_a_table_they_read_is_committed_to(
    home: OpenHome, folder: Path, table: Table, ends: set[str], *, is_own: bool
) -> None:
    before = {name: getattr(home, name) for name in ("champions", "fingerprints")}
    assert {name for name, kept in before.items() if getattr(home, name) is not kept} == set()
    if is_own:
        with home.locked() as locked:
            commit(locked.tables, table, JULY)
    else:
        commit(TableStore(folder / "tables"), table, JULY)
    assert {name for name, kept in before.items() if getattr(home, name) is not kept} == ends


def test_a_decision_of_another_process_is_seen(home: OpenHome, folder: Path) -> None:
    assert home.champions.promotions == ()
    row = {"period": JULY, "decision": "PROMOTE", "model_version": "m-1"}
    decision = pl.DataFrame([row], schema=schemas.PROMOTION_DECISION.schema)
    TableStore(folder / "tables").write(schemas.PROMOTION_DECISION, decision, {JULY: 1})
    assert home.champions.promotions == ((JULY, "m-1"),)


def test_a_locked_home_shares_everything_with_the_home_it_was_made_from(home: OpenHome) -> None:
    calendar, tables = home.calendar, home.tables
    with home.locked() as locked:
        assert locked.tables is tables is home.tables
        assert locked.calendar is calendar
        champions = locked.champions
        assert champions is home.champions
        commit(locked.tables, schemas.PROMOTION_DECISION, JULY)
        assert locked.champions is home.champions
        assert home.champions is not champions
        locked.forget_tables()
        assert home.tables is locked.tables
        assert home.tables is not tables


def test_nothing_is_written_through_a_locked_home_after_its_block(home: OpenHome, folder: Path) -> None:
    with home.locked() as locked:
        commit(locked.tables, schemas.CUSTOMER_FEATURES, JUNE)
    with pytest.raises(RuntimeError, match=f"^home {folder} is not locked any more$"):
        _ = locked.tables
    # What is only read stays open.
    assert list(home.tables.sizes(schemas.CUSTOMER_FEATURES)) == [JUNE]


def test_a_home_is_locked_once_at_a_time(home: OpenHome, folder: Path) -> None:
    second = OpenHome(Settings(home=folder))
    for other in (home, second):
        with home.locked(), pytest.raises(BadInputError, match="is in use by process"), other.locked():
            pytest.fail("two have the home at once")
    with second.locked() as locked:
        assert locked.tables is second.tables


def test_a_home_that_another_process_has_locked_cannot_be_locked(home: OpenHome, folder: Path) -> None:
    with locked_by_another_process(folder) as pid:
        with pytest.raises(BadInputError, match=rf"is in use by process {pid} \(-c .*\); "), home.locked():
            pytest.fail("two processes have the home at once")
        # To look is allowed.
        assert home.calendar.period_keys == (MAY, JUNE)
    with home.locked(patience_seconds=10) as locked:
        assert locked.tables is home.tables


@pytest.mark.parametrize(
    ("is_retail", "configured", "rules"),
    [
        (False, {}, CleaningRules(keeps_negative_prices=True)),
        (
            False,
            {"cancellation_prefix": "X", "negative_prices": "reject", "duplicates": "keep"},
            CleaningRules(cancellation_prefix="X", keeps_equal_lines=True),
        ),
        (True, {}, CleaningRules(1, ("Next Day Carriage", "High Resolution Image"), "C")),
        (True, {"cancellation_prefix": "X", "service_descriptions": ()}, CleaningRules(1, (), "X")),
    ],
    ids=["nothing", "configured over nothing", "preset over nothing", "configured over preset"],
)
def test_cleaning_rules_are_what_is_configured_else_what_the_preset_says(
    folder: Path, is_retail: bool, configured: dict[str, Any], rules: CleaningRules
) -> None:
    home = OpenHome(Settings(home=folder, cleaning=configured))
    if is_retail:
        make_current(home.deliveries, "retail.csv", RETAIL_ROW, header=RETAIL_HEADER)
    assert home.cleaning_rules == rules


def test_equal_lines_of_a_platform_that_writes_none_twice_all_count_unless_the_settings_say_otherwise(
    folder: Path,
) -> None:
    keyed = OpenHome(Settings(home=folder, source=SourceSettings(line_key=("order", "position"))))
    assert keyed.cleaning_rules.keeps_equal_lines
    for configured, keeps in (({}, True), ({"duplicates": "drop"}, False)):
        home = OpenHome(Settings(home=folder, cleaning=configured))
        delivery = home.deliveries.accept(DATA / "exports" / "square.csv", SourceSettings(), print)
        home.deliveries.set_current(CurrentSource((delivery,), description="square.csv"))
        assert home.cleaning_rules == CleaningRules(keeps_equal_lines=keeps, keeps_negative_prices=True)


def test_the_newest_snapshot_is_the_newest_with_segments(home: OpenHome) -> None:
    with pytest.raises(RunFailedError, match="no snapshot has been assigned to segments yet"):
        home.newest_snapshot()
    with home.locked() as locked:
        for key in (JULY, JUNE):
            commit(locked.tables, schemas.SEGMENT_ASSIGNMENTS, key)
        commit(locked.tables, schemas.CUSTOMER_FEATURES, "2011-08-01")
    assert home.newest_snapshot() == JULY


def test_an_open_home_that_nobody_filled_makes_no_folder(folder: Path) -> None:
    home = OpenHome(Settings(home=folder))
    assert (home.calendar.period_keys, home.champions.promotions, home.cleaning_rules) == (
        (),
        (),
        CleaningRules(keeps_negative_prices=True),
    )
    assert not folder.exists()
