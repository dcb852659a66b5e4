"""Tables that meet every expectation, and the values that spoil them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from custseg_assets.domain.schemas import tables
from custseg_assets.domain.segments.training_tables import OFF_REFERENCE
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.settings import Settings
from tests.support.lines import clean_rows, raw_lines

SETTINGS = Settings()
RULES = CleaningRules(1, ("Next Day Carriage",), "C")
_SCHEMAS = {name: table.schema for name, table in tables(SETTINGS.model.features).items()}
_INFINITE, _NOT_A_NUMBER = float("inf"), float("nan")


def _rows(table: str, *different: dict[str, Any], **common: Any) -> pl.DataFrame:
    schema = _SCHEMAS[table]
    blank = dict.fromkeys(schema) | {"period": "2011-05-01"} | common
    return pl.DataFrame([blank | row for row in different], schema=schema)


# Five rows of each table with which nothing is wrong.
GOOD: dict[str, pl.DataFrame] = {
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
    "rejected_transactions": _rows(
        "rejected_transactions",
        {"source_row": 1, "reason": "missing_customer"},
        {"source_row": 2, "reason": "missing_customer"},
        {"source_row": 3, "reason": "non_positive_price", "customer_id": "a", "unit_price": 0.0},
        {"source_row": 4, "reason": "duplicate", "customer_id": "a", "unit_price": 1.0},
        {"source_row": 5, "reason": "unreadable", "customer_id": "b"},
        source_file="log.csv",
    ),
    "customer_features": _rows(
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
    "scaled_features": _rows(
        "scaled_features",
        *({"customer_id": name, "recency_days": value} for name, value in zip("abcde", (-2, -1, 0, 1, 2), strict=True)),
        frequency_orders=0.5,
        monetary_net=-0.5,
    ),
    "segment_assignments": _rows(
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
    "segment_migrations": _rows(
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
    "customer_value": _rows(
        "customer_value",
        {"customer_id": "a"},
        {"customer_id": "b", "p_order_30d_low": 0.0, "p_order_90d_high": 1.0},
        {"customer_id": "c", "expected_spend_90d_low": -20.0},
        {"customer_id": "a", "period": "2011-06-01"},
        {"customer_id": "e", "method": "segment_mean", "p_order_60d": 0.2},
        **{
            f"{name}{end}": value
            for name, ends in {
                "p_order_30d": (0.1, 0.2, 0.3),
                "p_order_60d": (0.2, 0.3, 0.4),
                "p_order_90d": (0.3, 0.4, 0.5),
                "expected_orders_90d": (0.0, 1.2, 4.0),
                "expected_spend_90d": (0.0, 80.5, 300.0),
            }.items()
            for end, value in zip(("_low", "", "_high"), ends, strict=True)
        },
        method="logistic",
    ),
    "drift_report": _rows(
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
    "prediction_log": _rows(
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
    "campaign_groups": _rows(
        "campaign_groups",
        {"customer_id": "a"},
        {"customer_id": "b", "is_holdout": True},
        {"customer_id": "c", "is_holdout": True},
        {"customer_id": "a", "campaign": "winter"},
        {"customer_id": "b", "campaign": "winter"},
        campaign="autumn",
        segment_id="S1",
        is_holdout=False,
        return_covariate=0.4,
        spend_covariate=12.5,
    ),
    "campaign_report": _rows(
        "campaign_report",
        {"segment_id": "all"},
        {"segment_id": "S1", "verdict": "cannot tell", **dict.fromkeys(("effect", "effect_low", "effect_high"))},
        {"segment_id": "all", "figure": "spend", "effect": 7.5, "effect_low": 2.5, "effect_high": 12.5},
        {
            "segment_id": "S1",
            "figure": "spend",
            "verdict": "less",
            "effect": -7.5,
            "effect_low": -9.5,
            "effect_high": -2.5,
        },
        {"segment_id": "all", "campaign": "winter", "verdict": "no data yet", "days_observed": 0, "p_value": None},
        campaign="autumn",
        figure="return",
        verdict="more",
        reason="more: +5.0 points",
        n_audience=800,
        n_holdout=200,
        effect=0.05,
        effect_low=0.01,
        effect_high=0.09,
        p_value=0.01,
        days=30,
        days_observed=30,
        n_vanished=0,
    ),
}

# Table, group that fails, row, and the values that make it fail.
SPOILED: Sequence[tuple[str, str, int, dict[str, Any]]] = (
    ("raw_transactions", "lines_identified", 3, {"source_file": None}),
    ("raw_transactions", "lines_identified", 4, {"source_row": 1}),
    ("raw_transactions", "dates_in_period", 3, {"invoiced_at": datetime(2011, 7, 1)}),
    ("raw_transactions", "dates_in_period", 3, {"invoiced_at": datetime(2011, 5, 31, 23, 59)}),
    ("raw_transactions", "dates_plausible", 1, {"invoiced_at": datetime(1970, 1, 1), "period": "1970-01-01"}),
    ("raw_transactions", "values_readable", 2, {"unreadable_values": '{"quantity": "two"}'}),
    ("clean_transactions", "keys_present", 0, {"customer_id": None}),
    ("clean_transactions", "keys_present", 1, {"invoice_id": None}),
    ("clean_transactions", "dates_in_period", 4, {"period": "2011-05-01"}),
    ("clean_transactions", "amounts_finite", 1, {"line_amount": _INFINITE}),
    ("clean_transactions", "amounts_finite", 1, {"line_amount": _NOT_A_NUMBER}),
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
    ("customer_features", "counts_and_shares_in_range", 3, {"monetary_net": _NOT_A_NUMBER}),
    ("customer_features", "nulls_only_where_defined", 1, {"recency_days": None}),
    ("customer_features", "nulls_only_where_defined", 4, {"recency_days": 3}),
    ("customer_features", "money_consistent", 3, {"monetary_net": 20.5}),
    ("scaled_features", "one_row_per_customer", 4, {"customer_id": "a"}),
    ("scaled_features", "finite", 2, {"monetary_net": None}),
    ("scaled_features", "finite", 2, {"monetary_net": -_INFINITE}),
    ("segment_assignments", "one_segment_per_customer", 1, {"customer_id": "a"}),
    ("segment_assignments", "segment_named", 0, {"segment_name": None}),
    ("segment_assignments", "segment_named", 0, {"segment_name": "Lapsed"}),
    ("segment_assignments", "segment_named", 4, {"segment_name": "Champions"}),
    ("segment_assignments", "segment_named", 4, {"cluster": 2}),
    ("segment_assignments", "margin_in_range", 1, {"margin": 1.01}),
    ("segment_assignments", "margin_in_range", 1, {"margin": -0.05}),
    ("segment_assignments", "margin_in_range", 1, {"margin": -0.61, "is_held": True}),
    ("segment_assignments", "margin_in_range", 1, {"is_held": True}),
    ("segment_assignments", "margin_in_range", 2, {"distance": None}),
    ("segment_migrations", "one_move_per_customer", 1, {"customer_id": "a"}),
    ("segment_migrations", "segments_differ", 2, {"to_segment_id": "S1"}),
    ("segment_migrations", "segments_differ", 0, {"from_segment_id": None}),
    ("segment_migrations", "cause_known", 3, {"cause": "a whim"}),
    ("customer_value", "one_row_per_customer", 1, {"customer_id": "a"}),
    ("customer_value", "figures_possible", 0, {"p_order_30d_low": -0.01}),
    ("customer_value", "figures_possible", 2, {"p_order_90d_high": 1.01}),
    ("customer_value", "figures_possible", 2, {"expected_orders_90d": None}),
    ("customer_value", "figures_possible", 1, {"expected_spend_90d": _INFINITE}),
    ("customer_value", "figures_possible", 3, {"method": "a hunch"}),
    ("customer_value", "intervals_hold_figures", 0, {"p_order_60d": 0.45}),
    ("customer_value", "intervals_hold_figures", 1, {"expected_spend_90d_low": 81.0}),
    ("customer_value", "longer_is_likelier", 4, {"p_order_60d": 0.15}),
    ("drift_report", "one_row_per_score", 1, {"subject": "recency_days"}),
    ("drift_report", "scores_finite", 0, {"score": _NOT_A_NUMBER}),
    ("drift_report", "scores_finite", 4, {"score": _INFINITE}),
    ("drift_report", "verdict_known", 2, {"verdict": "fine"}),
    ("drift_report", "alerts_match_scores", 0, {"is_alert": True}),
    ("drift_report", "alerts_match_scores", 2, {"is_alert": False}),
    ("prediction_log", "records_identified", 4, {"source_line": 1}),
    ("prediction_log", "records_identified", 0, {"at": None}),
    ("prediction_log", "answers_traceable", 0, {"kind": "guess"}),
    ("prediction_log", "answers_traceable", 3, {"model_version": None}),
    ("prediction_log", "answers_traceable", 2, {"segment_id": None}),
    ("prediction_log", "values_possible", 0, {"latency_ms": -1.0}),
    ("prediction_log", "values_possible", 2, {"monetary_net": _NOT_A_NUMBER}),
    ("campaign_groups", "customers_identified", 1, {"customer_id": "a"}),
    ("campaign_groups", "customers_identified", 0, {"is_holdout": None}),
    ("campaign_groups", "covariates_known", 2, {"spend_covariate": None}),
    ("campaign_report", "figures_identified", 2, {"figure": "return"}),
    ("campaign_report", "figures_identified", 0, {"figure": "profit"}),
    ("campaign_report", "values_possible", 1, {"verdict": "surely"}),
    ("campaign_report", "values_possible", 0, {"p_value": 1.5}),
    ("campaign_report", "values_possible", 0, {"effect": 1.5}),
    ("campaign_report", "values_possible", 2, {"effect_low": 8.0}),
    ("campaign_report", "values_possible", 2, {"days_observed": 31}),
)


def measured_for(table: str, frame: pl.DataFrame) -> pl.DataFrame | None:
    """What rules read besides the table, with which nothing is wrong."""
    if table != "scaled_features":
        return None
    return frame.select(pl.repeat(0.0, pl.len()).alias(f"{name}{OFF_REFERENCE}") for name in SETTINGS.model.features)


def spoil(frame: pl.DataFrame, row: int, values: dict[str, Any]) -> pl.DataFrame:
    """The frame with other values in one of its rows."""
    changed = frame.to_dicts()
    changed[row] |= values
    return pl.DataFrame(changed, schema=frame.schema)
