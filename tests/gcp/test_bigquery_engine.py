"""Whole runs with BigQuery as the engine: the same tables, what is said of costs, and errors that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS
from custseg_assets.domain.transactions import cleaning, features
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.engines import choice
from custseg_assets.errors import RunFailedError
from custseg_assets.gcp import bigquery_engine
from custseg_assets.gcp.bigquery import BigQuery
from custseg_assets.gcp.bigquery_engine import BigQueryEngine
from custseg_assets.settings import GcpSettings
from tests.support.engines import classify_in_memory, open_bigquery, write_files
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.homes import require_same_tables
from tests.support.odd_shop import RULES, WINDOWS, odd_shop
from tests.support.shops import QUICK, Outcome, custseg, shop_log

pytestmark = pytest.mark.gcp
SOURCE = "bq://shop.sales.orders"


@pytest.fixture
def service() -> Iterator[FakeBigQuery]:
    with FakeBigQuery("shop") as fake:
        fake.add_table("sales.orders", shop_log(4))
        fake.add_dataset("scratch")
        fake.page_rows = 0
        yield fake


def config(fake: FakeBigQuery, more: str = "", engine: str = 'dataset = "scratch"') -> str:
    columns = "\n".join(f'{name} = "{name}"' for name in shop_log(1).columns)
    return (
        f'{QUICK}\n[source.columns]\n{columns}\n[engine]\nname = "bigquery"\n{engine}\n[gcp]\nproject = "shop"\n'
        f'[gcp.endpoints]\nbigquery = "{fake.url}"\n[gcp.bigquery]\n{more}\n'
    )


def run(home: Path, fake: FakeBigQuery, *more: object, text: str | None = None) -> Outcome:
    return custseg(home, "run", "--source", SOURCE, *more, config=text or config(fake))


def test_the_tables_are_those_of_polars_and_a_switch_makes_nothing_anew(service: FakeBigQuery, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    outcome = run(there, service)
    assert outcome.status == 0, outcome.err
    assert "BigQuery: looking for repeated lines reads" in outcome.out + outcome.err
    assert "BigQuery: totals of 2024-04-01 reads" in outcome.out + outcome.err
    # The source's query; repeats; parts and products, then totals and spend of each window.
    assert len(service.billed) > 5
    # Nothing stays behind.
    assert service.datasets["scratch"] == {}
    assert run(here, service, "--engine", "polars").status == 0
    require_same_tables(there, here)
    n_jobs = len(service.jobs)
    for engine in ("polars", "bigquery"):
        again = custseg(there, "run", "--engine", engine)
        assert again.status == 0, again.err
        assert "Nothing has changed" in again.out
    assert len(service.jobs) == n_jobs


class Odd:
    """The engine on clean lines of the odd shop."""

    def __init__(self, fake: FakeBigQuery, folder: Path, **bigquery: Any) -> None:
        self.fake, self.folder, self.said = fake, folder, list[str]()
        self.settings = GcpSettings.model_validate(
            {"project": "shop", "bigquery": bigquery, "endpoints": {"bigquery": fake.url}}
        )
        self.clean = classify_in_memory(odd_shop(), RULES["retail"]).frames["clean"]

    def measure(self) -> None:
        connection = BigQuery(self.settings, patience_seconds=0.5)
        files = write_files(CLEAN_TRANSACTIONS, self.clean, self.folder / "clean")
        with BigQueryEngine.opened(self.settings, "scratch", self.said.append, connection) as engine:
            for _ in engine.measure(files, WINDOWS):
                pass

    def failure(self) -> str:
        with pytest.raises(RunFailedError) as failed:
            self.measure()
        assert "\n" not in str(failed.value)
        return str(failed.value)


@pytest.fixture
def odd(service: FakeBigQuery, tmp_path: Path) -> Odd:
    return Odd(service, tmp_path)


def test_each_query_says_what_it_costs_before_it_runs(odd: Odd) -> None:
    odd.measure()
    # Parts, products, totals and spend, of the closed window and of the open one.
    assert len(odd.said) == len(odd.fake.billed) == 8
    assert odd.said[0].startswith("BigQuery: grouping into parts reads 0.")
    assert odd.said[0].endswith("USD by list price; 100.00 GiB may be billed")
    assert odd.fake.datasets["scratch"] == {}


def test_a_query_over_the_limit_is_not_run(service: FakeBigQuery, tmp_path: Path) -> None:
    odd = Odd(service, tmp_path, maximum_gib_billed=1e-6)
    failure = odd.failure()
    assert "BigQuery: grouping into parts would bill 0." in failure
    assert "as [gcp.bigquery] maximum_gib_billed says" in failure
    assert service.billed == []
    assert service.datasets["scratch"] == {}


@pytest.mark.parametrize(
    "permission", ["bigquery.tables.create", "bigquery.tables.updateData", "bigquery.tables.getData"]
)
def test_a_permission_that_is_missing_is_named(permission: str, odd: Odd) -> None:
    odd.fake.denied = {permission}
    failure = odd.failure()
    assert f"Permission {permission} denied" in failure
    assert "Grant the account the role that docs/gcp.md names for this." in failure


def test_a_table_that_somebody_else_writes_to_is_refused(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    load = BigQueryEngine._load

    def load_twice(self: BigQueryEngine, rows: pl.DataFrame, table: Any) -> None:
        load(self, rows, table)
        load(self, rows.head(1), table)

    monkeypatch.setattr(BigQueryEngine, "_load", load_twice)
    assert f"{odd.clean.height + 1:,} are in it; expected nobody else to write there" in odd.failure()


def test_a_dataset_that_compares_texts_without_case_is_refused(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    insert = FakeBigQuery._insert_table

    def with_collation(self: FakeBigQuery, dataset: str, sent: dict[str, Any]) -> Any:
        return insert(self, dataset, {**sent, "defaultCollation": "und:ci"})

    monkeypatch.setattr(FakeBigQuery, "_insert_table", with_collation)
    assert "are compared by 'und:ci'" in odd.failure()


def test_amounts_that_are_no_numbers_are_refused(odd: Odd) -> None:
    odd.clean = odd.clean.with_columns(line_amount=pl.lit(float("nan")))
    assert "amounts that are no numbers" in odd.failure()


def test_a_function_that_has_no_equal_there_is_refused(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_micro", lambda name: bigquery_engine.nw.col(name).round(6))
    assert "BigQuery: no SQL is known that gives the same there" in odd.failure()
    assert odd.fake.billed == []


def refused(home: Path, outcome: Outcome) -> str:
    assert outcome.status == 2, outcome.err
    assert outcome.err.count("\n") == 1
    assert not home.exists()
    return outcome.err


def test_a_source_that_is_not_on_bigquery_is_refused(service: FakeBigQuery, tmp_path: Path) -> None:
    home = tmp_path / "home"
    said = refused(home, custseg(home, "run", "--source", "demo", config=config(service)))
    assert "[engine] name = 'bigquery', and the source is demo; expected a source that is on BigQuery already" in said


def test_a_dataset_has_to_be_named(service: FakeBigQuery, tmp_path: Path) -> None:
    home = tmp_path / "home"
    said = refused(home, run(home, service, text=config(service, engine="")))
    assert "[gcp] project or [engine] dataset is not set" in said


def test_a_dataset_is_of_no_other_engine(service: FakeBigQuery, tmp_path: Path) -> None:
    home = tmp_path / "home"
    text = config(service).replace('name = "bigquery"', 'name = "polars"')
    assert "dataset is of BigQuery, and name = 'polars' takes none" in refused(home, run(home, service, text=text))


@pytest.mark.parametrize("missing", ["google.cloud.bigquery", "sqlglot"])
def test_libraries_that_are_missing_are_named(
    missing: str, service: FakeBigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_is_installed", lambda package: package != missing)
    home = tmp_path / "home"
    said = refused(home, run(home, service))
    assert f"{missing} is not installed" in said
    assert "pip install 'custseg[bigquery]'" in said


def test_a_dataset_that_is_not_there_fails_the_run_and_another_engine_goes_on(
    service: FakeBigQuery, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    failed = run(home, service, text=config(service, engine='dataset = "nowhere"'))
    assert failed.status == 1
    assert "Not found: Dataset shop:nowhere" in failed.err
    assert "Traceback" not in failed.err
    assert custseg(home, "run", "--engine", "polars").status == 0


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_lines_are_sorted_there_as_here_though_none_are_fetched_in_a_run(rules: CleaningRules, tmp_path: Path) -> None:
    raw, expected = odd_shop(), classify_in_memory(odd_shop(), rules).frames
    with open_bigquery(tmp_path) as engine:
        lines = cleaning.classify(engine.scan(write_files(RAW_TRANSACTIONS, raw, tmp_path / "raw")), rules)
        clean = engine.collect(cleaning.clean_lines(lines, rules, also=cleaning.LINE))
        rejected = engine.collect(cleaning.rejected_lines(lines))
    order = ["period", *cleaning.LINE]
    assert_frame_equal(clean.sort(order).drop(cleaning.LINE), expected["clean"], check_exact=True)
    assert_frame_equal(rejected.sort(order), expected["rejected"], check_exact=True)
