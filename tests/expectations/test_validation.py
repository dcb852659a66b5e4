"""What is expected of the tables: every group passes on good rows, and fails on a wrong one and shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from custseg_assets.defs.checks import asset_check_result
from custseg_assets.expectations.suites import EXAMPLE_KEYS, groups_for
from custseg_assets.expectations.validation import GroupResult, combined, together, validate
from tests.support.expected_tables import GOOD, RULES, SETTINGS, SPOILED, measured_for, spoil
from tests.support.lines import raw_lines


def check(frame: pl.DataFrame, table: str, **options: Any) -> dict[str, GroupResult]:
    options = {"measured": measured_for(table, frame)} | options
    return {result.group.name: result for result in validate(frame, table, SETTINGS, rules=RULES, **options)}


@pytest.mark.parametrize("table", EXAMPLE_KEYS)
def test_good_rows_meet_every_expectation(table: str) -> None:
    for result in check(GOOD[table], table).values():
        assert result.success, result.markdown()
        assert result.n_rows == 5
        assert not result.examples


def test_the_results_of_one_frame_do_not_affect_those_of_the_next() -> None:
    table = "clean_transactions"
    bad = GOOD[table].with_columns(unit_price=pl.when(pl.col("customer_id") == "b").then(0.0).otherwise("unit_price"))
    worse = bad.with_columns(unit_price=pl.lit(-1.0))
    for frame, n_unexpected in ((bad, 1), (GOOD[table], 0), (worse, 5), (bad, 1)):
        result = check(frame, table)["amounts_finite"]
        assert (result.success, result.n_unexpected) == (not n_unexpected, n_unexpected)
        assert [row["customer_id"] for row in result.examples] == frame.filter(pl.col("unit_price") <= 0)[
            "customer_id"
        ].to_list()


@pytest.mark.parametrize(("table", "group", "row", "values"), SPOILED)
def test_one_wrong_value_fails_its_group_and_shows_its_row(
    table: str, group: str, row: int, values: dict[str, Any]
) -> None:
    frame = spoil(GOOD[table], row, values)
    result = check(frame, table)[group]
    assert not result.success
    assert result.n_unexpected >= 1
    wrong = frame.select(EXAMPLE_KEYS[table]).row(row, named=True)
    assert any(wrong.items() <= example.items() for example in result.examples)
    assert all(name in result.examples[0] for name in values if name in frame.columns)


def test_a_scale_off_its_reference_warns_without_naming_rows() -> None:
    frame = GOOD["scaled_features"].with_columns(pl.col("recency_days") + 1.5)
    result = check(frame, "scaled_features")["centred_on_reference"]
    assert not result.success
    assert result.n_unexpected == 0
    assert "the mean of recency_days is -1 to 1 | 0 | 1.5 |" in result.markdown()


def test_a_segment_that_ran_empty_warns() -> None:
    frame = GOOD["segment_assignments"].with_columns(cluster=pl.col("cluster").replace(2, 1))
    result = check(frame, "segment_assignments")["no_empty_segment"]
    assert not result.success
    assert result.rules[0].observed == "2"


@pytest.mark.parametrize("table", EXAMPLE_KEYS)
def test_a_missing_column_fails_with_its_name_and_so_do_the_rules_that_read_it(table: str) -> None:
    name = EXAMPLE_KEYS[table][1]
    results = check(GOOD[table].drop(name), table)
    columns = results.pop("columns_present")
    assert not columns.success
    assert columns.rules[0].observed == f"missing {name}"
    unchecked = [rule for result in results.values() for rule in result.rules if not rule.success]
    assert {rule.observed for rule in unchecked} == {f"not checked: there is no column {name}"}


def test_an_unknown_column_is_named() -> None:
    frame = GOOD["scaled_features"].with_columns(shoe_size=pl.lit(42.0))
    assert check(frame, "scaled_features")["columns_present"].rules[0].observed == "unexpected shoe_size"


@pytest.mark.parametrize("table", EXAMPLE_KEYS)
def test_a_table_without_rows_breaks_nothing(table: str) -> None:
    results = check(GOOD[table].clear(), table)
    assert all(result.success for result in results.values())
    assert {result.n_rows for result in results.values()} == {0}


def test_counts_and_share_are_those_of_the_rule_that_most_rows_break() -> None:
    """Two customers of five are missing, and one invoice: two rows of five at least are wrong."""
    frame = spoil(GOOD["clean_transactions"], 0, {"customer_id": None, "invoice_id": None})
    result = check(spoil(frame, 4, {"customer_id": None}), "clean_transactions")["keys_present"]
    assert [rule.n_unexpected for rule in result.rules] == [0, 2, 1, 0, 0]
    assert (result.n_unexpected, result.n_rows) == (2, 5)
    assert [example["customer_id"] for example in result.examples] == [None, None]


def test_digits_of_products_are_checked_as_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations calls a function for each row of what it does not know as an array."""
    calls = list[int]()

    def count(column: Any, *_: Any, **__: Any) -> Any:
        calls.append(len(column))
        raise AssertionError("one row at a time")

    monkeypatch.setattr(pd.Series, "map", count)
    results = check(GOOD["clean_transactions"], "clean_transactions")
    assert {name for name, result in results.items() if not result.success} == set()
    assert calls == []


