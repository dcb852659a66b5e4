"""What segments are like, in business units and in words that a marketer uses.

One row per segment of the model, rule segments included, also where nobody is in it. What one customer is told
belongs in ``explain``, the names of segments in ``naming``, phrases about features in ``feature_words``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from custseg_assets.domain.schemas import SEGMENT_PROFILES
from custseg_assets.domain.segments.feature_words import FEATURE_WORDS
from custseg_assets.domain.segments.model import LAPSED, REFUNDED, SegmentationModel
from custseg_assets.domain.transactions.features import MICRO

MAX_DISTINGUISHING = 4
MIN_EFFECT = 0.14
"""From here on an effect counts as medium (Vargha and Delaney 2000: A of 0.64 or more)."""
MIN_TIMES = 1.5
"""The least ratio that is told as a number of times; below it, "more" is easier to grasp than "1.2 times as much"."""

PROFILED = tuple(name for name, words in FEATURE_WORDS.items() if words.more)
"""The features a profile has a median of."""


def profile_segments(
    assignments: pl.DataFrame, customer_features: pl.DataFrame, model: SegmentationModel
) -> pl.DataFrame:
    """How large each segment is, what is typical of it, and what sets it apart.

    Medians are those of the customers in the observation window, and the whole that segments are compared with is
    everybody in it. A feature stands out by its effect: the chance that a customer of the segment has more of it than
    one of the whole, ties counting half, less a half (Vargha and Delaney 2000, *A Critique and Improvement of the CL
    Common Language Effect Size Statistics*). It assumes no distribution, and one whale does not move it.

    Args:
        assignments: ``segment_assignments`` of the snapshot.
        customer_features: of the same snapshot.
        model: the model that assigned.

    Returns:
        The columns of ``segment_profiles`` without ``period``, by segment id: ``S1``, ``S2`` …, then the rule segments.
    """
    codes = {segment_id: code for code, segment_id in enumerate(assignments["segment_id"].unique())}
    members = assignments.select(
        "customer_id", segment=pl.col("segment_id").replace_strict(codes, return_dtype=pl.UInt16)
    ).join(customer_features.select("customer_id", *PROFILED), on="customer_id", how="left")
    measured = members.group_by("segment").agg(
        pl.len().cast(pl.Int64).alias("n_customers"),
        # Whole millionths add up to the same sum in any order.
        net_micro=(pl.col("monetary_net") * MICRO).round().cast(pl.Int64).sum(),
    )
    for name in PROFILED:
        # One after the other: all at once would take twice the memory of the snapshot.
        one = members.select("segment", pl.col(name).cast(pl.Float64), _place(name)).group_by("segment")
        effect = _effect(name, customer_features[name].count())
        measured = measured.join(one.agg(pl.col(name).median().alias(f"median_{name}"), effect), on="segment")
    in_ids = {code: segment_id for segment_id, code in codes.items()}
    measured = measured.with_columns(segment_id=pl.col("segment").replace_strict(in_ids, return_dtype=pl.String))
    sized = (
        _list_segments(model)
        .join(measured, on="segment_id", how="left", maintain_order="left")
        .with_columns(pl.col("n_customers", "net_micro").fill_null(0))
        .with_columns(
            share_customers=pl.col("n_customers") / max(len(assignments), 1),
            revenue_net=pl.col("net_micro") / MICRO,
            share_revenue=pl.when(pl.col("net_micro").sum() > 0).then(pl.col("net_micro") / pl.col("net_micro").sum()),
            model_version=pl.lit(model.model_version),
        )
    )
    whole = customer_features.select(pl.col(name).cast(pl.Float64).median() for name in PROFILED).row(0, named=True)
    rows = sized.to_dicts()
    worded = sized.with_columns(
        pl.Series("distinguishing", [json.dumps(_find_differences(row, whole)) for row in rows], pl.String),
        pl.Series("description", [_describe_segment(row) for row in rows], pl.String),
    )
    return worded.select(pl.col(column.name).cast(column.dtype) for column in SEGMENT_PROFILES.content)


def _list_segments(model: SegmentationModel) -> pl.DataFrame:
    ordered = sorted(model.segments, key=lambda segment: (len(segment.segment_id), segment.segment_id))
    return pl.DataFrame(
        {
            "segment_id": segment.segment_id,
            "segment_name": segment.name,
            "is_rule_segment": segment.cluster is None,
            "naming_rule": segment.naming_rule,
            "advice": segment.advice,
        }
        for segment in (*ordered, REFUNDED, LAPSED)
    )


def _place(name: str) -> pl.Expr:
    """Twice the number of customers with less of a feature, those with as much counting half: a whole number."""
    return (pl.col(name).rank("average") * 2 - 1).cast(pl.Int64).alias(f"place_{name}")


def _effect(name: str, n_all: int) -> pl.Expr:
    place = pl.col(f"place_{name}")
    return (place.sum() / place.count() / (2 * n_all) - 0.5).alias(f"effect_{name}")


def _find_differences(row: Mapping[str, Any], whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What sets a segment apart, strongest first, without features that the shop or the segment lacks."""
    known = [name for name in PROFILED if row[f"median_{name}"] is not None]
    strongest = sorted(known, key=lambda name: -abs(row[f"effect_{name}"]))
    found = []
    for name in strongest:
        median, of_all = row[f"median_{name}"], whole[name]
        if abs(row[f"effect_{name}"]) < MIN_EFFECT or _format_value(name, median) == _format_value(name, of_all):
            continue
        ratio = median / of_all if of_all > 0 else None
        text = _compare(name, median, of_all, ratio)
        found.append({"feature": name, "median": median, "median_of_all": of_all, "ratio": ratio, "text": text})
    return found[:MAX_DISTINGUISHING]


