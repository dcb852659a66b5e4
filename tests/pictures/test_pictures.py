"""The pictures: what is drawn where, and that no situation of the data breaks one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from custseg_assets.domain.drift.report import Change, Distribution
from custseg_assets.domain.schemas import (
    CAMPAIGN_REPORT,
    DRIFT_REPORT,
    MODEL_CANDIDATES,
    SEGMENT_PROFILES,
    VALUE_MODEL,
)
from custseg_assets.pictures import campaigns, monitoring, segments
from custseg_assets.pictures.look import segment_colour, segment_order
from custseg_assets.pictures.value import calibration
from tests.support.files import REPOSITORY

PNG = b"\x89PNG\r\n\x1a\n"
TRAFFIC = pl.DataFrame(
    {
        "period": ["2011-06-01", "2011-06-02", "2011-06-02", "2011-06-02", "2011-06-02"],
        "kind": ["lookup", "lookup", "lookup", "score", "dropped"],
        "model_version": ["m-1", "m-1", "m-2", "m-2", None],
        "n_requests": [100, 60, 40, 7, 0],
        "latency_p50_ms": [1.0, 1.1, 1.3, 2.0, None],
        "latency_p95_ms": [2.0, 2.1, 1.9, 3.0, None],
        "latency_p99_ms": [9.0, 8.0, 12.5, 20.0, None],
    }
)
LIMITS = {"bootstrap_ari": 0.8, "worst_jaccard": 0.6, "smallest_share": 0.02}

CANDIDATES = pl.DataFrame(
    {
        "k": [5, 3, 4],
        "silhouette": [0.31, 0.34, 0.33],
        "davies_bouldin": [0.98, 1.05, 1.01],
        "bootstrap_ari": [0.71, 0.97, 0.94],
        "worst_jaccard": [0.18, 0.93, 0.83],
        "smallest_share": [0.008, 0.2, 0.15],
        "is_eligible": [False, True, True],
        "is_chosen": [False, False, True],
        "reason": ["worst Jaccard 0.18 is below 0.6", "eligible", "the largest k that keeps every limit"],
    }
)

FEATURES = pl.DataFrame(
    {
        "customer_id": ["a", "b", "c", "d", "e"],
        "recency_days": [0, 10, 40, 80, None],
        "frequency_orders": [12, 6, 2, 1, 0],
        "monetary_net": [4000.0, 1500.0, 300.0, 90.0, -12.5],
        "avg_order_value": [333.3, 250.0, 150.0, 90.0, None],
        "n_products": [90, 40, 12, 3, None],
        "tenure_days": [170, 150, 90, 80, None],
        "days_between_orders": [15.0, 28.0, 50.0, None, None],
        "cancellation_rate": [0.1, 0.0, 0.0, 0.0, 1.0],
    }
)
ASSIGNMENTS = pl.DataFrame(
    {
        "customer_id": ["a", "b", "c", "d", "e"],
        "segment_id": ["S1", "S1", "S2", "S2", "R1"],
        "segment_name": ["Champions", "Champions", "Hibernating", "Hibernating", "Refunded"],
    }
)
MEDIANS = [name for name in SEGMENT_PROFILES.schema if name.startswith("median_")]
PROFILES = (
    ASSIGNMENTS.join(FEATURES, on="customer_id")
    .group_by("segment_id", "segment_name")
    .agg(
        pl.len().cast(pl.Int64).alias("n_customers"),
        pl.col("monetary_net").sum().alias("revenue_net"),
        *(pl.col(name.removeprefix("median_")).median().alias(name) for name in MEDIANS),
    )
    .with_columns(
        share_customers=pl.col("n_customers") / 5, share_revenue=pl.col("revenue_net") / pl.col("revenue_net").sum()
    )
    .sort("segment_id")
)

REPORTS = pl.DataFrame(
    {
        "period": ["2011-06-01", "2011-07-01", "2011-06-01", "2011-07-01", "2011-07-01"],
        "score_name": ["psi", "psi", "segment_share", "segment_share", "correlation"],
        "subject": ["recency_days", "recency_days", "S1", "S1", "recency_days × monetary_net"],
        "score": [0.02, 0.13, 0.01, 0.02, None],
        "threshold": [0.1, 0.12, 0.05, 0.05, None],
        "is_alert": [False, True, False, False, False],
    }
)
REJECTED = pl.DataFrame(
    {
        "period": ["2011-01-01", "2011-01-01", "2011-02-01"],
        "reason": ["missing_customer", "duplicate", "missing_customer"],
        "n_rows": [200, 50, 900],
    }
)
KEPT = pl.DataFrame({"period": ["2011-01-01", "2011-02-01"], "n_rows": [1250, 100]})
MOVES = pl.DataFrame(
    {
        "from_segment": ["S1 Champions", "S1 Champions", "S2 Hibernating", None],
        "to_segment": ["S1 Champions", "S2 Hibernating", None, "S2 Hibernating"],
        "n_customers": [30, 10, 20, 5],
        "revenue_net": [9000.0, 800.0, 0.0, 100.0],
    }
)


def value_model(n_days: int, n_deciles: int = 10) -> pl.DataFrame:
    """The chosen method's row of the 30-day probability: days on which a little less was seen than predicted."""
    calibration = [
        {"day": f"2011-{month:02}-01", "decile": n, "n_customers": 50, "predicted": n / 20, "seen": n / 20 - 0.02}
        for month in range(1, n_days + 1)
        for n in range(1, n_deciles + 1)
    ]
    row = {"target": "order_30d", "method": "logistic", "is_chosen": True, "calibration_error": 0.02}
    row |= {"level": 0.3, "level_low": 0.2, "level_high": 0.42, "calibration": json.dumps(calibration)}
    blank_row = dict.fromkeys(VALUE_MODEL.schema) | row
    return pl.DataFrame([blank_row, blank_row | {"is_chosen": False}], schema=VALUE_MODEL.schema)


