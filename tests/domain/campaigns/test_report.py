"""The report: a verdict in words for every figure, and none where there is nothing to tell."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from custseg_assets.domain.campaigns.assignment import assign_holdout
from custseg_assets.domain.campaigns.outcomes import count_outcomes
from custseg_assets.domain.campaigns.power import Spread, foresee
from custseg_assets.domain.campaigns.report import Progress, report_figures, sort_rows
from custseg_assets.domain.campaigns.split import SplitCheck, check_split

N = 600
IDS = [f"c{number:03}" for number in range(N)]
SEGMENTS = ["S1"] * 500 + ["S2"] * 100
IS_HELD = assign_holdout(IDS, SEGMENTS, "salt", 0.2)
GROUPS = pl.DataFrame(
    {
        "customer_id": IDS,
        "segment_id": SEGMENTS,
        "segment_name": ["Champions"] * 500 + ["Promising"] * 100,
        "is_holdout": IS_HELD,
        "return_covariate": np.linspace(0, 1, N),
        "spend_covariate": np.linspace(0, 9, N),
    }
)
AS_PLANNED = SplitCheck(is_as_planned=True, words="as planned", n_vanished=0)


def rows(uplift: float = 0.0, **changed: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """A report by figure and segment; so many more of the audience order."""
    # Of the seeds, one of the nineteen in twenty without a false alarm.
    random = np.random.default_rng(2)
    orders = (random.random(N) < 0.3 + np.where(IS_HELD, 0.0, uplift)).astype(np.float64)
    arguments = {
        "split": AS_PLANNED,
        "progress": Progress(30, 30),
        "cap": 40.0,
        "smallest": {"return": {"all": 0.12}},
        "seed": 1,
        **changed,
    }
    outcomes = pl.DataFrame({"customer_id": IDS, "return": orders, "spend": orders * 25.0})
    found = report_figures(GROUPS, outcomes, **arguments)
    return {(row["figure"], row["segment_id"]): row for row in found}


def verdicts(found: dict[tuple[str, str], dict[str, Any]]) -> set[str]:
    return {row["verdict"] for row in found.values()}


def test_every_figure_is_there_and_one_is_the_headline() -> None:
    found = rows()
    assert list(found) == [(figure, one) for figure in ("return", "spend") for one in ("all", "S1", "S2")]
    assert [key for key, row in found.items() if row["is_headline"]] == [("return", "all")]
    assert [row["figure"] + row["segment_id"] for row in sort_rows([*found.values()])[:3]] == [
        "returnall",
        "spendall",
        "returnS1",
    ]


def test_an_uplift_is_more_and_its_absence_cannot_be_told() -> None:
    more, nothing = rows(uplift=0.3), rows()
    assert more["return", "all"]["verdict"] == more["spend", "all"]["verdict"] == "more"
    assert more["return", "all"]["reason"].startswith("more: +")
    assert rows(uplift=-0.29)["return", "all"]["verdict"] == "less"
    assert nothing["return", "all"]["verdict"] == "cannot tell"
    assert "the smallest it was to see is +12.0 points" in nothing["return", "all"]["reason"]


def test_twenty_held_out_are_enough_and_nineteen_are_not() -> None:
    found = rows(uplift=0.6)["return", "S2"]
    assert (found["n_holdout"], found["verdict"]) == (20, "more")
    fewer = GROUPS.with_columns(is_holdout=pl.col("is_holdout") & (pl.col("customer_id") != held_of("S2")[0]))
    outcomes = pl.DataFrame({"customer_id": IDS, "return": np.ones(N), "spend": np.ones(N)})
    shared = {"progress": Progress(30, 30), "cap": 40.0, "smallest": {}, "seed": 1}
    of_fewer = report_figures(fewer, outcomes, AS_PLANNED, **shared)[2]
    assert of_fewer["reason"] == "cannot tell: 19 customers in the smaller group, 20 are needed"


def held_of(segment: str) -> list[str]:
    return GROUPS.filter("is_holdout", segment_id=segment)["customer_id"].to_list()


def test_before_the_end_nothing_is_told() -> None:
    found = rows(uplift=0.6, progress=Progress(30, 12))
    assert verdicts(found) == {"so far"}
    assert "after 12 of 30 days" in found["return", "all"]["reason"]


def test_without_data_there_are_no_figures() -> None:
    found = rows(progress=Progress(30, 0))
    assert verdicts(found) == {"no data yet"}
    assert {row["effect"] for row in found.values()} == {None}
    never = "no data: it was ended before its first day, and never took place"
    assert rows(progress=Progress(0, 0))["return", "all"]["reason"] == never


def test_a_segment_with_one_held_out_is_in_no_figure_over_all_as_before_the_start() -> None:
    """The same customers count in what was foreseen and in what was found."""
    one = {"c500"}
    groups = GROUPS.with_columns(
        is_holdout=pl.when(pl.col("segment_id") == "S2").then(pl.col("customer_id").is_in(one)).otherwise("is_holdout")
    )
    outcomes = pl.DataFrame({"customer_id": IDS, "return": [0.0, 1.0] * (N // 2), "spend": [0.0, 9.0] * (N // 2)})
    found = report_figures(groups, outcomes, AS_PLANNED, Progress(30, 30), cap=9.0, smallest={}, seed=1)
    of = {row["segment_id"]: (row["n_audience"], row["n_holdout"]) for row in found if row["figure"] == "return"}
    foreseen = foresee({"S1": of["S1"], "S2": of["S2"]}, {"S1": Spread(500, 0.3, 0.21)})[0]
    assert (of["all"], of["S2"]) == (of["S1"], (99, 1))
    assert of["all"] == (foreseen.n_audience, foreseen.n_holdout)
    assert "1 customer in the smaller group" in next(row["reason"] for row in found if row["segment_id"] == "S2")


def test_without_a_cap_spend_has_no_figure() -> None:
    found = rows(uplift=0.6, cap=None)
    assert found["spend", "all"]["verdict"] == "cannot tell"
    assert found["return", "all"]["verdict"] == "more"


def test_a_broken_split_tells_nothing() -> None:
    broken = SplitCheck(is_as_planned=False, words="3 customers are in another group", n_vanished=0)
    assert verdicts(rows(uplift=0.6, split=broken)) == {"cannot tell"}
    assert "another group" in rows(split=broken)["return", "all"]["reason"]


def test_the_split_is_that_of_salt_and_share() -> None:
    known = GROUPS["customer_id"]
    assert check_split(GROUPS, "salt", 0.2, known) == SplitCheck(
        is_as_planned=True, words="120 of 600 customers held out, as planned", n_vanished=0
    )
    swapped = GROUPS.with_columns(is_holdout=pl.col("is_holdout") ^ pl.col("customer_id").is_in(["c000", "c001"]))
    assert check_split(swapped, "salt", 0.2, known).words == "2 customers are in another group than salt and share say"
    assert not check_split(GROUPS, "pepper", 0.2, known).is_as_planned


def test_customers_who_vanish_are_counted_and_must_not_vanish_from_one_group() -> None:
    every_tenth = check_split(GROUPS, "salt", 0.2, GROUPS.gather_every(10, 1)["customer_id"])
    assert (every_tenth.is_as_planned, every_tenth.n_vanished) == (True, 540)
    assert "count as without an order" in every_tenth.words
    of_holdout = GROUPS.filter(~pl.col("is_holdout") | ~pl.col("customer_id").is_in(held_of("S1")[:12]))["customer_id"]
    found = check_split(GROUPS, "salt", 0.2, of_holdout)
    assert (found.is_as_planned, found.n_vanished) == (False, 12)
    assert "unevenly" in found.words


def test_orders_and_spend_are_counted_in_the_days_alone() -> None:
    lines = pl.LazyFrame(
        [
            ("a", datetime(2024, 4, 30, 23, 59, 59), False, 5.0),
            ("a", datetime(2024, 5, 1), False, 7.0),
            ("a", datetime(2024, 5, 2), True, -3.0),
            ("b", datetime(2024, 5, 30, 23), True, -4.0),
            ("b", datetime(2024, 5, 31), False, 9.0),
            ("stranger", datetime(2024, 5, 3), False, 1.0),
        ],
        schema=["customer_id", "invoiced_at", "is_cancellation", "line_amount"],
        orient="row",
    )
    found = count_outcomes(lines, ["b", "c", "a"], datetime(2024, 5, 1), datetime(2024, 5, 31))
    assert found.rows() == [("b", 0.0, -4.0), ("c", 0.0, 0.0), ("a", 1.0, 4.0)]