def test_at_most_five_examples_are_shown_and_each_broken_rule_has_one() -> None:
    frame = pl.concat([GOOD["scaled_features"]] * 4).with_columns(
        customer_id=pl.int_range(pl.len()).cast(pl.String),
        recency_days=pl.lit(1e16),
        monetary_net=pl.when(pl.int_range(pl.len()) == 19).then(-1e16).otherwise("monetary_net"),
    )
    result = check(frame, "scaled_features")["finite"]
    assert [example["customer_id"] for example in result.examples] == ["0", "1", "2", "3", "19"]


def test_a_value_off_its_reference_fails_its_check_and_one_far_from_the_others_does_not() -> None:
    far = GOOD["scaled_features"].with_columns(frequency_orders=pl.Series([30.0, -7.0, -7.5, -7.0, -7.5]))
    measured = measured_for("scaled_features", far)
    assert measured is not None
    assert all(result.success for result in check(far, "scaled_features").values())
    for wrong in (0.01, float("inf"), float("nan")):
        off = measured.with_columns(frequency_orders_off_reference=pl.Series([0.0, 0.0, 1e-12, wrong, 0.0]))
        result = check(far, "scaled_features", measured=off)["on_reference_scale"]
        assert (result.success, result.n_unexpected) == (False, 1)
        assert result.examples[0]["customer_id"] == "d"
        assert result.examples[0]["frequency_orders"] == -7.0


def test_scaled_values_that_nothing_was_measured_of_fail_their_check() -> None:
    result = check(GOOD["scaled_features"], "scaled_features", measured=None)["on_reference_scale"]
    assert not result.success
    assert "not checked: there is no column" in result.rules[0].observed


def test_lines_without_a_customer_fail_their_check_only_above_half() -> None:
    known, unknown = {"customer_id": "a"}, {"customer_id": None}
    assert check(raw_lines(known, known, unknown, unknown), "raw_transactions")["values_readable"].success
    assert not check(raw_lines(known, unknown, unknown), "raw_transactions")["values_readable"].success


def test_lookups_of_unknown_customers_fail_their_check_only_above_half() -> None:
    frame = GOOD["prediction_log"]
    assert check(frame, "prediction_log")["customers_known"].success
    assert not check(spoil(frame, 0, {"outcome": "unknown"}), "prediction_log")["customers_known"].success


def test_values_that_are_wrong_together_are_shown_together() -> None:
    frame = spoil(GOOD["customer_features"], 1, {"tenure_days": 2})
    result = check(frame, "customer_features")["counts_and_shares_in_range"]
    assert [rule.observed for rule in result.rules if not rule.success] == ["2.0 / 3.0"]
    assert "| 2011-05-01 | b | 2 | 3 |" in result.markdown()


def test_a_shop_without_product_rules_or_products_has_no_service_lines() -> None:
    frame = GOOD["clean_transactions"].with_columns(pl.lit(None, pl.String).alias("product_id"))
    by_name = {result.group.name: result for result in validate(frame, "clean_transactions", SETTINGS)}
    assert by_name["no_service_lines"].success
    assert by_name["no_service_lines"].markdown() == "Nothing is configured that could be broken.\n"
    assert check(frame, "clean_transactions")["no_service_lines"].success


@pytest.mark.parametrize(
    ("table", "column", "value", "group", "found"),
    [
        ("scaled_features", "recency_days", "soon", "finite", "not checked: "),
        (
            "scaled_features",
            "recency_days",
            datetime(2011, 7, 1),
            "finite",
            "not checked: '>=' not supported",
        ),
        ("clean_transactions", "product_id", 85123, "no_service_lines", "not checked: product_id holds no text"),
        ("clean_transactions", "period", 201106, "dates_in_period", "not checked: period holds no text"),
        ("segment_migrations", "to_segment_id", 2.0, "segments_differ", "not checked: to_segment_id holds no text"),
    ],
)
def test_a_column_of_the_wrong_type_is_a_failed_check_not_a_crash(
    table: str, column: str, value: object, group: str, found: str
) -> None:
    result = check(GOOD[table].with_columns(pl.lit(value).alias(column)), table)[group]
    assert not result.success
    assert any(rule.observed.startswith(found) for rule in result.rules), result.markdown()