def values(drawn: ArrayLike) -> list[Any]:
    """What a line or an image draws, as a list."""
    return list(np.asarray(drawn))


def many_segments(n_segments: int) -> pl.DataFrame:
    """Profiles of ``n_segments`` segments, all like the first."""
    return pl.concat(
        PROFILES.filter(pl.col("segment_id") == "S1").with_columns(
            segment_id=pl.lit(f"S{position}"), segment_name=pl.lit(f"Cannot lose them {position}")
        )
        for position in range(1, n_segments + 1)
    )


def moves_between(n_segments: int) -> pl.DataFrame:
    """A customer from every segment to every other."""
    names = [f"S{position} Needs attention" for position in range(n_segments)]
    pairs = [(before, now) for before in names for now in names]
    return pl.DataFrame({"from_segment": [a for a, _ in pairs], "to_segment": [b for _, b in pairs]}).with_columns(
        n_customers=pl.lit(1), revenue_net=pl.lit(1.0)
    )


def change_of(n_parts: int) -> Change:
    """A feature of which every bin but the last lost a little to it."""
    before = [1 / n_parts] * n_parts
    now = [0.9 / n_parts] * (n_parts - 1)
    parts = tuple(f"up to {10 * part}" for part in range(1, n_parts + 1))
    distribution = Distribution("recency_days", parts, tuple(before), (*now, 1 - sum(now)))
    return Change("recency_days: median 20 → 24", "psi 0.13, alerts from 0.12", distribution)


