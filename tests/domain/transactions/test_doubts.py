"""Doubts about a whole log: what each notices, and that an ordinary shop has none."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from custseg_assets.domain.schemas import MAPPED_NAMES, RAW_TRANSACTIONS
from custseg_assets.domain.transactions import doubts as all_doubts
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.domain.transactions.doubts import find_doubts
from custseg_assets.domain.transactions.log_facts import Doubt, LogFacts

HEADERS = {"customer_id": "Card", "invoiced_at": "Date", "invoice_id": "Receipt", "line_amount": "Amount"}
RETAIL = CleaningRules(service_code_max_digits=1, cancellation_prefix="C")
SCHEMA = {name: dtype for name, dtype in RAW_TRANSACTIONS.schema.items() if name != "period"}


def log(n_orders: int = 300, n_customers: int = 60, n_lines: int = 2) -> pl.DataFrame:
    """An ordinary shop: orders of several lines, an hour apart, of customers in turn."""
    rows: list[dict[str, Any]] = [
        {
            "customer_id": f"c{order % n_customers}",
            "invoiced_at": datetime(2024, 1, 1) + timedelta(hours=order),
            "invoice_id": f"{1000 + order}",
            "product_id": f"P{line}{order % 7}",
            "line_amount": 5.0 + line + order % 11,
            "source_file": "log.csv",
        }
        for order in range(n_orders)
        for line in range(n_lines)
    ]
    numbered = [{**row, "source_row": number} for number, row in enumerate(rows, start=1)]
    return pl.DataFrame([{name: row.get(name) for name in SCHEMA} for row in numbered], schema=SCHEMA)


def doubts(lines: pl.DataFrame, rules: CleaningRules | None = None, **facts: Any) -> dict[str, Doubt]:
    known = {"configured": frozenset(), "says_case": False, "says_form": False, "says_key": False} | facts
    found = find_doubts(lines.lazy(), LogFacts(HEADERS, rules or CleaningRules(), **known))
    return {doubt.code: doubt for doubt in found}


def test_an_ordinary_shop_leaves_no_doubt() -> None:
    assert doubts(log()) == {}
    assert doubts(log().clear()) == {}


def test_numbers_that_start_again_every_day_need_a_key() -> None:
    number = pl.col("invoiced_at").dt.hour().cast(pl.String)
    found = doubts(log().with_columns(number.alias("invoice_id")))["invoice_numbers"]
    assert found.is_refused
    assert 'invoice_key = ["Date", "Receipt"] under [source]' in found.advice
    assert doubts(log().with_columns(number.alias("invoice_id")), says_key=True) == {}


def test_numbers_that_several_tills_use_on_a_day_need_the_customer_too() -> None:
    number = (pl.col("invoiced_at").dt.hour() // 6).cast(pl.String)
    found = doubts(log().with_columns(number.alias("invoice_id")))["invoice_numbers"]
    assert 'invoice_key = ["Card", "Date", "Receipt"]' in found.advice


def test_a_few_numbers_used_twice_by_mistake_are_no_doubt() -> None:
    number = pl.when(pl.col("invoice_id").is_in(["1001", "1002"])).then(pl.lit("1000")).otherwise("invoice_id")
    assert "invoice_numbers" not in doubts(log().with_columns(number.alias("invoice_id")))


def test_the_total_of_an_order_on_each_of_its_lines_is_noticed() -> None:
    total = pl.col("line_amount").sum().over("invoice_id")
    found = doubts(log().with_columns(total.alias("line_amount")))["order_totals"]
    assert found.is_refused
    assert 'order_amount = "Amount"' in found.advice


def test_a_shop_with_few_prices_may_have_equal_lines() -> None:
    assert doubts(log().with_columns(pl.lit(9.9).alias("line_amount"))) == {}


@pytest.mark.parametrize(
    ("ids", "line", "says"),
    [
        (pl.format("{}{}", pl.lit("00"), pl.col("source_row") % 20), 'customer_id_form = "number"', "says_form"),
        (pl.format("{}{}", pl.lit("C"), pl.col("source_row") % 20), 'customer_id_case = "lower"', "says_case"),
    ],
)
def test_customers_in_two_writings_are_noticed(ids: pl.Expr, line: str, says: str) -> None:
    plain = pl.format("{}{}", pl.lit("" if says == "says_form" else "c"), pl.col("source_row") % 20)
    is_late = pl.col("source_row") > 400
    lines = log(n_lines=1, n_orders=800).with_columns(pl.when(is_late).then(ids).otherwise(plain).alias("customer_id"))
    found = doubts(lines)["customer_ids"]
    assert found.is_refused
    assert line in found.advice
    assert doubts(lines, **{says: True}) == {}


def test_one_customer_in_two_writings_is_said_and_stops_nothing() -> None:
    one = pl.when(pl.col("source_row") == 1).then(pl.lit("C1")).otherwise("customer_id")
    found = doubts(log().with_columns(one.alias("customer_id")))["customer_ids"]
    assert not found.is_refused
    assert "'C1' and 'c1' (1 of 600 lines)" in found.words


def test_rules_of_a_known_export_that_reject_another_shop_are_noticed() -> None:
    words = log().with_columns(pl.lit("GLOVES").alias("product_id"))
    found = doubts(words, RETAIL)["service_codes"]
    assert found.is_refused
    assert 'preset = "none"' in found.advice
    assert 'customer_id = "Card"' in found.advice
    assert doubts(words, RETAIL, configured=frozenset({"service_code_max_digits"})) == {}
    marked = log().with_columns(pl.format("{}{}", pl.lit("CMD-"), pl.col("invoice_id")).alias("invoice_id"))
    assert doubts(marked, RETAIL)["cancellation_prefix"].is_refused
    negative = pl.col("line_amount") * -1
    assert "cancellation_prefix" not in doubts(marked.with_columns(negative.alias("line_amount")), RETAIL)


def test_equal_lines_are_doubtful_when_many_would_be_dropped_or_all_would_count() -> None:
    twice = pl.concat([log(), log().with_columns(pl.col("source_row") + 1000)])
    assert doubts(twice)["equal_lines"].is_refused
    assert doubts(twice, CleaningRules(keeps_equal_lines=True))["equal_lines"].is_refused
    some = pl.concat([log(), log().head(60).with_columns(pl.col("source_row") + 1000)])
    assert "60 of 660 lines" in doubts(some)["equal_lines"].words
    units = pl.concat([log(), log().gather_every(2).head(60).with_columns(pl.col("source_row") + 1000)])
    assert doubts(units, CleaningRules(keeps_equal_lines=True)) == {}
    assert doubts(twice, configured=frozenset({"duplicates"})) == {}


def test_equal_lines_are_counted_alike_however_few_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    later = log().with_columns(pl.col("invoiced_at").dt.offset_by("2mo"), pl.col("source_row") + 1000)
    lines = pl.concat([log(), later, later.with_columns(pl.col("source_row") + 1000)])
    found = doubts(lines)["equal_lines"]
    assert "600 of 1,800 lines" in found.words
    monkeypatch.setattr(all_doubts, "MAX_LINES_AT_ONCE", 100)
    assert doubts(lines)["equal_lines"] == found


def test_a_customer_with_very_many_orders_is_said() -> None:
    is_his = pl.col("source_row") % 3 == 0
    till = pl.when(is_his).then(pl.lit("TILL")).otherwise("customer_id").alias("customer_id")
    found = doubts(log(n_lines=1).with_columns(till))["one_customer"]
    assert not found.is_refused
    assert found.words == "customer 'TILL' has 100 of 300 orders"


def test_customers_that_are_new_with_every_order_are_said() -> None:
    found = doubts(log(n_orders=300, n_customers=300))["single_orders"]
    assert not found.is_refused
    assert "'Card' is new with every order" in found.advice


def test_an_order_that_changed_between_two_exports_is_said() -> None:
    later = log().tail(60).with_columns(pl.lit("later.csv").alias("source_file"))
    assert doubts(pl.concat([log(), later])) == {}
    changed = pl.when(pl.col("source_row") == 600).then(99.0).otherwise("line_amount").alias("line_amount")
    found = doubts(pl.concat([log(), later.with_columns(changed)]))["changed_orders"]
    assert not found.is_refused
    assert "1 order in several files with other lines, such as '1299' in later.csv and log.csv" in found.words


def test_lines_that_are_left_out_or_nobodys_are_not_looked_at() -> None:
    twice = pl.concat([log(), log().with_columns(pl.col("source_row") + 1000)])
    is_late = pl.col("source_row") > 1000
    left_out = twice.with_columns(pl.when(is_late).then(pl.lit("x = y")).alias("excluded_by"))
    nobody = twice.with_columns(pl.when(~is_late).then(pl.col("customer_id")).alias("customer_id"))
    assert doubts(left_out) == doubts(nobody) == {}
    assert set(MAPPED_NAMES) < set(twice.columns)


def test_an_order_that_counts_twice_in_many_files_is_refused() -> None:
    other_time = (
        log()
        .tail(60)
        .with_columns(pl.lit("later.csv").alias("source_file"), pl.col("invoiced_at") + timedelta(seconds=5))
    )
    found = doubts(pl.concat([log(), other_time]))["changed_orders"]
    assert found.is_refused
    assert "30 orders in several files" in found.words


def test_a_line_with_the_total_of_an_order_is_noticed() -> None:
    order = log(n_lines=3)
    total = order.filter(pl.col("product_id").str.starts_with("P0")).with_columns(
        (pl.col("line_amount") * 3 + 3).alias("line_amount"), pl.col("source_row") + 5000
    )
    assert doubts(order) == {}
    assert doubts(pl.concat([order, total]))["total_lines"].is_refused


@pytest.mark.parametrize("name", ["customer_id", "invoice_id"])
def test_subtotals_that_are_called_so_are_noticed(name: str) -> None:
    is_one = pl.col("source_row") % 20 == 0
    called = log().with_columns(pl.when(is_one).then(pl.format("{} Total", name)).otherwise(name).alias(name))
    assert "total_lines" in doubts(called)
    assert "total_lines" not in doubts(log().with_columns(pl.lit("Total Energies").alias("product_id")))


def test_negative_quantities_with_positive_amounts_are_noticed() -> None:
    quantity = pl.when(pl.col("source_row") % 20 == 0).then(-1.0).otherwise(1.0).alias("quantity")
    lines, headers = log().with_columns(quantity), HEADERS | {"quantity": "Qty"}
    facts = LogFacts(headers, CleaningRules(), frozenset(), says_case=False, says_form=False, says_key=False)
    codes = [doubt.code for doubt in find_doubts(lines.lazy(), facts) if doubt.is_refused]
    assert codes == ["signs"]
    signed = lines.with_columns(pl.col("line_amount") * pl.col("quantity"))
    assert not list(find_doubts(signed.lazy(), facts))


def test_orders_that_are_mostly_negative_are_noticed() -> None:
    assert doubts(log().with_columns(-pl.col("line_amount")))["signs"].is_refused
    assert (
        doubts(log().with_columns(pl.col("line_amount") * pl.when(pl.col("source_row") > 500).then(-1).otherwise(1)))
        == {}
    )


@pytest.mark.parametrize(("money", "line"), [("line_amount", 'unit_price = "M"'), ("unit_price", 'line_amount = "M"')])
def test_a_price_taken_for_an_amount_and_an_amount_for_a_price_are_noticed(money: str, line: str) -> None:
    quantity = (pl.col("source_row") % 3 + 1).cast(pl.Float64)
    price = (pl.col("product_id").str.slice(1).cast(pl.Float64) + 1) * (1 if money == "line_amount" else quantity)
    lines = log().with_columns(pl.lit(None, pl.Float64).alias("line_amount"))
    lines = lines.with_columns(quantity.alias("quantity"), price.alias(money))
    headers = {**HEADERS, "product_id": "P", "quantity": "Qty", money: "M"}
    headers = {name: header for name, header in headers.items() if name == money or header != "Amount"}
    facts = LogFacts(headers, CleaningRules(), frozenset(), says_case=False, says_form=False, says_key=False)
    found = {doubt.code: doubt for doubt in find_doubts(lines.lazy(), facts)}
    assert line in found["prices"].advice
    right = price * quantity if money == "line_amount" else price / quantity
    assert not list(find_doubts(lines.with_columns(right.alias(money)).lazy(), facts))


def test_a_file_in_cents_among_others_is_noticed() -> None:
    months = log().with_columns(pl.format("{}.csv", (pl.col("source_row") - 1) // 150).alias("source_file"))
    decimals = months.with_columns(pl.col("line_amount") + 0.25)
    cents = pl.when(pl.col("source_file") == "2.csv").then(100).otherwise(1)
    found = doubts(decimals.with_columns(pl.col("line_amount") * cents))["file_amounts"]
    assert found.is_refused
    assert "in 2.csv is" in found.words
    large = pl.when(pl.col("source_file") == "2.csv").then(100.01).otherwise(1)
    assert doubts(decimals.with_columns(pl.col("line_amount") * large)) == {}


def test_lines_without_customer_and_date_are_noticed() -> None:
    has = pl.col("source_row") % 2 == 1
    gaps = log().with_columns(pl.when(has).then(pl.col(name)).alias(name) for name in ("customer_id", "invoiced_at"))
    found = doubts(gaps)["gaps"]
    assert found.is_refused
    assert "300 of 600 lines with an amount have neither 'Card' nor 'Date', the first in row 2" in found.words
    assert "gaps" not in doubts(log().with_columns(pl.when(has).then(pl.col("customer_id")).alias("customer_id")))


@pytest.mark.parametrize("written", ["#{}", "'{}", "{} <{}@x.example>"])
def test_ids_that_differ_in_signs_only_are_noticed(written: str) -> None:
    same = pl.col("customer_id") if "@" not in written else pl.format("{}@x.example", "customer_id")
    other = pl.format(written, *["customer_id"] * written.count("{}"))
    lines = log().with_columns(pl.when(pl.col("source_row") > 300).then(other).otherwise(same).alias("customer_id"))
    assert doubts(lines)["customer_ids"].is_refused


@pytest.mark.parametrize("name", ["line_amount", "invoiced_at"])
def test_lines_without_amount_or_date_are_said_and_many_refused(name: str) -> None:
    def empty(share: int) -> dict[str, Doubt]:
        has = pl.col("source_row") % 100 >= share
        return doubts(log().with_columns(pl.when(has).then(pl.col(name)).alias(name)))

    assert "gaps" not in empty(1)
    assert not empty(5)["gaps"].is_refused
    assert empty(20)["gaps"].is_refused


def test_orders_that_all_amount_to_nothing_are_noticed() -> None:
    assert doubts(log().with_columns(pl.lit(0.0).alias("line_amount")))["signs"].is_refused


def test_units_in_lines_of_their_own_are_told_from_orders_that_are_repeated() -> None:
    keeps = CleaningRules(keeps_equal_lines=True)
    n_units = pl.when(pl.col("product_id").str.starts_with("P0")).then(4).otherwise(1)
    units = log().select(pl.all().repeat_by(n_units)).explode(pl.all())
    assert doubts(units, keeps) == {}
    is_twice = pl.col("invoice_id").cast(pl.Int64) % 10 == 0
    assert doubts(pl.concat([log(), log().filter(is_twice)]), keeps)["equal_lines"].is_refused


@pytest.mark.parametrize("of", ["customer_id", "invoiced_at"])
def test_subtotals_of_customers_and_of_days_are_noticed(of: str) -> None:
    lines = log()
    day = pl.col("invoiced_at").dt.truncate("1d")
    groups = lines.with_columns(day.alias("invoiced_at")) if of == "invoiced_at" else lines
    totals = groups.group_by(of).agg(
        pl.col("line_amount").sum(),
        *(pl.col(name).first() for name in lines.columns if name not in (of, "line_amount")),
    )
    totals = totals.with_columns(
        pl.lit(None, pl.String).alias("invoice_id"), (pl.col("source_row") + 5000).alias("source_row")
    )
    found = doubts(pl.concat([lines, totals.select(lines.columns)]))["total_lines"]
    assert found.is_refused
    assert "so it is a subtotal" in found.words


def test_of_a_date_and_a_time_one_column_stands_for_the_day() -> None:
    number = pl.col("invoiced_at").dt.hour().cast(pl.String)
    facts = LogFacts({**HEADERS, "invoiced_at": "Date + Time"}, CleaningRules(), frozenset(), False, False, False)
    found = find_doubts(log().with_columns(number.alias("invoice_id")).lazy(), facts)
    assert any('invoice_key = ["Date", "Receipt"]' in doubt.advice for doubt in found)