@pytest.mark.parametrize(("table", "group", "row", "values"), SPOILED)
def test_every_failed_check_can_be_stored_with_its_examples(
    table: str, group: str, row: int, values: dict[str, Any]
) -> None:
    # Instants, infinity and not-a-number among them.
    result = asset_check_result(combined([check(spoil(GOOD[table], row, values), table)[group]]))
    assert not result.passed
    examples = result.metadata["examples"].value
    assert json.loads(json.dumps(examples, allow_nan=False)) == examples


def test_parts_of_a_table_combine_into_one_result() -> None:
    good = check(GOOD["scaled_features"], "scaled_features")["finite"]
    bad = check(spoil(GOOD["scaled_features"], 2, {"monetary_net": None}), "scaled_features")["finite"]
    whole = combined([good, bad])
    assert (whole.success, whole.n_rows, whole.n_unexpected) == (False, 10, 1)
    assert whole.examples == bad.examples


def test_a_rule_that_some_rows_may_break_is_judged_by_all_parts_together() -> None:
    known, unknown = {"customer_id": "a"}, {"customer_id": None}

    def readable(*parts: pl.DataFrame) -> GroupResult:
        return together([check(part, "raw_transactions")["values_readable"] for part in parts])

    of_known, of_nobody = raw_lines(known, known), raw_lines(unknown, unknown)
    found = readable(of_known, of_nobody)
    assert (found.success, found.n_rows, found.n_unexpected, found.examples) == (True, 4, 2, ())
    assert not readable(of_known, of_nobody, raw_lines(unknown)).success
    # A rule that could not be checked on a part is not met.
    assert not readable(of_known, of_known.drop("customer_id")).success


@pytest.mark.parametrize("table", EXAMPLE_KEYS)
def test_groups_have_usable_names_and_do_not_depend_on_the_rules(table: str) -> None:
    groups = groups_for(table, SETTINGS)
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)
    assert all(group.table == table and group.description.endswith(".") for group in groups)
    assert not any(group.is_blocking for group in groups if group.severity == "warning")
    assert [(group.name, group.description) for group in groups_for(table, SETTINGS, RULES)] == [
        (group.name, group.description) for group in groups
    ]


def test_defining_the_groups_imports_no_great_expectations() -> None:
    program = (
        "import sys; from custseg_assets.expectations import suites, validation;"
        "from custseg_assets.settings import Settings;"
        "[suites.groups_for(table, Settings()) for table in suites.EXAMPLE_KEYS];"
        "sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_data_docs_have_one_page_per_table_and_first_partition_and_fetch_nothing(tmp_path: Path) -> None:
    frame = GOOD["customer_features"]
    check(frame, "customer_features", data_docs_dir=tmp_path)
    check(frame.filter(period="2011-06-01"), "customer_features", data_docs_dir=tmp_path)
    pages = sorted(tmp_path.glob("*/*"))
    assert [page.name for page in pages] == ["2011-05-01.html", "2011-06-01.html"]
    for page in (*pages, tmp_path / "index.html"):
        assert "default-src 'none'" in page.read_text(encoding="utf-8").partition("<link")[0]


def test_data_docs_are_replaced_and_the_index_says_what_failed(tmp_path: Path) -> None:
    frame = GOOD["scaled_features"]
    check(spoil(frame, 0, {"recency_days": 99.0}), "scaled_features", data_docs_dir=tmp_path)
    assert '<td class="failed"> failed</td><td>scaled_features</td>' in (tmp_path / "index.html").read_text("utf-8")
    check(frame, "scaled_features", data_docs_dir=tmp_path)
    index = (tmp_path / "index.html").read_text("utf-8")
    assert '<td class="passed"> passed</td><td>scaled_features</td>' in index
    assert "failed</td>" not in index
    page = (tmp_path / "scaled_features" / "2011-05-01.html").read_text("utf-8")
    assert "scaled_features" in page
    assert "Traceback" not in page


def test_the_real_log_meets_every_expectation(real_tables: Any) -> None:
    for frame, table in (
        (real_tables.raw, "raw_transactions"),
        (real_tables.clean, "clean_transactions"),
        (real_tables.rejected, "rejected_transactions"),
    ):
        for result in check(frame, table).values():
            assert result.success, result.markdown()
            assert result.n_rows == frame.height