def _compare(name: str, median: float, of_all: float, ratio: float | None) -> str:
    words = FEATURE_WORDS[name]
    if words.times and ratio and ratio >= MIN_TIMES:
        text = words.times.format(_format_number(round(ratio, 1)))
    else:
        text = words.more if median > of_all else words.less
    own = _format_number(median, "day") if words.kind == "days" else _format_value(name, median)
    return f"{text} ({own} against {_format_value(name, of_all)})"


def _format_value(name: str, value: float) -> str:
    kind = FEATURE_WORDS[name].kind
    if kind == "share":
        return f"{value * 100:.0f} %"
    return f"{value:,.0f}" if kind == "money" else _format_number(value)


def _format_number(value: float, unit: str = "") -> str:
    """A number as people write it, with its unit.

    >>> _format_number(1, "day"), _format_number(30.5, "day"), _format_number(1234.0)
    ('1 day', '30.5 days', '1,234')
    """
    number = f"{value:,.1f}".removesuffix(".0")
    return f"{number} {unit}{'' if number == '1' else 's'}" if unit else number


def _describe_segment(row: Mapping[str, Any]) -> str:
    n_customers, share_revenue = row["n_customers"], row["share_revenue"]
    if not n_customers:
        return "Nobody is in this segment at this snapshot."
    who = f"{_format_number(n_customers, 'customer')} ({row['share_customers'] * 100:.0f} % of all)"
    if row["segment_id"] == LAPSED.segment_id:
        return f"{who} who are known from before and have nothing in the window."
    if row["segment_id"] == REFUNDED.segment_id:
        return f"{who} whose orders came to nothing after cancellations, or who only cancelled."
    together = "" if share_revenue is None else f"; together they bring {share_revenue * 100:.0f} % of net spend"
    return (
        f"{who} who typically placed {_format_number(row['median_frequency_orders'], 'order')}, the last "
        f"{_format_number(row['median_recency_days'], 'day')} ago, and spent "
        f"{_format_value('monetary_net', row['median_monetary_net'])}{together}."
    )
