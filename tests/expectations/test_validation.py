"""What is expected of the tables: every group is seen to hold and to fail, and to say which rows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.defs.checks import asset_check_result
from custseg_assets.domain.schemas import tables
from custseg_assets.domain.transactions import cleaning
from custseg_assets.expectations.suites import EXAMPLE_KEYS, groups_for
from custseg_assets.expectations.validation import GroupResult, combined, validate
from custseg_assets.settings import Settings
from tests.support.lines import clean_rows, raw_lines

SETTINGS = Settings()
RULES = cleaning.CleaningRules(1, ("Next Day Carriage",), "C")
SCHEMAS = {name: table.schema for name, table in tables(SETTINGS.model.features).items()}
INFINITE, NOT_A_NUMBER = float("inf"), float("nan")


def rows(table: str, *different: dict[str, Any], **common: Any) -> pl.DataFrame:
    schema = SCHEMAS[table]
    blank = dict.fromkeys(schema) | {"period": "2011-05-01"} | common
    return pl.DataFrame([blank | row for row in different], schema=schema)


def sound(table: str) -> pl.DataFrame:
    """Five rows that nothing is wrong with."""
    return _SOUND[table]


_SOUND = {
    "raw_transactions": raw_lines(
        {}, {"customer_id": None}, {"quantity": -1.0, "invoice_id": "C1"}, {"invoiced_at": "2011-06-30 23:59"}, {}
    ),
    "clean_transactions": clean_rows(
        {"customer_id": "a"},
        {"customer_id": "b", "product_id": "gift12"},
        {"customer_id": "c", "product_id": None, "description": None},
        {"customer_id": "d", "quantity": -1.0, "is_cancellation": True},
        {"customer_id": "e", "invoiced_at": "2011-06-01 00:00"},
    ),
    "rejected_transactions": rows(
        "rejected_transactions",
        {"source_row": 1, "reason": "missing_customer"},
        {"source_row": 2, "reason": "missing_customer"},
        {"source_row": 3, "reason": "non_positive_price", "customer_id": "a", "unit_price": 0.0},
        {"source_row": 4, "reason": "duplicate", "customer_id": "a", "unit_price": 1.0},
        {"source_row": 5, "reason": "unreadable", "customer_id": "b"},
        source_file="log.csv",
    ),
    "customer_features": rows(
        "customer_features",
        {"customer_id": "a"},
        {"customer_id": "b"},
        {"customer_id": "a", "period": "2011-06-01"},
        {"customer_id": "d", "days_between_orders": None, "monetary_net": -5.0},
        {
            "customer_id": "e",
            "frequency_orders": 0,
            "monetary_gross": 0.0,
            **dict.fromkeys(("recency_days", "tenure_days", "avg_order_value", "favourite_weekday", "favourite_hour")),
        },
        recency_days=3,
        frequency_orders=2,
        monetary_gross=20.0,
        monetary_net=0.0,
        avg_order_value=10.0,
        n_products=2,
        n_cancelled_orders=1,
        cancellation_rate=1 / 3,
        tenure_days=3,
        days_between_orders=1.5,
        favourite_weekday=6,
        favourite_hour=0,
        monthly_spend_mean=0.0,
    ),
    "scaled_features": rows(
        "scaled_features",
        *({"customer_id": name, "recency_days": value} for name, value in zip("abcde", (-2, -1, 0, 1, 2), strict=True)),
        frequency_orders=0.5,
        monetary_net=-0.5,
    ),
    "segment_assignments": rows(
        "segment_assignments",
        *(
            {
                "customer_id": name,
                "segment_id": f"S{cluster + 1}",
                "segment_name": f"Group {cluster}",
                "cluster": cluster,
            }
            for name, cluster in zip("abcd", (0, 1, 2, 0), strict=True)
        ),
        {
            "customer_id": "e",
            "segment_id": "R2",
            "segment_name": "Lapsed",
            "is_rule_segment": True,
            **dict.fromkeys(("distance", "margin", "runner_up_segment_id")),
        },
        is_rule_segment=False,
        distance=0.4,
        margin=0.2,
        is_held=False,
        runner_up_segment_id="S2",
        model_version="m-1",
    ),
    "segment_migrations": rows(
        "segment_migrations",
        {"customer_id": "a"},
        {"customer_id": "b", "cause": "border", "margin": 0.05},
        {"customer_id": "c", "cause": "model change"},
        {"customer_id": "a", "period": "2011-06-01"},
        {"customer_id": "e", "to_segment_id": "R2", "to_segment_name": "Lapsed", "margin": None},
        from_segment_id="S1",
        from_segment_name="Champions",
        to_segment_id="S2",
        to_segment_name="Loyal",
        cause="behaviour",
        margin=0.3,
        revenue_net=20.0,
        revenue_change=-5.0,
        earlier_model_version="m-1",
        model_version="m-1",
    ),
    "drift_report": rows(
        "drift_report",
        {"subject": "recency_days", "score": 0.1},
        {"subject": "frequency_orders", "score": 0.0},
        {"subject": "monetary_net", "score": 0.2, "is_alert": True},
        {"subject": "country", "score": None, "threshold": None},
        {"subject": "n_products", "score": 0.3, "is_alert": True},
        score_name="psi",
        threshold=0.2,
        is_alert=False,
        verdict="breach",
        reference_period="2011-04-01",
        model_version="m-1",
        n_customers=5,
    ),
    "prediction_log": rows(
        "prediction_log",
        {"source_line": 1, "customer_id": "a"},
        {"source_line": 2, "customer_id": "b", "margin": None, "segment_id": "R2", "is_rule_segment": True},
        {"source_line": 3, "kind": "score"},
        {"source_line": 4, "outcome": "unknown", **dict.fromkeys(("segment_id", "is_rule_segment", "answer"))},
        {
            "source_line": 5,
            "kind": "dropped",
            "outcome": "disk",
            "n_dropped": 3,
            **dict.fromkeys(("request_id", "latency_ms", "release_id", "model_version")),
        },
        source_file="a.jsonl",
        at=datetime(2011, 5, 1, 9),
        kind="lookup",
        request_id="r-1",
        latency_ms=1.5,
        release_id="r-2011-04-01-00000000",
        model_version="m-1",
        outcome="found",
        segment_id="S1",
        is_rule_segment=False,
        margin=0.2,
        answer="{}",
    ),
}

SPOILED: list[tuple[str, str, int, dict[str, Any]]] = [
    ("raw_transactions", "lines_identified", 3, {"source_file": None}),
    ("raw_transactions", "lines_identified", 4, {"source_row": 1}),
    ("raw_transactions", "dates_in_period", 3, {"invoiced_at": datetime(2011, 7, 1)}),
    ("raw_transactions", "dates_in_period", 3, {"invoiced_at": datetime(2011, 5, 31, 23, 59)}),
    ("raw_transactions", "dates_plausible", 1, {"invoiced_at": datetime(1970, 1, 1), "period": "1970-01-01"}),
    ("raw_transactions", "values_readable", 2, {"unreadable_values": '{"quantity": "two"}'}),
    ("clean_transactions", "keys_present", 0, {"customer_id": None}),
    ("clean_transactions", "keys_present", 1, {"invoice_id": None}),
    ("clean_transactions", "dates_in_period", 4, {"period": "2011-05-01"}),
    ("clean_transactions", "amounts_finite", 1, {"line_amount": INFINITE}),
    ("clean_transactions", "amounts_finite", 1, {"line_amount": NOT_A_NUMBER}),
    ("clean_transactions", "amounts_finite", 2, {"line_amount": None}),
    ("clean_transactions", "amounts_finite", 0, {"unit_price": 0.0}),
    ("clean_transactions", "no_service_lines", 1, {"product_id": "M1"}),
    ("clean_transactions", "no_service_lines", 4, {"description": "Next Day Carriage"}),
    ("clean_transactions", "amounts_signed", 0, {"line_amount": -3.0}),
    ("clean_transactions", "amounts_signed", 3, {"line_amount": 3.0}),
    ("rejected_transactions", "reason_known", 3, {"reason": "a hunch"}),
    ("rejected_transactions", "reason_known", 3, {"reason": None}),
    ("rejected_transactions", "reason_true", 1, {"customer_id": "z"}),
    ("rejected_transactions", "reason_true", 2, {"unit_price": 0.01}),
    ("rejected_transactions", "lines_identified", 4, {"source_row": 1}),
    ("customer_features", "one_row_per_customer", 1, {"customer_id": "a"}),
    ("customer_features", "counts_and_shares_in_range", 2, {"recency_days": -1}),
    ("customer_features", "counts_and_shares_in_range", 0, {"cancellation_rate": 27.0}),
    ("customer_features", "counts_and_shares_in_range", 1, {"tenure_days": 2}),
    ("customer_features", "counts_and_shares_in_range", 3, {"monetary_net": NOT_A_NUMBER}),
    ("customer_features", "nulls_only_where_defined", 1, {"recency_days": None}),
    ("customer_features", "nulls_only_where_defined", 4, {"recency_days": 3}),
    ("customer_features", "money_consistent", 3, {"monetary_net": 20.5}),
    ("scaled_features", "one_row_per_customer", 4, {"customer_id": "a"}),
    ("scaled_features", "finite", 2, {"monetary_net": None}),
    ("scaled_features", "finite", 2, {"monetary_net": -INFINITE}),
    ("scaled_features", "on_reference_scale", 3, {"frequency_orders": 20.1}),
    ("segment_assignments", "one_segment_per_customer", 1, {"customer_id": "a"}),
    ("segment_assignments", "segment_named", 0, {"segment_name": None}),
    ("segment_assignments", "segment_named", 0, {"segment_name": "Lapsed"}),
    ("segment_assignments", "segment_named", 4, {"segment_name": "Champions"}),
    ("segment_assignments", "segment_named", 4, {"cluster": 2}),
    ("segment_assignments", "margin_in_range", 1, {"margin": 1.01}),
    ("segment_assignments", "margin_in_range", 1, {"margin": -0.05}),
    ("segment_assignments", "margin_in_range", 1, {"margin": -0.11, "is_held": True}),
    ("segment_assignments", "margin_in_range", 1, {"is_held": True}),
    ("segment_assignments", "margin_in_range", 2, {"distance": None}),
    ("segment_migrations", "one_move_per_customer", 1, {"customer_id": "a"}),
    ("segment_migrations", "segments_differ", 2, {"to_segment_id": "S1"}),
    ("segment_migrations", "segments_differ", 0, {"from_segment_id": None}),
    ("segment_migrations", "cause_known", 3, {"cause": "a whim"}),
    ("drift_report", "one_row_per_score", 1, {"subject": "recency_days"}),
    ("drift_report", "scores_finite", 0, {"score": NOT_A_NUMBER}),
    ("drift_report", "scores_finite", 4, {"score": INFINITE}),
    ("drift_report", "verdict_known", 2, {"verdict": "fine"}),
    ("drift_report", "alerts_match_scores", 0, {"is_alert": True}),
    ("drift_report", "alerts_match_scores", 2, {"is_alert": False}),
    ("prediction_log", "records_identified", 4, {"source_line": 1}),
    ("prediction_log", "records_identified", 0, {"at": None}),
    ("prediction_log", "answers_traceable", 0, {"kind": "guess"}),
    ("prediction_log", "answers_traceable", 3, {"model_version": None}),
    ("prediction_log", "answers_traceable", 2, {"segment_id": None}),
    ("prediction_log", "values_possible", 0, {"latency_ms": -1.0}),
    ("prediction_log", "values_possible", 2, {"monetary_net": NOT_A_NUMBER}),
]


def spoil(frame: pl.DataFrame, row: int, values: dict[str, Any]) -> pl.DataFrame:
    changed = frame.to_dicts()
    changed[row] |= values
    return pl.DataFrame(changed, schema=frame.schema)


def check(frame: pl.DataFrame, table: str, **options: Any) -> dict[str, GroupResult]:
    return {result.group.name: result for result in validate(frame, table, SETTINGS, rules=RULES, **options)}


@pytest.mark.parametrize("table", EXAMPLE_KEYS)
def test_sound_rows_meet_every_expectation(table: str) -> None:
    for result in check(sound(table), table).values():
        assert result.success, result.markdown()
        assert result.n_rows == 5
        assert not result.examples


def test_what_one_frame_came_to_says_nothing_about_the_next() -> None:
    table = "clean_transactions"
    bad = sound(table).with_columns(unit_price=pl.when(pl.col("customer_id") == "b").then(0.0).otherwise("unit_price"))
    worse = bad.with_columns(unit_price=pl.lit(-1.0))
    for frame, n_unexpected in ((bad, 1), (sound(table), 0), (worse, 5), (bad, 1)):
        result = check(frame, table)["amounts_finite"]
        assert (result.success, result.n_unexpected) == (not n_unexpected, n_unexpected)
        assert [row["customer_id"] for row in result.examples] == frame.filter(pl.col("unit_price") <= 0)[
            "customer_id"
        ].to_list()


@pytest.mark.parametrize(("table", "group", "row", "values"), SPOILED)
def test_one_wrong_value_fails_its_group_and_shows_its_row(
    table: str, group: str, row: int, values: dict[str, Any]
) -> None:
    frame = spoil(sound(table), row, values)
    result = check(frame, table)[group]
    assert not result.success
    assert result.n_unexpected >= 1
    wrong = frame.select(EXAMPLE_KEYS[table]).row(row, named=True)
    assert any(wrong.items() <= example.items() for example in result.examples)
    assert all(name in result.examples[0] for name in values if name in frame.columns)


def test_a_scale_off_its_reference_warns_without_naming_rows() -> None:
    frame = sound("scaled_features").with_columns(pl.col("recency_days") + 1.5)
    result = check(frame, "scaled_features")["centred_on_reference"]
    assert not result.success
    assert result.n_unexpected == 0
    assert "the mean of recency_days is -1 to 1 | 0 | 1.5 |" in result.markdown()


def test_a_segment_that_ran_empty_warns() -> None:
    frame = sound("segment_assignments").with_columns(cluster=pl.col("cluster").replace(2, 1))
    result = check(frame, "segment_assignments")["no_empty_segment"]
    assert not result.success
    assert result.rules[0].observed == "2"


@pytest.mark.parametrize("table", EXAMPLE_KEYS)
def test_a_missing_column_fails_with_its_name_and_so_do_the_rules_that_read_it(table: str) -> None:
    name = EXAMPLE_KEYS[table][1]
    results = check(sound(table).drop(name), table)
    columns = results.pop("columns_present")
    assert not columns.success
    assert columns.rules[0].observed == f"missing {name}"
    unchecked = [rule for result in results.values() for rule in result.rules if not rule.success]
    assert {rule.observed for rule in unchecked} == {f"not checked: there is no column {name}"}


def test_an_unknown_column_is_named() -> None:
    frame = sound("scaled_features").with_columns(shoe_size=pl.lit(42.0))
    assert check(frame, "scaled_features")["columns_present"].rules[0].observed == "unexpected shoe_size"


@pytest.mark.parametrize("table", EXAMPLE_KEYS)
def test_a_table_without_rows_breaks_nothing(table: str) -> None:
    results = check(sound(table).clear(), table)
    assert all(result.success for result in results.values())
    assert {result.n_rows for result in results.values()} == {0}


def test_counts_and_share_are_those_of_the_rule_that_most_rows_break() -> None:
    """Two customers of five are missing, and one invoice: two rows of five at least are wrong."""
    frame = spoil(sound("clean_transactions"), 0, {"customer_id": None, "invoice_id": None})
    result = check(spoil(frame, 4, {"customer_id": None}), "clean_transactions")["keys_present"]
    assert [rule.n_unexpected for rule in result.rules] == [0, 2, 1, 0, 0]
    assert (result.n_unexpected, result.unexpected_share) == (2, 0.4)
    assert [example["customer_id"] for example in result.examples] == [None, None]


def test_at_most_five_examples_are_shown_and_each_broken_rule_has_one() -> None:
    frame = pl.concat([sound("scaled_features")] * 4).with_columns(
        customer_id=pl.int_range(pl.len()).cast(pl.String),
        recency_days=pl.lit(99.0),
        monetary_net=pl.when(pl.int_range(pl.len()) == 19).then(-99.0).otherwise("monetary_net"),
    )
    result = check(frame, "scaled_features")["on_reference_scale"]
    assert [example["customer_id"] for example in result.examples] == ["0", "1", "2", "3", "19"]


def test_half_the_lines_without_a_customer_are_a_shop_and_more_are_a_mistake() -> None:
    known, unknown = {"customer_id": "a"}, {"customer_id": None}
    assert check(raw_lines(known, known, unknown, unknown), "raw_transactions")["values_readable"].success
    assert not check(raw_lines(known, unknown, unknown), "raw_transactions")["values_readable"].success


def test_some_lookups_of_nobody_are_usual_and_more_than_half_are_a_mistake() -> None:
    frame = sound("prediction_log")
    assert check(frame, "prediction_log")["customers_known"].success
    assert not check(spoil(frame, 0, {"outcome": "unknown"}), "prediction_log")["customers_known"].success


def test_values_that_are_wrong_together_are_shown_together() -> None:
    frame = spoil(sound("customer_features"), 1, {"tenure_days": 2})
    result = check(frame, "customer_features")["counts_and_shares_in_range"]
    assert [rule.observed for rule in result.rules if not rule.success] == ["2.0 / 3.0"]
    assert "| 2011-05-01 | b | 2 | 3 |" in result.markdown()


def test_a_shop_without_product_rules_or_products_has_no_service_lines() -> None:
    frame = sound("clean_transactions").with_columns(pl.lit(None, pl.String).alias("product_id"))
    by_name = {result.group.name: result for result in validate(frame, "clean_transactions", SETTINGS)}
    assert by_name["no_service_lines"].success
    assert by_name["no_service_lines"].markdown() == "Nothing is configured that could be broken.\n"
    assert check(frame, "clean_transactions")["no_service_lines"].success


@pytest.mark.parametrize(
    ("table", "column", "value", "group", "found"),
    [
        ("scaled_features", "recency_days", "soon", "on_reference_scale", "not checked: "),
        (
            "scaled_features",
            "recency_days",
            datetime(2011, 7, 1),
            "on_reference_scale",
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
    result = check(sound(table).with_columns(pl.lit(value).alias(column)), table)[group]
    assert not result.success
    assert any(rule.observed.startswith(found) for rule in result.rules), result.markdown()


@pytest.mark.parametrize(("table", "group", "row", "values"), SPOILED)
def test_every_failed_check_can_be_stored_with_its_examples(
    table: str, group: str, row: int, values: dict[str, Any]
) -> None:
    # Instants, infinity and not-a-number among them.
    result = asset_check_result(combined([check(spoil(sound(table), row, values), table)[group]]))
    assert not result.passed
    examples = result.metadata["examples"].value
    assert json.loads(json.dumps(examples, allow_nan=False)) == examples


def test_parts_of_a_table_combine_into_one_result() -> None:
    good = check(sound("scaled_features"), "scaled_features")["finite"]
    bad = check(spoil(sound("scaled_features"), 2, {"monetary_net": None}), "scaled_features")["finite"]
    whole = combined([good, bad])
    assert (whole.success, whole.n_rows, whole.n_unexpected, whole.unexpected_share) == (False, 10, 1, 0.1)
    assert whole.examples == bad.examples


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
        "import sys; from custseg_assets.expectations import engine, suites;"
        "from custseg_assets.settings import Settings;"
        "[suites.groups_for(table, Settings()) for table in suites.EXAMPLE_KEYS];"
        "sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_data_docs_have_one_page_per_table_and_first_partition_and_fetch_nothing(tmp_path: Path) -> None:
    frame = sound("customer_features")
    check(frame, "customer_features", data_docs_dir=tmp_path)
    check(frame.filter(period="2011-06-01"), "customer_features", data_docs_dir=tmp_path)
    pages = sorted(tmp_path.glob("*/*"))
    assert [page.name for page in pages] == ["2011-05-01.html", "2011-06-01.html"]
    for page in (*pages, tmp_path / "index.html"):
        assert "default-src 'none'" in page.read_text(encoding="utf-8").partition("<link")[0]


def test_data_docs_are_replaced_and_the_index_says_what_failed(tmp_path: Path) -> None:
    frame = sound("scaled_features")
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
