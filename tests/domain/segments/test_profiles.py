"""Profiles: counts and money that add up, medians, and words that say what stands out."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from custseg_assets.domain.schemas import SEGMENT_PROFILES
from custseg_assets.domain.segments.model import ScalingReference, Segment, SegmentationModel
from custseg_assets.domain.segments.profiles import PROFILED, profile_segments

MODEL = SegmentationModel(
    trained_on="2011-06-01",
    reference=ScalingReference(("monetary_net",), (0.0,), (1.0,), 4),
    centroids=((1.0,), (2.0,)),
    segments=(
        Segment("S2", "Lost", "a rule", "Let them go.", 0),
        Segment("S1", "Champions", "another rule", "Keep them.", 1),
    ),
    model_version="m-1",
)
COLUMNS = ("customer_id", "segment_id", "recency_days", "frequency_orders", "monetary_net")
SEVEN = [
    ("a", "S1", 2, 9, 900.0),
    ("b", "S1", 4, 11, 700.0),
    ("c", "S2", 60, 1, 100.5),
    ("d", "S2", 80, 2, 200.5),
    ("e", "S2", 90, 1, 99.0),
    ("f", "R1", None, 0, -100.0),
    ("g", "R2", None, None, None),
]


def profiles(rows: list[tuple[Any, ...]], **features: list[Any]) -> pl.DataFrame:
    types = (pl.String, pl.String, pl.Int64, pl.Int64, pl.Float64)
    frame = pl.DataFrame(rows, schema=dict(zip(COLUMNS, types, strict=True)), orient="row")
    others = [name for name in PROFILED if name not in COLUMNS]
    frame = frame.with_columns(pl.Series(name, features.get(name, [None] * len(frame)), pl.Float64) for name in others)
    in_window = frame.filter(pl.col("frequency_orders").is_not_null()).drop("segment_id")
    return profile_segments(frame.select("customer_id", "segment_id"), in_window, MODEL)


def of(table: pl.DataFrame, segment_id: str) -> dict[str, Any]:
    return table.row(by_predicate=pl.col("segment_id") == segment_id, named=True)


def test_one_row_per_segment_in_order_with_the_tables_columns() -> None:
    table = profiles(SEVEN)
    assert table["segment_id"].to_list() == ["S1", "S2", "R1", "R2"]
    assert table["is_rule_segment"].to_list() == [False, False, True, True]
    assert table.schema == pl.Schema({column.name: column.dtype for column in SEGMENT_PROFILES.content})
    assert of(table, "S1")["naming_rule"] == "another rule"
    assert set(table["model_version"]) == {"m-1"}


def test_customers_and_revenue_by_hand() -> None:
    table = profiles(SEVEN)
    assert table["n_customers"].to_list() == [2, 3, 1, 1]
    assert table["revenue_net"].to_list() == [1600, 400, -100, 0]
    assert table["share_customers"].to_list() == pytest.approx([2 / 7, 3 / 7, 1 / 7, 1 / 7])
    assert table["share_revenue"].to_list() == pytest.approx([16 / 19, 4 / 19, -1 / 19, 0])


def test_medians_are_of_the_segment_and_lapsed_customers_have_none() -> None:
    table = profiles(SEVEN)
    assert of(table, "S1")["median_frequency_orders"] == 10
    assert of(table, "S2")["median_recency_days"] == 80
    assert of(table, "R1")["median_recency_days"] is None
    assert all(of(table, "R2")[f"median_{name}"] is None for name in PROFILED)


def test_what_sets_a_segment_apart_is_said_against_everybody_in_the_window() -> None:
    table = profiles(SEVEN)
    said = json.loads(of(table, "S1")["distinguishing"])
    # Six in the window: median of the orders 0, 1, 1, 2, 9, 11 is 1.5; of the spend −100 … 900 it is 150.5.
    assert [item["text"] for item in said] == [
        "orders 6.7 times as often (10 against 1.5)",
        "spends 5.3 times as much (800 against 150)",
        "ordered more recently (3 days against 60)",
    ]
    assert said[0] == {
        "feature": "frequency_orders",
        "median": 10,
        "median_of_all": 1.5,
        "ratio": pytest.approx(10 / 1.5),
        "text": said[0]["text"],
    }


def test_a_segment_like_the_whole_has_nothing_that_sets_it_apart() -> None:
    alike = [(one, "S1" if one in "ab" else "S2", 5, 2, 50.0) for one in "abcd"]
    assert set(profiles(alike)["distinguishing"]) == {"[]"}


def test_a_higher_median_alone_does_not_set_apart() -> None:
    # S1 has the lowest and the highest spend: more than half of everybody, less than the other half.
    rows = [("a", "S1", 5, 2, 10.0), ("b", "S1", 5, 2, 45.0), ("c", "S2", 5, 2, 20.0), ("d", "S2", 5, 2, 30.0)]
    assert of(profiles(rows), "S1")["distinguishing"] == "[]"


def test_ties_count_half_wherever_the_tied_customers_stand() -> None:
    # Two orders are more than the one of four customers, and as many as four have: (4 + 4/2) / 8, less a half, is 0.25.
    rows = [
        ("a", "S1", 5, 2, 9.0),
        *((one, "S2", 5, 2, 9.0) for one in "bcd"),
        *((one, "S2", 5, 1, 9.0) for one in "efgh"),
    ]
    said = json.loads(of(profiles(rows), "S1")["distinguishing"])
    assert [item["text"] for item in said] == ["orders more often (2 against 1.5)"]


def test_a_feature_that_the_shop_has_no_values_of_is_left_out_and_one_it_has_is_not() -> None:
    without = json.loads(of(profiles(SEVEN), "S1")["distinguishing"])
    assert "n_products" not in {item["feature"] for item in without}
    table = profiles(SEVEN, n_products=[30.0, 40.0, 3.0, 1.0, 2.0, 0.0, None])
    assert "n_products" in {item["feature"] for item in json.loads(of(table, "S1")["distinguishing"])}


def test_shares_are_said_as_percentages_and_nothing_is_divided_by_zero() -> None:
    table = profiles(SEVEN, cancellation_rate=[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, None])
    said = {item["feature"]: item for item in json.loads(of(table, "R1")["distinguishing"])}
    assert said["cancellation_rate"]["text"] == "cancels more (100 % against 0 %)"
    assert said["cancellation_rate"]["ratio"] is None


def test_descriptions_are_one_plain_sentence() -> None:
    assert profiles(SEVEN)["description"].to_list() == [
        (
            "2 customers (29 % of all) who typically placed 10 orders, the last 3 days ago, and spent 800; "
            "together they bring 84 % of net spend."
        ),
        (
            "3 customers (43 % of all) who typically placed 1 order, the last 80 days ago, and spent 100; "
            "together they bring 21 % of net spend."
        ),
        "1 customer (14 % of all) whose orders came to nothing after cancellations, or who only cancelled.",
        "1 customer (14 % of all) who are known from before and have nothing in the window.",
    ]


def test_a_segment_that_ran_empty_keeps_its_row_and_says_so() -> None:
    table = profiles(SEVEN[:2])
    lost = of(table, "S2")
    assert (lost["n_customers"], lost["share_customers"], lost["revenue_net"]) == (0, 0, 0)
    assert lost["description"] == "Nobody is in this segment at this snapshot."
    assert lost["distinguishing"] == "[]"


def test_without_any_customer_every_segment_is_empty() -> None:
    table = profiles([])
    assert table["n_customers"].to_list() == [0, 0, 0, 0]
    assert table["share_revenue"].null_count() == 4


def test_without_revenue_nobody_has_a_share_of_it() -> None:
    table = profiles([("a", "R1", 1, 1, -5.0), ("b", "S1", 1, 1, 5.0)])
    assert table["share_revenue"].null_count() == 4
    assert of(table, "S1")["description"] == (
        "1 customer (50 % of all) who typically placed 1 order, the last 1 day ago, and spent 5."
    )


def test_the_order_of_rows_does_not_matter() -> None:
    assert profiles(SEVEN[::-1]).equals(profiles(SEVEN))
