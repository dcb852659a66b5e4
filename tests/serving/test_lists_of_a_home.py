"""Lists equal the tables of the home that they were released from, for every segment, every move and every customer."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from flask.testing import FlaskClient

from custseg_assets.domain import schemas
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import next_stage
from custseg_assets.settings import load_settings
from custseg_assets.stores.customer_lists import LIST_FILES, PREDICTION_FILES
from custseg_assets.stores.releases import current, releases
from custseg_assets.stores.tables import TableStore
from custseg_serving.settings import ServingSettings
from tests.support.releases import rewrite_files
from tests.support.server import open_app
from tests.support.shops import QUICK, custseg, shop_log, write_log

RFM = ("recency_days", "frequency_orders", "monetary_net")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after a whole run; its newest snapshot is open."""
    folder: Path = tmp_path_factory.mktemp("lists")
    lines = shop_log(4).filter(pl.col("invoiced_at") < pl.datetime(2024, 4, 20))
    log = write_log(lines, folder / "log.csv")
    config = f'{QUICK}\n[source]\npath = "{log}"\n'
    (folder / "custseg.toml").write_text(config)
    outcome = custseg(folder / "home", "run", config=folder / "custseg.toml")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def tables(shop: Path) -> TableStore:
    return TableStore(shop / "home" / "tables")


@pytest.fixture(scope="module")
def client(shop: Path) -> Iterator[FlaskClient]:
    with open_app(ServingSettings(shop / "home", log_predictions=False, is_open=True)) as application:
        yield application.test_client()


def listed(client: FlaskClient, path: str) -> dict[str, dict[str, Any]]:
    """All customers of a list, by id; each must be in it once."""
    customers: dict[str, dict[str, Any]] = {}
    cursor = ""
    while cursor is not None:
        answer = client.get(f"{path}{'&' if '?' in path else '?'}limit=50{cursor and f'&cursor={cursor}'}").get_json()
        for one in answer["customers"]:
            assert one["customer_id"] not in customers
            customers[one["customer_id"]] = one
        cursor = answer["next"]
    assert answer["n_customers"] == len(customers)
    assert answer["value_at_stake"] == pytest.approx(sum(one["value_at_stake"] for one in customers.values()))
    return customers


def by_customer(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["customer_id"]: row for row in frame.iter_rows(named=True)}


def test_every_segment_is_listed_as_it_was_assigned(client: FlaskClient, tables: TableStore) -> None:
    assignments = tables.read(schemas.SEGMENT_ASSIGNMENTS)
    key = assignments["period"].max()
    features = by_customer(tables.read(schemas.CUSTOMER_FEATURES, [str(key)]))
    offers = tables.read(schemas.PRODUCT_RECOMMENDATIONS, [str(key)]).sort("customer_id", "rank")
    now = assignments.filter(period=key)
    assert now["is_open"].all()
    assert now["segment_id"].n_unique() > 3
    for segment_id in now["segment_id"].unique():
        found = listed(client, f"/v1/segments/{segment_id}/customers")
        right = by_customer(now.filter(segment_id=segment_id))
        assert found.keys() == right.keys()
        for customer, one in found.items():
            assert one["segment_name"] == right[customer]["segment_name"]
            assert {name: one[name] for name in RFM} == {name: features.get(customer, {}).get(name) for name in RFM}
            assert [offer["product_id"] for offer in one["recommendations"]] == [
                *offers.filter(customer_id=customer)["product_id"]
            ]


def test_every_move_is_listed_with_its_cause_and_its_money(client: FlaskClient, tables: TableStore) -> None:
    key = str(tables.read(schemas.SEGMENT_ASSIGNMENTS)["period"].max())
    right = by_customer(tables.read(schemas.SEGMENT_MIGRATIONS, [key]))
    assert len(right) > 10
    assert listed(client, "/v1/moves").keys() == right.keys()
    pairs = {(row["from_segment_id"], row["to_segment_id"]) for row in right.values()}
    for came_from, went_to in pairs:
        found = listed(client, f"/v1/moves?from={came_from}&to={went_to}")
        assert found.keys() == {
            name
            for name, row in right.items()
            if (row["from_segment_id"], row["to_segment_id"]) == (came_from, went_to)
        }
        for name, one in found.items():
            row = right[name]
            assert one["cause"] == row["cause"]
            assert one["moved_from"]["segment_name"] == row["from_segment_name"]
            assert one["spend_change"] == pytest.approx(row["revenue_change"], abs=1e-9)
            assert one["value_at_stake"] == pytest.approx(
                max(row["revenue_net"], row["revenue_net"] - row["revenue_change"], 0.0), abs=1e-9
            )


