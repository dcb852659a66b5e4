"""Export from a home that a run has filled: the list of customers, the newest snapshot, and only some customers."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain import schemas
from custseg_assets.settings import load_settings
from custseg_assets.stores.tables import TableStore
from tests.support.homes import open_quick, take_in_landed
from tests.support.shops import HEADERS, QUICK, FilledShop, custseg, shop_log, write_log

NEWEST, BEFORE = "2024-04-01", "2024-03-01"


@pytest.fixture(scope="module")
def shop(filled_shop: FilledShop) -> FilledShop:
    return filled_shop


def export(shop: FilledShop, out: Path, *arguments: str) -> tuple[str, pl.DataFrame]:
    """What an export says after the name of its file, and what is in it."""
    outcome = custseg(shop.home, "export", *arguments, "--out", out, config=QUICK)
    assert (outcome.status, outcome.err) == (0, "")
    return outcome.out.removeprefix(f"{out}: "), pl.read_parquet(out)


def refusal(shop: FilledShop, folder: Path, *arguments: str) -> str:
    outcome = custseg(shop.home, "export", *arguments, "--out", folder / "refused.csv", config=QUICK)
    assert (outcome.status, outcome.out, list(folder.iterdir())) == (2, "", [])
    return outcome.err


def read(shop: FilledShop, table: schemas.Table, key: str) -> pl.DataFrame:
    return open_quick(shop.home).tables.read(table, [key])


def test_the_list_has_each_customer_of_the_newest_snapshot_once(shop: FilledShop, tmp_path: Path) -> None:
    said, listed = export(shop, tmp_path / "list.parquet", "customers")
    assigned = read(shop, schemas.SEGMENT_ASSIGNMENTS, NEWEST)
    assert listed["customer_id"].to_list() == assigned["customer_id"].to_list()
    assert listed["segment"].to_list() == assigned["segment_name"].to_list()
    assert said == (
        f"{listed.height} rows of customers, snapshot {NEWEST}, as of 2024-05-01\n"
        "  2 other snapshots: --partition KEY for another\n"
    )
    spent, spent_before = (read(shop, schemas.CUSTOMER_FEATURES, key)["monetary_net"].sum() for key in (NEWEST, BEFORE))
    assert listed["spend"].sum() == pytest.approx(spent)
    # Who was not known before has no change: their spend is all of it.
    new = listed.filter(pl.col("change").is_null())["spend"].sum()
    assert listed["change"].sum() + new == pytest.approx(spent - spent_before)


def test_a_table_of_snapshots_is_the_newest_one_and_all_of_them_on_request(shop: FilledShop, tmp_path: Path) -> None:
    said, newest = export(shop, tmp_path / "newest.parquet", "segment_assignments")
    assert newest["period"].unique().to_list() == [NEWEST]
    assert said.endswith("  2 other snapshots: --partition KEY for another, --all for all\n")
    said, every = export(shop, tmp_path / "all.parquet", "segment_assignments", "--all")
    assert every["period"].n_unique() == 3
    assert said == f"{every.height:,} rows of segment_assignments\n"
    assert every.filter(period=NEWEST).equals(newest)


def test_tables_of_trainings_are_of_the_newest_training(shop: FilledShop, tmp_path: Path) -> None:
    said, models = export(shop, tmp_path / "model.parquet", "segmentation_model")
    assert models["period"].to_list() == ["2024-02-01"]
    assert said == "1 row of segmentation_model, snapshot 2024-02-01, as of 2024-03-01\n"


def test_a_snapshot_without_moves_is_not_answered_with_an_older_one(shop_home: Path, tmp_path: Path) -> None:
    no_moves = pl.DataFrame(schema=schemas.SEGMENT_MIGRATIONS.schema)
    TableStore(shop_home / "tables").write(schemas.SEGMENT_MIGRATIONS, no_moves, {NEWEST: 1})
    outcome = custseg(shop_home, "export", "segment_migrations", "--out", tmp_path / "moves.csv", config=QUICK)
    assert outcome.out.startswith(
        f"{tmp_path / 'moves.csv'}: 0 rows of segment_migrations, snapshot {NEWEST}, as of 2024-05-01\n"
    )


@pytest.mark.parametrize("table", ["customers", "customer_features", "product_recommendations"])
@pytest.mark.parametrize("words", ["{name}", "{id}", "{id} {name}"])
def test_only_the_customers_of_a_segment(table: str, words: str, shop: FilledShop, tmp_path: Path) -> None:
    largest = read(shop, schemas.SEGMENT_PROFILES, NEWEST).sort("n_customers").row(-1, named=True)
    segment = words.format(name=largest["segment_name"].upper(), id=largest["segment_id"])
    _, exported = export(shop, tmp_path / "some.parquet", table, "--segment", segment)
    members = read(shop, schemas.SEGMENT_ASSIGNMENTS, NEWEST).filter(segment_id=largest["segment_id"])
    assert 0 < members.height < 160
    assert set(exported["customer_id"]) == set(members["customer_id"])


def test_only_the_customers_who_moved(shop: FilledShop, tmp_path: Path) -> None:
    moves = read(shop, schemas.SEGMENT_MIGRATIONS, NEWEST)
    (left, came), n_moved = (
        moves.group_by("from_segment_name", "to_segment_id")
        .len()
        .sort("len")
        .select(pl.concat_list("from_segment_name", "to_segment_id"), "len")
        .row(-1)
    )
    both = moves.filter(from_segment_name=left, to_segment_id=came)
    assert n_moved == both.height > 0
    _, listed = export(shop, tmp_path / "moved.parquet", "customers", "--moved-from", left, "--moved-to", came)
    assert listed["customer_id"].to_list() == both["customer_id"].to_list()
    assert set(listed["previous"]) == {left}
    assert set(listed["since"]) == {NEWEST}
    assert listed["change"].to_list() == pytest.approx(both["revenue_change"].to_list())
    _, listed = export(shop, tmp_path / "left.parquet", "customers", "--moved-from", left)
    assert listed["customer_id"].to_list() == moves.filter(from_segment_name=left)["customer_id"].to_list()


def test_of_several_segments_all_customers_are_listed(shop: FilledShop, tmp_path: Path) -> None:
    two = read(shop, schemas.SEGMENT_PROFILES, NEWEST).sort("n_customers").tail(2)
    options = [word for name in two["segment_name"] for word in ("--segment", name)]
    _, listed = export(shop, tmp_path / "two.parquet", "customers", *options)
    assert set(listed["segment"]) == set(two["segment_name"])
    assert listed.height == two["n_customers"].sum()
    (tmp_path / "none").mkdir()
    assert "--segment 'Nobody'" in refusal(shop, (tmp_path / "none"), "customers", *options, "--segment", "Nobody")


def test_an_earlier_list_knows_nothing_of_later_snapshots(shop: FilledShop, tmp_path: Path) -> None:
    said, listed = export(shop, tmp_path / "march.parquet", "customers", "--partition", BEFORE)
    assert said == f"{listed.height} rows of customers, snapshot {BEFORE}, as of 2024-04-01\n"
    assert listed["since"].max() <= BEFORE
    assert listed["segment"].to_list() == read(shop, schemas.SEGMENT_ASSIGNMENTS, BEFORE)["segment_name"].to_list()


def test_a_large_shop_is_listed_in_chunks(shop: FilledShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = export(shop, tmp_path / "whole.parquet", "customers")
    monkeypatch.setattr("custseg_assets.commands.export._CHUNK_CUSTOMERS", 7)
    _, chunked = export(shop, tmp_path / "chunked.parquet", "customers")
    assert chunked.equals(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["customer"], "table 'customer'; expected one of customers, raw_transactions, "),
        (["customer"], "Did you mean 'customers'?"),
        (["segment_asignments"], "Did you mean 'segment_assignments'?"),
        (["customers", "--partition", "2024-04"], "Did you mean '2024-04-01'?"),
        (["prediction_log"], "no service has recorded predictions in home "),
        (["rejected_predictions"], "Start 'custseg-serving' on this home"),
        (["customers", "--all"], "--all for customers, which is the list of one snapshot"),
        (["customers", "--segment", "Lapsd"], "Did you mean 'Lapsed'?"),
        (["customers", "--moved-to", "S99"], "--moved-to 'S99'; expected one of R1 Refunded, R2 Lapsed, S1 "),
        (["customers", "--moved-from", "Nobody"], "--moved-from 'Nobody'; expected one of R1 Refunded"),
        (["clean_transactions", "--segment", "S1"], "one row per customer of a snapshot; expected one of customers, "),
        (["segment_profiles", "--segment", "S1"], "Name one of those, or leave the option out."),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    arguments: list[str], message: str, shop: FilledShop, tmp_path: Path
) -> None:
    error = refusal(shop, tmp_path, *arguments)
    assert message in error
    assert error.count("\n") == 1


def test_partition_and_all_exclude_each_other(shop: FilledShop, tmp_path: Path) -> None:
    assert "not allowed with" in refusal(shop, tmp_path, "segment_assignments", "--all", "--partition", NEWEST)


def test_a_list_is_as_of_the_day_it_was_made_for_also_when_newer_files_have_come(tmp_path: Path) -> None:
    home, lines = tmp_path / "home", shop_log(4).filter(pl.col("invoiced_at") < pl.datetime(2024, 4, 20))
    log = write_log(lines, tmp_path / "log.csv")
    config = f'{QUICK}\n[landing]\nsettle_seconds = 0\n[source]\npath = "{log}"\n'
    assert custseg(home, "run", config=config).status == 0
    later = shop_log(4).filter(pl.col("invoiced_at") >= pl.datetime(2024, 4, 20))
    (home / "landing").mkdir(exist_ok=True)
    write_log(later, home / "landing" / "later.csv", HEADERS)
    take_in_landed(load_settings(home / "custseg.toml", home=home, environment={}))
    said = custseg(home, "export", "customers", "--out", tmp_path / "list.csv").out
    assert "snapshot 2024-04-01 so far, as of 2024-04-20\n" in said
    assert "  out of date: there are newer data or other settings; 'custseg run' makes it anew\n" in said
    assert "snapshot    2024-04-01 so far, as of 2024-04-20, " in custseg(home, "status").out
    assert custseg(home, "run").status == 0
    said = custseg(home, "export", "customers", "--out", tmp_path / "list.csv").out
    assert "snapshot 2024-04-01, as of 2024-05-01\n" in said
    assert "out of date" not in said