def blank(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The frame with nothing known in ``columns``."""
    return frame.with_columns(pl.lit(None, pl.Float64).alias(name) for name in columns)


def campaign_of(n_segments: int, effect: float | None = 0.03) -> pl.DataFrame:
    """The report of a campaign, with so many segments and the same effect in all."""
    rows = [
        {
            "campaign": "autumn",
            "figure": figure,
            "segment_id": segment,
            "segment_name": "$x_1 顧客" if segment == "S2" else "Promising",
            "is_headline": (figure, segment) == ("return", "all"),
            "verdict": "cannot tell",
            "days": 30,
            "days_observed": 12,
            "effect": effect,
            "effect_low": None if effect is None else effect - 0.05,
            "effect_high": None if effect is None else effect + 0.05,
        }
        for figure in ("return", "spend")
        for segment in ["all", *(f"S{number}" for number in range(n_segments))]
    ]
    return pl.DataFrame(rows, schema={name: CAMPAIGN_REPORT[name].dtype for name in rows[0]})


NORMAL: dict[str, Callable[[], bytes]] = {
    "effects_with_intervals": lambda: campaigns.effects_with_intervals(campaign_of(3)),
    "k_selection": lambda: segments.k_selection(CANDIDATES, LIMITS),
    "profile_heatmap": lambda: segments.profile_heatmap(PROFILES, FEATURES),
    "revenue_by_segment": lambda: segments.revenue_by_segment(PROFILES),
    "cluster_scatter": lambda: segments.cluster_scatter(FEATURES, ASSIGNMENTS, seed=1),
    "migration_matrix": lambda: segments.migration_matrix(MOVES),
    "drift_by_severity": lambda: monitoring.drift_by_severity(REPORTS, "monthly"),
    "distribution_change": lambda: monitoring.distribution_change(change_of(4)),
    "latency_over_time": lambda: monitoring.latency_over_time(TRAFFIC),
    "rejections": lambda: monitoring.rejections(REJECTED, KEPT, "monthly", ["2011-02-01"]),
    "calibration": lambda: calibration(value_model(6)),
}
NONE_ELIGIBLE = blank(CANDIDATES, "silhouette", "worst_jaccard").with_columns(
    is_eligible=pl.lit(False), is_chosen=pl.lit(False)
)
UNUSUAL: dict[str, Callable[[], bytes]] = {
    "no candidate": lambda: segments.k_selection(CANDIDATES.clear(), LIMITS),
    "no rows of the declared table": lambda: segments.k_selection(MODEL_CANDIDATES.schema.to_frame(), LIMITS),
    "one candidate, no limits": lambda: segments.k_selection(CANDIDATES.filter(pl.col("k") == 4), {}),
    "nothing eligible, nothing measured": lambda: segments.k_selection(NONE_ELIGIBLE, LIMITS),
    "no segment": lambda: segments.profile_heatmap(PROFILES.clear(), FEATURES.clear()),
    "one segment": lambda: segments.profile_heatmap(many_segments(1), FEATURES),
    "thirty segments": lambda: segments.profile_heatmap(many_segments(30), FEATURES),
    "profiles without products and revenue": lambda: segments.profile_heatmap(
        blank(PROFILES, "median_n_products", "share_revenue"), FEATURES
    ),
    "profiles without any median": lambda: segments.profile_heatmap(blank(PROFILES, *MEDIANS), FEATURES),
    "a name with markup in another script": lambda: segments.profile_heatmap(
        PROFILES.with_columns(segment_name=pl.lit("$x_1 顧客 " * 20)), FEATURES
    ),
    "no revenue to compare": lambda: segments.revenue_by_segment(PROFILES.clear()),
    "revenue unknown": lambda: segments.revenue_by_segment(blank(PROFILES, "share_revenue")),
    "revenue of thirty": lambda: segments.revenue_by_segment(many_segments(30)),
    "a loss": lambda: segments.revenue_by_segment(PROFILES.with_columns(share_revenue=pl.lit(-0.4))),
    "no customer with an order": lambda: segments.cluster_scatter(FEATURES.tail(1), ASSIGNMENTS, seed=1),
    "one customer": lambda: segments.cluster_scatter(FEATURES.head(1), ASSIGNMENTS, seed=1),
    "no moves": lambda: segments.migration_matrix(MOVES.clear()),
    "only newcomers": lambda: segments.migration_matrix(MOVES.tail(1)),
    "moves among thirty": lambda: segments.migration_matrix(moves_between(30)),
    "no report": lambda: monitoring.drift_by_severity(DRIFT_REPORT.schema.to_frame(), "monthly"),
    "one snapshot": lambda: monitoring.drift_by_severity(REPORTS.filter(pl.col("period") == "2011-06-01"), "daily"),
    "no thresholds": lambda: monitoring.drift_by_severity(blank(REPORTS, "threshold"), "monthly"),
    "nothing measured lately": lambda: monitoring.drift_by_severity(
        REPORTS.with_columns(score=pl.when(pl.col("period") < "2011-07-01").then("score")), "weekly"
    ),
    "one part": lambda: monitoring.distribution_change(change_of(1)),
    "forty parts": lambda: monitoring.distribution_change(change_of(40)),
    "correlations below zero": lambda: monitoring.distribution_change(
        Change("correlation a × b: 0.50 → -0.20", "", Distribution("correlation", ("a × b",), (0.5,), (-0.2,), False))
    ),
    "no request": lambda: monitoring.latency_over_time(TRAFFIC.clear()),
    "one day": lambda: monitoring.latency_over_time(TRAFFIC.head(1)),
    "only dropped records": lambda: monitoring.latency_over_time(TRAFFIC.filter(pl.col("kind") == "dropped")),
    "no model of value": lambda: calibration(VALUE_MODEL.schema.to_frame()),
    "no day replayed": lambda: calibration(value_model(0)),
    "one day replayed": lambda: calibration(value_model(1)),
    "more days than colours": lambda: calibration(value_model(9)),
    "one decile": lambda: calibration(value_model(2, 1)),
    "a campaign without a figure": lambda: campaigns.effects_with_intervals(campaign_of(2, None)),
    "a campaign of thirty segments": lambda: campaigns.effects_with_intervals(campaign_of(30)),
    "no rows": lambda: monitoring.rejections(REJECTED.clear(), KEPT.clear(), "monthly"),
    "no row rejected": lambda: monitoring.rejections(REJECTED.clear(), KEPT, "monthly"),
    "everything rejected for an unknown reason": lambda: monitoring.rejections(
        REJECTED.with_columns(reason=pl.lit("another_reason")), KEPT.clear(), "weekly"
    ),
}


@pytest.mark.parametrize("draw", UNUSUAL.values(), ids=list(UNUSUAL))
def test_every_situation_gives_a_small_png(draw: Callable[[], bytes]) -> None:
    picture = draw()
    assert picture.startswith(PNG)
    assert len(picture) < 60_000


@pytest.mark.parametrize("draw", NORMAL.values(), ids=list(NORMAL))
def test_a_picture_is_small_enough_to_embed_and_its_bytes_are_the_same_each_time(
    draw: Callable[[], bytes],
) -> None:
    picture = draw()
    assert picture.startswith(PNG)
    assert len(picture) < 60_000
    assert draw() == picture


def test_order_of_rows_does_not_matter() -> None:
    for draw, frame in (
        (lambda rows: segments.k_selection(rows, LIMITS), CANDIDATES),
        (lambda rows: segments.profile_heatmap(rows, FEATURES), PROFILES),
        (lambda rows: segments.cluster_scatter(FEATURES, rows, seed=1), ASSIGNMENTS),
        (segments.revenue_by_segment, PROFILES),
        (segments.migration_matrix, MOVES),
        (lambda rows: monitoring.drift_by_severity(rows, "monthly"), REPORTS),
        (lambda rows: monitoring.rejections(rows, KEPT, "monthly"), REJECTED),
    ):
        assert draw(frame) == draw(frame.reverse())


def test_a_users_matplotlibrc_changes_nothing() -> None:
    import matplotlib as mpl

    before = segments.revenue_by_segment(PROFILES)
    with mpl.rc_context({"font.size": 30, "font.weight": "bold"}):
        assert segments.revenue_by_segment(PROFILES) == before
        assert mpl.rcParams["font.size"] == 30


def test_limits_are_drawn_where_they_are() -> None:
    panels = segments.k_selection.figure(CANDIDATES, LIMITS).axes
    drawn = {
        axes.get_title(loc="left"): [values(line.get_ydata())[0] for line in axes.lines if line.get_gid() == "limit"]
        for axes in panels
    }
    assert drawn == {
        "silhouette": [],
        "Davies-Bouldin": [],
        "bootstrap ARI": [0.8],
        "worst Jaccard": [0.6],
        "smallest cluster": [0.02],
    }
    for axes in panels:
        low, high = axes.get_ylim()
        assert all(low < values(line.get_ydata())[0] < high for line in axes.lines if line.get_gid() == "limit")


def test_only_the_k_that_miss_a_limit_are_hollow() -> None:
    silhouette = segments.k_selection.figure(CANDIDATES, LIMITS).axes[0]
    hollow, full = silhouette.lines[1], silhouette.lines[2]
    assert (values(hollow.get_xdata()), values(full.get_xdata())) == ([5], [3, 4])


def test_the_title_says_which_k_and_that_none_was_chosen() -> None:
    chosen = segments.k_selection.figure(CANDIDATES, LIMITS)
    assert chosen.texts[0].get_text() == "k = 4 chosen: 2 of the 3 tried keep every limit"
    none = segments.k_selection.figure(NONE_ELIGIBLE, LIMITS)
    assert none.texts[0].get_text() == "No k chosen: 0 of the 3 tried keep every limit"


def test_scores_are_ranked_by_how_far_they_are_over_their_threshold_and_say_how_much_that_is() -> None:
    # July: psi of recency_days 0.13 of 0.12 alerts; the share of S1 is 0.02 of 0.05. Nothing was measured of the pair.
    figure = monitoring.drift_by_severity.figure(REPORTS, "monthly")
    axes = figure.axes[0]
    [bars] = axes.containers
    assert [bar.get_width() for bar in bars] == pytest.approx([0.13 / 0.12, 0.02 / 0.05])
    assert [values(line.get_xdata()) for line in axes.lines if line.get_gid() == "threshold"] == [[1.0, 1.0]]
    assert [text.get_text() for text in axes.texts] == [
        "recency days: distribution (PSI)", "0.13, alerts from 0.12", "more than chance",
        "S1: segment share", "0.02, alerts from 0.05", "within what is expected",
    ]  # fmt: skip
    assert values(axes.lines[0].get_xdata()) == pytest.approx([0.2, 0.2])  # June: 0.02 of 0.1, and 0.01 of 0.05
    title = "1 of 2 drift scores alert at July 2011: recency days, distribution (PSI), first"
    assert figure.texts[0].get_text() == title


@pytest.mark.parametrize(
    ("large", "own", "words"),
    [
        (0.5, None, "more than chance"),
        (0.13, None, "large by any measure"),
        (0.5, 0.12, "more than is usual here"),
        (None, 0.14, "more than chance"),
    ],
)
def test_an_alert_is_told_by_its_severity(large: float | None, own: float | None, words: str) -> None:
    reports = REPORTS.with_columns(
        large_effect=pl.lit(large, pl.Float64),
        own_threshold=pl.lit(own, pl.Float64),
        as_of=pl.lit(datetime(2011, 8, 1)),
    )
    figure = monitoring.drift_by_severity.figure(reports, "monthly")
    assert figure.axes[0].texts[2].get_text() == words
    assert figure.texts[1].get_text().startswith("July 2011, as of 1 August 2011. ")


def test_the_highest_scores_are_kept_when_there_are_too_many() -> None:
    n_scores = monitoring.MAX_SCORES + 3
    reports = pl.DataFrame({"score": [position / n_scores for position in range(n_scores)]}).with_columns(
        period=pl.lit("2011-06-01"),
        score_name=pl.lit("share_shift"),
        subject=pl.format("S{}", pl.int_range(n_scores)),
        threshold=pl.lit(1.0),
        is_alert=pl.lit(False),
    )
    figure = monitoring.drift_by_severity.figure(reports, "monthly")
    labels = [text.get_text() for text in figure.axes[0].texts][::3]
    assert labels == [f"S{n_scores - 1 - place}: change of share" for place in range(monitoring.MAX_SCORES)]
    assert "The 24 highest of 27 are shown." in figure.texts[1].get_text().replace("\n", " ")


def test_bars_of_shares_end_at_a_hundred_percent() -> None:
    revenue = segments.revenue_by_segment.figure(PROFILES, "GBP")
    of_customers, of_spend = (
        [round(bar.get_width(), 3) for bar in bars]
        for bars in revenue.axes[0].containers
        if bars.patches[0].get_gid() in ("share_customers", "share_revenue")
    )
    assert of_customers == [0.4, 0.4, 0.2]
    assert of_spend == [0.936, 0.066, 0.0]  # the refunded brought less than nothing
    tracks = [bar.get_width() for bar in revenue.axes[0].containers[0]]
    assert tracks == [1.0, 1.0, 1.0]
    shown = {text.get_text() for text in revenue.axes[0].texts}
    assert {"40 %  ·  2 customers", "94 %  ·  GBP 5,500 spent"} <= shown


def test_amounts_have_their_currency_where_it_is_known() -> None:
    for currency, title in (("EUR", "net spend\n(EUR)"), (None, "net spend\n(amount)")):
        table = segments.profile_heatmap.figure(PROFILES, FEATURES, currency).axes[0]
        assert title in {text.get_text() for text in table.texts}
    told = segments.migration_matrix.figure(MOVES, "GBP").texts[1].get_text().replace("\n", " ")
    assert "Net spend of the largest move: GBP 0." in told


def test_a_day_with_two_models_shows_the_slower_one() -> None:
    lookups = monitoring.latency_over_time.figure(TRAFFIC).axes[0]
    assert lookups.get_title(loc="left") == "lookup: 200 requests"
    assert {line.get_gid(): values(line.get_ydata()) for line in lookups.lines} == {
        "99 %": [9.0, 12.5], "95 %": [2.0, 2.1], "50 %": [1.0, 1.3],
    }  # fmt: skip


def test_cells_show_medians_and_are_coloured_by_their_ratio_to_all() -> None:
    # Median spend of all five is 300; the Champions' is 2,750, more than 8 times as much, the Hibernating's 195.
    table = segments.profile_heatmap.figure(PROFILES, FEATURES).axes[0]
    shown = {text.get_text() for text in table.texts}
    assert {"2,750", "195", "300", "S1 Champions", "R1 Refunded"} <= shown
    refunded, champions, hibernating = np.asarray(table.images[0].get_array())[[2, 0, 1], 2]
    assert champions[0] > champions[2]
    assert hibernating[2] > hibernating[0]
    assert refunded[2] > refunded[0]


def test_a_scatter_draws_a_bounded_sample_but_counts_everybody() -> None:
    n_customers = 10_000
    features = pl.DataFrame({"customer_id": pl.int_range(n_customers, eager=True).cast(pl.String)}).with_columns(
        recency_days=pl.int_range(n_customers) % 180, monetary_net=pl.int_range(n_customers) + 1.0
    )
    assignments = features.select("customer_id", segment_id=pl.lit("S1"), segment_name=pl.lit("Loyal"))
    axes = segments.cluster_scatter.figure(features, assignments, seed=1).axes[0]
    assert len(values(axes.collections[0].get_offsets())) == segments.MAX_POINTS
    assert "10,000" in {text.get_text() for text in axes.texts}


def test_a_move_is_a_share_of_the_row_it_came_from() -> None:
    # 30 of 40 Champions stayed, and the 20 Hibernating left: 30 of 60 known customers stayed.
    figure = segments.migration_matrix.figure(MOVES)
    assert figure.texts[0].get_text().startswith("50 % stayed; most moved from S2 Hibernating to (gone): 20")
    assert {"30\n75 %", "10\n25 %", "20\n100 %", "5\n100 %"} == {text.get_text() for text in figure.axes[0].texts}


def test_bars_of_rejected_rows_are_shares_of_their_period() -> None:
    # January: 250 of 1,500 rows; February: 900 of 1,000.
    figure = monitoring.rejections.figure(REJECTED, KEPT, "monthly", ["2011-02-01"])
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    tops = {round(bar.get_x() + bar.get_width() / 2): bar.get_y() + bar.get_height() for bar in bars}
    assert tops == pytest.approx({0: 1 / 6, 1: 0.9})
    assert "900\n▲" in {text.get_text() for text in figure.axes[0].texts}
    assert figure.texts[0].get_text() == "46 % of rows rejected; February 2011 far outside the others"
    assert figure.axes[0].get_ylim()[1] > 1  # a whole bar would be 100 %


def test_reference_and_current_stand_beside_each_other_part_by_part() -> None:
    # Four bins of a quarter each; three of them fall to 22.5 %, so the last has 32.5 %.
    figure = monitoring.distribution_change.figure(change_of(4))
    axes = figure.axes[0]
    reference, current = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert reference == pytest.approx([0.25] * 4)
    assert current == pytest.approx([0.225, 0.225, 0.225, 0.325])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["up to 10", "up to 20", "up to 30", "up to 40"]
    assert axes.texts[-1].get_text() == "25 % → 32 %"
    assert figure.texts[0].get_text() == "recency_days: median 20 → 24"
    assert "psi 0.13, alerts from 0.12" in figure.texts[1].get_text()


def test_of_many_parts_those_that_changed_most_are_drawn_in_their_order() -> None:
    figure = monitoring.distribution_change.figure(change_of(40))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [*(f"up to {10 * part}" for part in range(1, 24)), "up to 400"]
    assert "The 24 of 40 that changed most." in figure.texts[1].get_text()


def test_predicted_stands_against_seen_by_day_and_for_the_shop() -> None:
    figure = calibration.figure(value_model(3))
    by_decile, shop = figure.axes
    lines = {line.get_gid(): line for line in by_decile.lines}
    assert set(lines) == {"right", "2011-01-01", "2011-02-01", "2011-03-01"}
    assert values(lines["2011-03-01"].get_ydata()) == pytest.approx([n / 20 - 0.02 for n in range(1, 11)])
    drawn = {line.get_gid(): values(line.get_ydata()) for line in shop.lines}
    assert drawn["seen"] == pytest.approx([0.255] * 3)
    assert drawn["predicted"] == pytest.approx([0.275] * 3 + [0.3])
    assert drawn["interval"] == [0.2, 0.42]
    assert figure.texts[0].get_text() == "Who orders within 30 days: predicted and seen differ by 2 points on average"


def test_segments_have_the_colours_of_the_dashboard() -> None:
    style = (REPOSITORY / "custseg_serving" / "static" / "dashboard.css").read_text(encoding="utf-8")
    light = style[: style.index("prefers-color-scheme")]
    dashboard = [colour for _, colour in sorted(re.findall(r"--s(\d): (#[0-9a-f]{6})", light))]
    assert [segment_colour(f"S{position}") for position in range(1, 9)] == dashboard


def test_a_segment_keeps_its_colour_and_every_two_of_thirty_differ() -> None:
    colours = [segment_colour(f"S{position}") for position in range(1, 31)]
    assert colours[0] == "#0072b2"
    assert len({*colours, segment_colour("R1"), segment_colour("R2")}) == 32


def test_segments_are_ordered_by_number_with_rules_last() -> None:
    assert sorted(["R2", "S10", "R1", "S2"], key=segment_order) == ["S2", "S10", "R1", "R2"]


def test_importing_the_pictures_does_not_import_matplotlib() -> None:
    code = "import sys, custseg_assets.pictures.segments, custseg_assets.pictures.value; "
    code += "import custseg_assets.pictures.monitoring as m; "
    code += "assert 'matplotlib' not in sys.modules; m.drift_by_severity; "
    code += "from custseg_assets.pictures.look import Picture, nothing_to_show; Picture(nothing_to_show)('a', 'b'); "
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