def test_the_file_equals_the_tables(client: FlaskClient, tables: TableStore) -> None:
    assignments = tables.read(schemas.SEGMENT_ASSIGNMENTS)
    keys = assignments["period"].unique().sort()
    now, before = (assignments.filter(period=key) for key in (keys[-1], keys[-2]))
    spent_now, spent_before = (
        tables.read(schemas.CUSTOMER_FEATURES, [key]).select("customer_id", "monetary_net")
        for key in (keys[-1], keys[-2])
    )
    known = before.join(spent_before, on="customer_id", how="left").select(
        "customer_id", then=pl.col("monetary_net").fill_null(0.0)
    )
    right = (
        now.join(spent_now, on="customer_id", how="left")
        .join(known, on="customer_id", how="left")
        .select(
            "customer_id",
            "segment_id",
            "monetary_net",
            spend_change=pl.col("monetary_net").fill_null(0.0) - pl.col("then"),
            value_at_stake=pl.max_horizontal(pl.col("monetary_net").fill_null(0.0), pl.col("then").fill_null(0.0), 0.0),
        )
        .sort(pl.col("value_at_stake"), "customer_id", descending=True)
    )
    text = client.get("/v1/customers.csv").get_data(as_text=True)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["customer_id"] for row in rows] == right["customer_id"].to_list()
    for row, expected in zip(rows, right.iter_rows(named=True), strict=True):
        assert row["segment_id"] == expected["segment_id"]
        for column, name in (("spend", "monetary_net"), ("change", "spend_change"), ("at_stake", "value_at_stake")):
            value = (expected[name] or 0.0) if column == "spend" else expected[name]
            assert (float(row[column]) if row[column] else None) == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("has_decimal_comma", [False, True])
def test_the_page_gives_the_file_that_the_command_writes(
    client: FlaskClient, shop: Path, tmp_path: Path, has_decimal_comma: bool
) -> None:
    out = tmp_path / "customers.csv"
    words, query = (["--decimal-comma"], "&decimal_comma=true") if has_decimal_comma else ([], "")
    assert custseg(shop / "home", "export", "customers", *words, "--out", out).status == 0
    text = client.get(f"/v1/customers.csv?sort=customer_id{query}").get_data(as_text=True)
    assert out.read_text(encoding="utf-8") == text.replace("\r\n", "\n")


def test_history_of_every_customer_is_every_snapshot_of_the_tables(client: FlaskClient, tables: TableStore) -> None:
    assignments = tables.read(schemas.SEGMENT_ASSIGNMENTS)
    features = tables.read(schemas.CUSTOMER_FEATURES).select("period", "customer_id", *RFM)
    right = assignments.join(features, on=["period", "customer_id"], how="left").sort("period", descending=True)
    for (customer,), rows in right.group_by("customer_id", maintain_order=True):
        snapshots = client.get(f"/v1/customers/{customer}/history").get_json()["snapshots"]
        names = ("period", "segment_id", "segment_name", "is_open", *RFM)
        assert [{name: one[name] for name in names} for one in snapshots] == rows.select(names).to_dicts()
        assert [one["as_of"] for one in snapshots] == [one.isoformat() for one in rows["as_of"]]


def test_a_release_that_was_made_before_lists_is_made_again_by_the_next_run(shop: Path) -> None:
    folder = shop / "home" / "releases"
    newest = releases(folder)[-1]
    older = rewrite_files(folder, newest, dict.fromkeys(LIST_FILES | PREDICTION_FILES))
    (folder / "CURRENT").write_text(older)
    settings = load_settings(shop / "custseg.toml", home=shop / "home")
    home = OpenHome(settings)
    keys = home.calendar.period_keys
    stage = next_stage(home, keys[-1], keys[-1])
    assert stage is not None
    assert (stage.job, stage.first_key) == ("segment", keys[-1])
    assert custseg(shop / "home", "run", config=shop / "custseg.toml").status == 0
    assert current(folder) == newest
    assert next_stage(OpenHome(settings), keys[-1], keys[-1]) is None
    named = settings.model_copy(update={"source": settings.source.model_copy(update={"currency": "GBP"})})
    assert next_stage(OpenHome(named), keys[-1], keys[-1]) == stage
