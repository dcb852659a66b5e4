"""Every engine gives the same lines, groups and features, byte for byte; and a mutation of any rule is seen on each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from custseg_assets.domain.demo import generate_demo
from custseg_assets.domain.periods import window_of
from custseg_assets.domain.schemas import RAW_TRANSACTIONS
from custseg_assets.domain.transactions import cleaning, features
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.engines import polars_engine
from custseg_assets.engines.engine import Engine
from custseg_assets.errors import RunFailedError
from tests.support.engines import (
    OpenEngine,
    classify_in_memory,
    classify_with,
    measure_in_memory,
    measure_with,
    open_bigquery,
    open_bigquery_storage,
    open_duckdb,
    open_polars,
    open_sail,
    open_spark,
    run_engine,
    run_in_memory,
)
from tests.support.odd_shop import RULES, WINDOWS, odd_shop
from tests.support.real_tables import RealTables

_NO_DUCKDB = pytest.mark.skipif(find_spec("duckdb") is None, reason="DuckDB is not installed here")
ENGINES = [
    pytest.param((open_polars, None), id="polars"),
    pytest.param((open_polars, 50), id="polars in slices"),
    pytest.param((open_duckdb, None), id="duckdb", marks=_NO_DUCKDB),
    pytest.param((open_sail, None), id="spark connect", marks=pytest.mark.spark),
    pytest.param((open_bigquery, None), id="bigquery", marks=pytest.mark.gcp),
]
LARGE = [
    pytest.param((open_polars, 20_000), id="polars in slices") if one.id == "polars in slices" else one
    for one in ENGINES
]
"""The same for a log of half a million lines."""
SPARK = pytest.param((open_spark, None), id="spark", marks=pytest.mark.spark)
"""Takes ten times as long for a small shop as the others; what Narwhals has it do is what it has Spark Connect do."""
STORAGE = pytest.param((open_bigquery_storage, None), id="bigquery storage", marks=pytest.mark.gcp)
"""Differs from BigQuery in the way that results come."""
RETAIL = RULES["retail"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    opened: tuple[OpenEngine, int | None] = request.param
    open_engine, rows_at_once = opened
    if rows_at_once:
        for name in ("MAX_ROWS_AT_ONCE", "ROWS_OF_A_SLICE"):
            monkeypatch.setattr(polars_engine, name, rows_at_once)
    folder = tmp_path / "scratch"
    folder.mkdir()
    with open_engine(folder) as one:
        yield one


@pytest.mark.parametrize("engine", [*ENGINES, SPARK, STORAGE], indirect=True)
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_a_shop_full_of_oddities(engine: Engine, rules: CleaningRules, tmp_path: Path) -> None:
    raw = odd_shop()
    found = run_engine(engine, raw, rules, WINDOWS, tmp_path / "log")
    expected = run_in_memory(raw, rules, WINDOWS)
    assert found.differing(expected) == []
    assert found.frames["clean"].height + found.frames["rejected"].height == raw.height
    sundays = found.frames["features 2012-02-01"].filter(customer_id="sunday")
    assert sundays["favourite_weekday"].to_list() == [6]


def test_the_odd_shop_has_a_line_for_each_reason() -> None:
    found = {name: run_in_memory(odd_shop(), rules, ()).frames["rejected"] for name, rules in RULES.items()}
    assert set(found["retail"]["reason"]) == set(cleaning.REASONS)


def test_the_demo(engine: Engine, tmp_path: Path) -> None:
    raw = generate_demo(n_customers=400, n_months=8).with_columns(
        period=pl.col("invoiced_at").dt.strftime("%Y-%m-01").fill_null("2024-01-01"),
        source_file=pl.lit("demo"),
    )
    raw = raw.select(RAW_TRANSACTIONS.schema.names())
    windows = [
        *(window_of(key, "2024-01-01", 6, "monthly") for key in ("2024-06-01", "2024-07-01")),
        window_of("2024-08-01", "2024-01-01", 6, "monthly", datetime(2024, 8, 20)),
    ]
    found = run_engine(engine, raw, RETAIL, windows, tmp_path / "log")
    assert found.differing(run_in_memory(raw, RETAIL, windows)) == []


@pytest.mark.parametrize("engine", LARGE, indirect=True)
def test_the_real_log(engine: Engine, real_tables: RealTables, tmp_path: Path) -> None:
    windows = [
        window_of("2011-06-01", "2010-12-01", 6, "monthly"),
        window_of("2011-11-01", "2010-12-01", 6, "monthly"),
        window_of("2011-12-01", "2010-12-01", 6, "monthly", datetime(2011, 12, 10)),
    ]
    rules = CleaningRules(1, ("Next Day Carriage", "High Resolution Image"), "C")
    found = run_engine(engine, real_tables.raw, rules, windows, tmp_path / "log")
    assert found.differing(run_in_memory(real_tables.raw, rules, windows)) == []
    assert found.frames["clean"].height == 399_573


# Mutations: each changes one rule; what an engine then gives must differ from what is right.

CLEANING_MUTATIONS = {
    "excluded": ('"excluded": ~nw.col("excluded_by").is_null()', '"excluded": nw.lit(False)'),
    "unreadable instant": ('nw.col("invoiced_at").is_null() | nw.col("line_amount")', 'nw.col("line_amount")'),
    "unreadable amount": ('is_null() | nw.col("line_amount").is_null(),', "is_null(),"),
    "missing customer": ('"missing_customer": nw.col("customer_id").is_null()', '"missing_customer": nw.lit(False)'),
    "duplicate": ('"duplicate": nw.col("is_repeat")', '"duplicate": nw.lit(False)'),
    "service code": ('"service_code": _is_service_code(rules)', '"service_code": nw.lit(False)'),
    "service description": ("_is_service_description(rules),", "nw.lit(False),"),
    "price": ("else price <= 0", "else price < 0"),
    "negative price": ("(price == 0) & (nw", "(price <= 0) & (nw"),
    "free line": ('(price == 0) & (nw.col("line_amount") == 0)', "(price == 0)"),
    "order of reasons": ("in reversed(REASONS)", "in REASONS"),
    "order of two reasons": ('    "duplicate",\n    "service_code",', '    "service_code",\n    "duplicate",'),
    "order of the last two": (
        '    "service_description",\n    "non_positive_price",',
        '    "non_positive_price",\n    "service_description",',
    ),
    "first copy": ('nw.col("nth_copy") > 1', 'nw.col("nth_copy") > 2'),
    "order of files": ('LINE = ("source_file", "source_row")', 'LINE = ("source_row", "source_file")'),
    "copies of a file": ("if rules.keeps_equal_lines:", "if False:"),
    "digits": (r"\p{{Nd}}", "[0-9]"),
    "end of the code": (r"}}\z", "}}"),
    "amount": (
        'nw.coalesce(nw.col("line_amount"), nw.col("quantity") * nw.col("unit_price"))',
        'nw.col("line_amount")',
    ),
    "order of a day": ('dt.to_string("%Y-%m-%d")', 'dt.to_string("%Y-%d")'),
    "negative amount": ('(nw.col("line_amount") < 0) | ', ""),
    "negative quantity": ('| (nw.col("quantity") < 0).fill_null(False)', ""),
    "mark": ("str.starts_with(rules.cancellation_prefix)", 'str.contains("NOTHING")'),
    "no mark": (
        'nw.when(nw.col("invoice_id").is_null()).then(is_negative)',
        "nw.when(nw.lit(False)).then(is_negative)",
    ),
}
FEATURE_MUTATIONS = {
    "weekday": ("% _DAYS_A_WEEK + _DAYS_A_WEEK - 1) % _DAYS_A_WEEK", "% _DAYS_A_WEEK - 1)"),
    "smallest weekday": ('n_values - 1 - nw.col("value")', 'nw.col("value")'),
    "hour": ("dt.hour()", "dt.minute()"),
    "halves": ("((micro - below == 0.5) & is_odd)", "(micro - below == 0.5)"),
    "rounding": ("nw.when(is_above).then(below + 1)", "nw.when(is_above).then(below)"),
    "window start": ('nw.col("period") >= window.span_keys[0]', 'nw.col("period") > window.span_keys[0]'),
    "window end": ('nw.col("period") <= window.span_keys[-1]', 'nw.col("period") < window.span_keys[-1]'),
    "open window start": ("at >= window.start", "at > window.start"),
    "open window end": ("at < window.as_of", "at < window.period_end"),
    "span": ("at >= midnight(start_of(key))", "at > midnight(start_of(key))"),
    "products of orders": ('~nw.col("is_cancellation"), ~nw.col("product_id")', '~nw.col("product_id")'),
    "products without a code": (', ~nw.col("product_id").is_null())', ")"),
    "product once": (
        'group_by("customer_id", "product_id").agg(nw',
        'group_by("customer_id", "product_id", "period").agg(nw',
    ),
    "first line": ('nw.col("invoiced_at").min()', 'nw.col("invoiced_at").max()'),
    "last line": ('nw.col("invoiced_at").max()', 'nw.col("invoiced_at").min()'),
    "units": ('nw.col("quantity").sum()', 'nw.col("quantity").max()'),
    "order": ('.group_by("customer_id", "invoice_id")\n', '.group_by("customer_id", "invoice_id", "period")\n'),
    "kind": ('observed.filter(~nw.col("is_cancellation"))', "observed"),
    "cancelled": ('observed.filter(nw.col("is_cancellation"))', "observed"),
    "order dates": ('nw.col("order_date").n_unique()', "nw.len()"),
    "day": ('dt.truncate("1d")', 'dt.truncate("1mo")'),
    "country": ('nw.col("country").min().alias("main_country")', 'nw.col("country").max().alias("main_country")'),
    "most recent country": ('        .filter(nw.col("last_at") == nw.col("last_at").max().over("customer_id"))\n', ""),
    "most orders' country": ('        .filter(nw.col("n") == nw.col("n").max().over("customer_id"))\n', ""),
    "null country": ('filter(~nw.col("country").is_null())', 'filter(~nw.col("customer_id").is_null())'),
    "first period": ('nw.col("period").min().alias("first_period")', 'nw.col("period").max().alias("first_period")'),
    "spend": ('nw.col("amount_micro").sum().alias("net_micro")', 'nw.col("amount_micro").max().alias("net_micro")'),
}
_OWN = {("polars", "product once"): (polars_engine, ("every.unique().to_frame()", "every.to_frame()"))}
"""Rules that an engine has in another form."""
_REFUSED = {("bigquery", "hour"), ("bigquery", "day")}
"""Mutations into what an engine does not know."""
_SEEN_BY = {
    "negative price": "units",
    "free line": "units",
    "copies of a file": "units",
    "negative amount": "units",
    "negative quantity": "units",
}
"""The rules with which a mutation of cleaning shows, where they are not those of retail."""


def _mutate(module: ModuleType, change: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put another version of a module's functions and constants in its place."""
    before, after = change
    source = inspect.getsource(module)
    assert before in source
    mutated: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(source.replace(before, after), module.__name__, "exec"), mutated)  # noqa: S102
    own = {name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
    for name in own - {"CleaningRules"} | {"LINE", "REASONS"} & vars(module).keys():
        monkeypatch.setattr(module, name, mutated[name])


@pytest.mark.parametrize("name", CLEANING_MUTATIONS)
def test_a_mutation_of_a_cleaning_rule_is_seen(
    engine: Engine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, rules = odd_shop(), RULES[_SEEN_BY.get(name, "retail")]
    expected = classify_in_memory(raw, rules)
    _mutate(cleaning, CLEANING_MUTATIONS[name], monkeypatch)
    assert classify_with(engine, raw, rules, tmp_path / "log").differing(expected) != []


@pytest.mark.parametrize("name", FEATURE_MUTATIONS)
def test_a_mutation_of_a_feature_is_seen(
    engine: Engine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = classify_in_memory(odd_shop(), RETAIL).frames["clean"]
    expected = measure_in_memory(clean, WINDOWS)
    module, change = _OWN.get((engine.name, name), (features, FEATURE_MUTATIONS[name]))
    _mutate(module, change, monkeypatch)
    if (engine.name, name) in _REFUSED:
        with pytest.raises(RunFailedError, match="no SQL is known that gives the same"):
            measure_with(engine, clean, WINDOWS, tmp_path / "log")
        return
    assert measure_with(engine, clean, WINDOWS, tmp_path / "log").differing(expected) != []
