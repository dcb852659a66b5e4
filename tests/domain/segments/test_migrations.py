"""Moves between snapshots: which there are, what caused each, and that the causes add up to all of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.schemas import CUSTOMER_FEATURES, SEGMENT_MIGRATIONS
from custseg_assets.domain.segments.clustering import assign_customers
from custseg_assets.domain.segments.customer_history import count_moves
from custseg_assets.domain.segments.migrations import (
    BEHAVIOUR,
    BORDER,
    CAUSES,
    MODEL_CHANGE,
    MoveRates,
    count_flows,
    list_migrations,
    measure_moves,
    summarise_moves,
)
from custseg_assets.domain.segments.model import ScalingReference, Segment, SegmentationModel

NAMES = {"S1": "Champions", "S2": "Loyal", "S3": "At risk", "R1": "Refunded", "R2": "Lapsed"}
NEVER = pl.Series("customer_id", [], pl.String)


def assigned(model: str = "m-1", margin: float = 0.5, **segments: str) -> pl.DataFrame:
    """Assignments of customers, all with one margin."""
    frame = pl.DataFrame({"customer_id": segments.keys(), "segment_id": segments.values()})
    is_rule = pl.col("segment_id").str.starts_with("R")
    return frame.with_columns(
        segment_name=pl.col("segment_id").replace_strict(NAMES, return_dtype=pl.String),
        is_rule_segment=is_rule,
        margin=pl.when(~is_rule).then(pl.lit(margin)),
        model_version=pl.lit(model),
    )


def seen(**spent: tuple[int, int, float]) -> pl.DataFrame:
    """Recency, orders and net spend of customers."""
    rows = [(name, *values) for name, values in spent.items()]
    names = ("customer_id", "recency_days", "frequency_orders", "monetary_net")
    return pl.DataFrame(rows, schema={name: CUSTOMER_FEATURES.schema[name] for name in names}, orient="row")


def causes(before: pl.DataFrame, now: pl.DataFrame, stay: pl.DataFrame) -> dict[str, str]:
    found = list_migrations(before, now, stay, seen(), seen())
    return dict(found.select("customer_id", "cause").iter_rows())


def test_a_move_that_the_earlier_model_does_not_make_is_the_models() -> None:
    before, now = assigned(a="S1", b="S1"), assigned("m-2", a="S2", b="S2")
    assert causes(before, now, stay=assigned(a="S1", b="S2")) == {"a": MODEL_CHANGE, "b": BEHAVIOUR}


def test_who_would_have_moved_anyway_but_elsewhere_moved_by_behaviour() -> None:
    assert causes(assigned(a="S1"), assigned("m-2", a="S3"), stay=assigned(a="S2")) == {"a": BEHAVIOUR}


def test_a_move_to_near_a_border_is_the_borders() -> None:
    before = assigned(a="S1")
    assert causes(before, clear := assigned(margin=0.1, a="S2"), stay=clear) == {"a": BEHAVIOUR}
    assert causes(before, near := assigned(margin=0.0999, a="S2"), stay=near) == {"a": BORDER}


def test_a_customer_whom_the_margin_rule_holds_elsewhere_is_at_a_border() -> None:
    held = assigned("m-2", margin=-0.04, a="S2")
    assert causes(assigned(a="S1"), held, stay=assigned(a="S2")) == {"a": BORDER}


def test_moves_into_and_out_of_rule_segments_are_behaviour_however_small_the_margin() -> None:
    before, now = assigned(a="S1", b="R2", c="R1"), assigned(margin=0.01, a="R2", b="S2", c="R2")
    assert causes(before, now, stay=now) == {"a": BEHAVIOUR, "b": BEHAVIOUR, "c": BEHAVIOUR}


def test_who_stayed_and_who_is_new_did_not_move() -> None:
    before, now = assigned(a="S1"), assigned(a="S1", b="S2")
    assert list_migrations(before, now, now, seen(), seen()).is_empty()


def test_a_move_carries_its_revenue_and_the_features_before_and_now() -> None:
    before, now = assigned(a="S1", b="S2"), assigned("m-2", a="S2", b="R2")
    then, after = seen(a=(5, 9, 900.0), b=(170, 1, 40.0)), seen(a=(30, 4, 350.0))
    found = list_migrations(before, now, now, then, after)
    assert dict(found.schema) == {column.name: column.dtype for column in SEGMENT_MIGRATIONS.content}
    moved, lapsed = found.to_dicts()
    assert (moved["revenue_net"], moved["revenue_change"]) == (350.0, -550.0)
    assert (moved["recency_days_before"], moved["recency_days_now"]) == (5, 30)
    assert (moved["frequency_orders_before"], moved["frequency_orders_now"]) == (9, 4)
    assert (moved["from_segment_name"], moved["to_segment_name"]) == ("Champions", "Loyal")
    assert (moved["earlier_model_version"], moved["model_version"]) == ("m-1", "m-2")
    # Nothing in the window: no features, and no spend.
    assert (lapsed["revenue_net"], lapsed["revenue_change"]) == (0.0, -40.0)
    assert (lapsed["recency_days_now"], lapsed["monetary_net_now"], lapsed["margin"]) == (None, None, None)


def test_flows_count_everybody_with_their_revenue_under_the_names_of_now() -> None:
    before = assigned(a="S1", b="S1", c="S3").with_columns(segment_name=pl.lit("Old name"))
    now = assigned(a="S1", b="S2", c="S2", d="S2")
    found = count_flows(before, now, seen(a=(1, 1, 10.0), b=(1, 1, 20.0), d=(1, 1, 5.0)))
    assert found.sort("n_customers", "to_segment", "from_segment").rows() == [
        ("S1 Champions", "S1 Champions", 1, 10.0),
        (None, "S2 Loyal", 1, 5.0),
        ("S1 Champions", "S2 Loyal", 1, 20.0),
        ("S3 Old name", "S2 Loyal", 1, 0.0),
    ]


def test_the_summary_counts_phantom_moves_apart() -> None:
    before, now = assigned(a="S1", b="S1", c="S1"), assigned("m-2", a="S2", b="S2", c="R2")
    spent = seen(a=(1, 1, 10.0), b=(1, 1, 20.0))
    found = list_migrations(before, now, assigned(a="S1", b="S2", c="R2"), spent, spent)
    summary = summarise_moves(found, n_known=4)
    assert summary.by_cause.rows() == [
        ("behaviour", 2, 20.0, 0.0),
        ("border", 0, 0.0, 0.0),
        ("model change", 1, 10.0, 0.0),
        ("all moves", 3, 30.0, 0.0),
    ]
    assert summary.by_flow.select("cause", "flow", "n_customers").rows() == [
        ("behaviour", "S1 Champions → R2 Lapsed", 1),
        ("behaviour", "S1 Champions → S2 Loyal", 1),
        ("model change", "S1 Champions → S2 Loyal", 1),
    ]
    assert summary.n_phantom == 1
    assert summary.sentence.startswith("2 of 4 customers moved, 2 by their behaviour and 0 at a border; another 1 ")


def test_moves_are_counted_of_those_who_were_in_a_segment_of_k_means() -> None:
    before = assigned(a="S1", b="S1", c="S2", d="S2", refunded="R1")
    now = assigned(a="S1", b="S2", c="R2", d="S2", refunded="S1", new="S3")
    assert measure_moves(now, before) == MoveRates(moved=0.5, to_and_fro=None)
    assert measure_moves(now) == MoveRates(moved=None, to_and_fro=None)
    assert measure_moves(now, before.filter(customer_id="refunded")) == MoveRates(None, None)


def test_to_and_fro_is_a_move_that_is_taken_back() -> None:
    earlier = assigned(back="S1", on="S1", late="S1", stays="S1", lapsed="R2")
    before = assigned(back="S2", on="S2", late="S1", stays="S1", lapsed="S1", new="S1")
    now = assigned(back="S1", on="S3", late="S2", stays="S1", lapsed="R2", new="S2")
    # Of the four whom K-means saw at first, one is back; who came from a rule segment and went there again is not.
    assert measure_moves(now, before, earlier) == MoveRates(moved=5 / 6, to_and_fro=0.25)
    assert measure_moves(earlier, before, before).to_and_fro == 0


def test_nobody_who_moved_has_a_summary_too() -> None:
    none = SEGMENT_MIGRATIONS.schema.to_frame()
    assert summarise_moves(none, n_known=4).by_cause.rows()[-1] == ("all moves", 0, 0.0, 0.0)


def model_of(seed: int) -> SegmentationModel:
    """A model of the two features with three random clusters."""
    centroids = np.random.default_rng(seed).normal(size=(3, 2))
    segments = tuple(Segment(f"S{at + 1}", NAMES[f"S{at + 1}"], "", "", at) for at in range(3))
    reference = ScalingReference(("recency_days", "monetary_net"), (4.0, 4.0), (1.0, 1.5), 100)
    return SegmentationModel("2011-05-01", reference, tuple(map(tuple, centroids.tolist())), segments, f"m-{seed}")


def random_shop(seed: int, n: int = 400) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    there = random.random(n) < 0.8
    frame = pl.DataFrame(
        {
            "customer_id": [f"{at:04}" for at in range(n)],
            "recency_days": random.integers(0, 180, n),
            "frequency_orders": random.integers(0, 5, n),
            "monetary_net": random.lognormal(4, 1.5, n) - 10,
        }
    )
    return frame.filter(pl.Series(there))


@pytest.mark.parametrize("seed", range(8))
def test_the_causes_add_up_to_all_moves_whatever_the_model_did(seed: int) -> None:
    model, other = model_of(seed), model_of(seed + 100 * (seed % 2))
    then, now = random_shop(2 * seed), random_shop(2 * seed + 1)
    before = assign_customers(then, NEVER, model)
    after = assign_customers(now, before["customer_id"], other)
    stay = assign_customers(now, before["customer_id"], model)
    found = list_migrations(before, after, stay, then, now)
    counted = count_moves(
        pl.concat([before.with_columns(period=pl.lit("a")), after.with_columns(period=pl.lit("b"))]),
        before="a",
        period="b",
    )
    n_moved = counted.filter(pl.col("from_segment_id") != pl.col("to_segment_id"))["n_customers"].sum()
    assert found["customer_id"].is_unique().all()
    assert set(found["cause"]) <= set(CAUSES)
    assert summarise_moves(found, 400).by_cause["n_customers"].to_list()[:3] == [
        found.filter(pl.col("cause") == cause).height for cause in CAUSES
    ]
    assert found.height == n_moved > 0
    # One model throughout moves nobody by itself.
    assert (MODEL_CHANGE in set(found["cause"])) == (model != other)
    assert found.equals(
        list_migrations(before.reverse(), after.reverse(), stay.reverse(), then.reverse(), now.reverse())
    )
