"""BigQuery's SQL for the functions of the domain: what must not be in it, and what is refused rather than guessed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import narwhals as nw
import polars as pl
import pytest

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS
from custseg_assets.domain.transactions import cleaning
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.domain.transactions.cleaning import CleaningRules, Lines
from tests.support.odd_shop import RULES, WINDOWS

pytestmark = pytest.mark.skipif(
    find_spec("duckdb") is None or find_spec("sqlglot") is None, reason="DuckDB or sqlglot is not installed here"
)

TYPES = {
    pl.String(): "VARCHAR",
    pl.Float64(): "DOUBLE",
    pl.Int64(): "BIGINT",
    pl.Boolean(): "BOOLEAN",
    pl.Datetime("us"): "TIMESTAMP",
}
COLUMNS = {
    "raw": {name: TYPES[dtype] for name, dtype in RAW_TRANSACTIONS.schema.items()},
    "clean": {name: TYPES[dtype] for name, dtype in CLEAN_TRANSACTIONS.schema.items()},
    "repeats": {"source_file": "VARCHAR", "source_row": "BIGINT"},
    "parts": {
        "customer_id": "VARCHAR",
        "invoice_id": "VARCHAR",
        "is_cancellation": "BOOLEAN",
        "period": "VARCHAR",
        "first_line_at": "TIMESTAMP",
        "last_line_at": "TIMESTAMP",
        "amount_micro": "BIGINT",
        "units_micro": "BIGINT",
        "country": "VARCHAR",
    },
    "products": {"customer_id": "VARCHAR", "product_id": "VARCHAR", "period": "VARCHAR"},
}
NAMES = {name: f"shop-1.scratch.own_{name}" for name in COLUMNS}


@pytest.fixture(scope="module")
def tables() -> Iterator[dict[str, Lines]]:
    import duckdb

    with duckdb.connect() as planner:
        for name, columns in COLUMNS.items():
            planner.execute(f"CREATE TABLE {name} ({', '.join(f'{one} {kind}' for one, kind in columns.items())})")
        yield {name: nw.from_native(planner.table(name)) for name in COLUMNS}


def compiled(lines: Lines) -> str:
    from custseg_assets.gcp.bigquery_sql import to_bigquery

    return to_bigquery(lines.to_native().sql_query(), COLUMNS, NAMES)


FOREIGN = ("CONCAT_WS", "CONTAINS_SUBSTR", "FORMAT_DATE(", "TIMESTAMP_TRUNC", "COUNT()", "SEMI JOIN", "`add`")
"""What sqlglot alone makes of these functions, and BigQuery lacks or takes for something else."""


def every_query(tables: dict[str, Lines], rules: CleaningRules) -> dict[str, str]:
    classified = cleaning.classify(tables["raw"], rules, tables["repeats"])
    closed, current = WINDOWS
    return {
        "repeats": compiled(cleaning.find_repeats(tables["raw"], rules)),
        "clean": compiled(cleaning.clean_lines(classified, rules, also=cleaning.LINE)),
        "rejected": compiled(cleaning.rejected_lines(classified)),
        "open window": compiled(rfm.order_parts(rfm.lines_within(tables["clean"], current))),
        "parts": compiled(rfm.order_parts(tables["clean"])),
        "products": compiled(rfm.bought_products(tables["clean"])),
        "totals": compiled(rfm.customer_totals(tables["parts"], tables["products"], closed)),
        "spend": compiled(rfm.spend_by_period(tables["parts"], closed)),
    }


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_each_function_becomes_sql_of_bigquery(rules: CleaningRules, tables: dict[str, Lines]) -> None:
    from tests.support.fakes.bigquery import parse_query

    for name, sql in every_query(tables, rules).items():
        parse_query(sql)
        for foreign in (
            "CONCAT_WS",
            "CONTAINS_SUBSTR",
            "FORMAT_DATE(",
            "TIMESTAMP_TRUNC",
            "COUNT()",
            "SEMI JOIN",
            "`add`",
        ):
            assert foreign not in sql, name
        assert "`shop-1`.`scratch`.`own_" in sql


def test_spend_by_period_word_for_word(tables: dict[str, Lines]) -> None:
    assert every_query(tables, RULES["retail"])["spend"] == (
        "WITH `__duckdb_s0` AS (SELECT parts.`customer_id` AS `customer_id`, parts.`period` AS `period`, "
        "COALESCE(SUM(parts.`amount_micro`), 0) AS `net_micro` FROM `shop-1`.`scratch`.`own_parts` AS parts WHERE "
        "(((parts.`period` >= '2012-01-01') AND (parts.`period` <= '2012-02-01'))) GROUP BY parts.`customer_id`, "
        "parts.`period`) SELECT `parts`.`customer_id` AS `customer_id`, `parts`.`period` AS `period`, "
        "`parts`.`net_micro` AS `net_micro` FROM `__duckdb_s0` AS `parts`"
    )


def test_what_the_two_dialects_write_otherwise(tables: dict[str, Lines]) -> None:
    sql = every_query(tables, RULES["retail"])
    # A week begins on Sunday there, with 1.
    assert "MOD(EXTRACT(DAYOFWEEK FROM `parts`.`first_line_at`) + 5, 7) + 1" in sql["totals"]
    assert "DATETIME_TRUNC(`parts`.`first_line_at`, DAY)" in sql["totals"]
    # Windows have no fractions as keys there, and both zeros are one number.
    key = "FORMAT('%.17g', IF(`raw`.`quantity` = 0.0, 0.0, `raw`.`quantity`))"
    assert key in sql["repeats"]
    assert "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW" in sql["repeats"]
    assert "WHERE EXISTS(SELECT 1 FROM" in sql["repeats"]
    # A backslash is one in a text of theirs if there are two.
    assert r"'^\\P{Nd}*(?:\\p{Nd}\\P{Nd}*){0,1}\\z'" in sql["rejected"]
    assert "`raw`.`description` IN ('Next Day Carriage', 'Très rapide')" in sql["rejected"]
    assert "FORMAT_DATETIME('%Y-%m-%d', `raw`.`invoiced_at`)" in sql["clean"]


def test_texts_of_the_shop_stay_texts(tables: dict[str, Lines]) -> None:
    from tests.support.fakes.bigquery import parse_query

    nasty = ("it's", 'a "quote"', "back\\slash", "line\nend", "`tick`", "') OR (TRUE")
    sql = compiled(
        cleaning.rejected_lines(cleaning.classify(tables["raw"], CleaningRules(None, nasty), tables["repeats"]))
    )
    found = {one.name for one in parse_query(sql).find_all(_literal()) if one.is_string}
    assert set(nasty) <= found


def _literal() -> type:
    from sqlglot import exp

    return exp.Literal


AMOUNT, COUNT, AT = nw.col("line_amount"), nw.col("source_row"), nw.col("invoiced_at")
REFUSED = {
    "a sum of fractions": lambda raw: raw.group_by("customer_id").agg(AMOUNT.sum()),
    "a mean": lambda raw: raw.group_by("customer_id").agg(AMOUNT.mean()),
    "rounding": lambda raw: raw.select(AMOUNT.round(2)),
    "rounding to whole numbers": lambda raw: raw.select(AMOUNT.cast(nw.Int64)),
    "numbers as text": lambda raw: raw.select(AMOUNT.cast(nw.String)),
    "text as numbers": lambda raw: raw.select(nw.col("invoice_id").cast(nw.Float64)),
    "division by a column": lambda raw: raw.select(AMOUNT / nw.col("quantity")),
    "division of whole numbers": lambda raw: raw.select(COUNT // 2),
    "a remainder of fractions": lambda raw: raw.select(AMOUNT % 7),
    "groups of fractions": lambda raw: raw.group_by("line_amount").agg(nw.len().alias("n")),
    "distinct fractions": lambda raw: raw.group_by("customer_id").agg(AMOUNT.n_unique()),
    "any value": lambda raw: raw.group_by("customer_id").agg(nw.col("country").any_value()),
    "the smallest fraction": lambda raw: raw.group_by("customer_id").agg(AMOUNT.min()),
    "an order downwards": lambda raw: raw.with_columns(
        n=COUNT.cum_count(reverse=True).over("customer_id", order_by="source_row")
    ),
    "another format": lambda raw: raw.select(AT.dt.to_string("%d.%m.%Y")),
    "another unit": lambda raw: raw.select(AT.dt.truncate("1mo")),
    "small letters": lambda raw: raw.select(nw.col("country").str.to_lowercase()),
    "a part of a text": lambda raw: raw.select(nw.col("country").str.slice(0, 2)),
    "an inner join": lambda raw: raw.join(raw, on="customer_id", how="inner"),
    "sorted rows": lambda raw: raw.sort("country"),
    "the first rows": lambda raw: raw.head(3),
}
"""What libraries differ in, or nobody has compared yet."""


@pytest.mark.parametrize("build", REFUSED.values(), ids=REFUSED)
def test_what_may_mean_something_else_is_refused(build: object, tables: dict[str, Lines]) -> None:
    from custseg_assets.gcp.bigquery_sql import NotTheSameError

    assert callable(build)
    with pytest.raises(NotTheSameError) as refused:
        compiled(build(tables["raw"]))
    assert "\n" not in str(refused.value)
