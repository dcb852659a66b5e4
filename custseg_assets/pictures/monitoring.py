"""Pictures of change: rejected rows, drift over time, the distribution behind an alert, and the service's latency.

Each gives PNG bytes when it is called; its ``figure`` gives the same as a Matplotlib figure, for tests.
Pictures of a segmentation belong in ``segments``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.pictures import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from custseg_assets.domain.drift.report import Change

MAX_DRIFT_PANELS = 12
_DRIFT_COLUMNS = 4


@look.Picture
def drift_over_time(reports: pl.DataFrame) -> Figure:
    """Every drift score and its threshold over the snapshots, the scores nearest to their threshold first.

    Args:
        reports: rows of the ``drift_report`` table, of any number of snapshots.
    """
    measured = reports.filter(pl.col("score").is_finite()).sort("period", "score_name", "subject")
    if measured.is_empty():
        return look.nothing_to_show("Drift over time", "no score has been measured yet.")
    periods = reports["period"].unique().sort().to_list()
    nearest = (
        measured.group_by("score_name", "subject")
        .agg((pl.col("score") / pl.col("threshold")).max().alias("nearness"))
        .sort("nearness", "score_name", "subject", descending=(True, False, False), nulls_last=True)
    )
    shown = nearest.head(MAX_DRIFT_PANELS)
    n_rows = math.ceil(shown.height / _DRIFT_COLUMNS)
    is_all = shown.height == nearest.height
    left_out = "" if is_all else f" The {shown.height} of {nearest.height} scores nearest to their threshold are shown."
    labels = _period_labels(periods)
    span = f"Snapshots {labels[0]} to {labels[-1]}" if len(periods) > 1 else f"Snapshot {labels[0]}"
    figure = look.new_figure(
        _drift_title(measured, periods),
        f"{span}. Dashed: the threshold from which on a score alerts. Filled: an alert.{left_out}",
        1.3 * n_rows + 0.1,
    )
    pitch = (look.WIDTH - 0.1) / _DRIFT_COLUMNS
    for position, (score_name, subject) in enumerate(shown.select("score_name", "subject").iter_rows()):
        row, column = divmod(position, _DRIFT_COLUMNS)
        axes = look.add_panel(figure, 0.2 + column * pitch, 0.35 + 1.3 * (n_rows - 1 - row), pitch - 0.72, 0.7)
        mine = measured.filter((pl.col("score_name") == score_name) & (pl.col("subject") == subject))
        axes.set_title(look.shorten(subject, 22), loc="left", weight="bold", pad=14, size=8.5)
        threshold = mine["threshold"][-1]
        words = look.shorten(score_name.replace("_", " "), 20)
        words += f", threshold {threshold:.2g}" if threshold is not None else ""
        axes.text(0, 1.07, words, transform=axes.transAxes, color=look.MUTED, size=8)
        _draw_score(axes, mine, periods)
    return figure


def _drift_title(measured: pl.DataFrame, periods: list[str]) -> str:
    last = measured.filter(pl.col("period") == periods[-1])
    if last.is_empty():
        return f"No score could be measured at {_period_labels(periods)[-1]}"
    now = last.filter("is_alert").sort(pl.col("score") / pl.col("threshold"), descending=True, nulls_last=True)
    if now.height:
        first = f"{now['score_name'][0].replace('_', ' ')} of {now['subject'][0]}"
        return f"{now.height} of {last.height} drift scores alert at {_period_labels(periods)[-1]}, {first} first"
    earlier = measured.filter("is_alert")["period"].n_unique()
    before = f"; {earlier} earlier snapshot{'s' if earlier != 1 else ''} had alerts" if earlier else ""
    return f"No drift score alerts at {_period_labels(periods)[-1]}{before}"


def _draw_score(axes: Axes, scores: pl.DataFrame, periods: list[str]) -> None:
    places = {period: place for place, period in enumerate(periods)}
    at = np.array([places[period] for period in scores["period"]])
    values = scores["score"].to_numpy()
    thresholds = scores["threshold"].cast(pl.Float64).fill_null(math.nan).to_numpy()
    is_alert = scores["is_alert"].fill_null(False).to_numpy()
    axes.plot(at, values, "-o", color=look.ACCENT, linewidth=1.3, markersize=3, zorder=3)
    axes.plot(at[is_alert], values[is_alert], "o", color=look.ALERT, markersize=6.5, zorder=4)
    top = float(np.nanmax(np.append(values, thresholds)))
    axes.set_ylim(0, top * 1.2 if top > 0 else 1.0)
    axes.set_xlim(-0.5, len(periods) - 0.5)
    if np.isfinite(thresholds).any():
        # Each snapshot has its own threshold, which is drawn across the snapshot's place.
        edges, levels = np.stack([at - 0.5, at + 0.5], axis=1).ravel(), np.repeat(thresholds, 2)
        axes.plot(edges, levels, color=look.INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2, gid="threshold")
    # Without ticks the axes themselves cost most of the drawing; a line at zero says the same.
    axes.set_axis_off()
    axes.axhline(0, color=look.GREY, linewidth=1.2)
    labels = _period_labels(periods)
    axes.text(0, -0.06, labels[0], transform=axes.transAxes, size=8, color=look.MUTED, va="top")
    if len(periods) > 1:
        axes.text(1, -0.06, labels[-1], transform=axes.transAxes, size=8, color=look.MUTED, va="top", ha="right")
    colour = look.ALERT if is_alert[-1] else look.ACCENT
    axes.annotate(
        f"{values[-1]:.2g}",
        (at[-1], values[-1]),
        (6, 0),
        textcoords="offset points",
        color=colour,
        size=8,
        weight="bold",
        va="center",
        annotation_clip=False,
    )


def _period_labels(periods: Sequence[str]) -> list[str]:
    """Periods as labels: months without their day, periods of other cadences in full."""
    is_monthly = all(period.endswith("-01") for period in periods)
    return [period.removesuffix("-01") if is_monthly else period for period in periods]


_LATENCIES = (
    ("latency_p99_ms", look.ALERT, "99 %"),
    ("latency_p95_ms", look.GREY, "95 %"),
    ("latency_p50_ms", look.ACCENT, "50 %"),
)
_MAX_DAYS = 60


@look.Picture
def latency_over_time(traffic: pl.DataFrame) -> Figure:
    """The latency of the service: the time within which it answered 50, 95 and 99 % of a day's requests, by kind.

    Args:
        traffic: rows of the ``prediction_traffic`` table.
    """
    # Where two models answered on a day, the slower one's time is drawn.
    by_day = (
        traffic.filter(pl.col("n_requests") > 0)
        .group_by("kind", "period")
        .agg(pl.col("n_requests").sum(), *(pl.col(name).max() for name, _, _ in _LATENCIES))
        .sort("kind", "period")
    )
    if by_day.is_empty():
        return look.nothing_to_show("Time to answer", "nothing has been asked yet.")
    days = by_day["period"].unique().sort().to_list()[-_MAX_DAYS:]
    kinds = by_day["kind"].unique().sort().to_list()
    newest = by_day.filter(pl.col("period") == days[-1]).sort("n_requests", descending=True)
    n_requests, slowest = look.number(newest["n_requests"][0]), look.number(newest["latency_p99_ms"][0])
    figure = look.new_figure(
        f"On {days[-1]} 99 % of {n_requests} requests ({newest['kind'][0]}) were answered within {slowest} ms",
        f"Milliseconds within which that share of a day's requests was answered, {days[0]} to {days[-1]}, UTC.",
        2.2,
    )
    pitch = (look.WIDTH - 0.3) / len(kinds)
    for place, kind in enumerate(kinds):
        axes = look.add_panel(figure, 0.55 + place * pitch, 0.35, pitch - 1.2, 1.6)
        mine = by_day.filter(pl.col("kind") == kind, pl.col("period").is_in(days))
        axes.set_title(
            f"{kind}: {look.number(int(mine['n_requests'].sum()))} requests", loc="left", weight="bold", size=9
        )
        _draw_latencies(axes, mine, days)
    return figure


def _draw_latencies(axes: Axes, by_day: pl.DataFrame, days: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    at = [days.index(day) for day in by_day["period"]]
    for name, colour, label in _LATENCIES:
        values = by_day[name].to_numpy()
        axes.plot(at, values, "-o", color=colour, linewidth=1.3, markersize=3, gid=label)
        axes.annotate(
            f"{label}: {look.number(values[-1])}",
            (at[-1], values[-1]),
            (6, 0),
            textcoords="offset points",
            color=look.INK if colour == look.GREY else colour,
            size=8,
            va="center",
            annotation_clip=False,
        )
    axes.set_ylim(0, 1.1 * by_day.select(pl.col("latency_p99_ms").max()).item())
    axes.set_xlim(-0.5, max(len(days), 2) - 0.5)
    axes.set_xticks([0, len(days) - 1] if len(days) > 1 else [0], [days[0], days[-1]] if len(days) > 1 else days)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.set_ylabel("ms")


_BAR, _PITCH = 0.36, 0.3
"""Height of a bar, in parts; height of a part, in inches."""
_MAX_PARTS = 24


@look.Picture
def distribution_change(change: Change) -> Figure:
    """The distribution that a drift alert is about, part by part, at the model's training snapshot and now.

    Args:
        change: that caused the alert.
    """
    distribution = change.distribution
    rows = list(zip(distribution.parts, distribution.reference, distribution.current, strict=True))
    largest = sorted(range(len(rows)), key=lambda row: (-abs(rows[row][2] - rows[row][1]), row))[:_MAX_PARTS]
    parts, before, now = zip(*(rows[row] for row in sorted(largest)), strict=True)
    of_what = f"Share of the customers by {distribution.name}" if distribution.is_share else "Correlations"
    left_out = f" The {len(parts)} of {len(rows)} that changed most." if len(parts) < len(rows) else ""
    height = _PITCH * len(parts)
    figure = look.new_figure(
        change.sentence,
        f"Grey: when the model was trained. Blue: now. {of_what}.{left_out} {change.figures}.",
        height + 0.45,
    )
    axes = look.add_panel(figure, 2.7, 0.35, look.WIDTH - 4.2, height)
    at = np.arange(len(parts))
    axes.barh(at - _BAR / 2, before, _BAR, color=look.GREY)
    axes.barh(at + _BAR / 2, now, _BAR, color=look.ACCENT)
    axes.set_yticks(at, [look.shorten(part, 40) for part in parts], color=look.INK)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.axvline(0, color=look.GREY, linewidth=0.8)
    words = look.percent if distribution.is_share else look.number
    for place in range(len(parts)):
        text = f"{words(before[place])} → {words(now[place])}"
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), size=8, va="center")
    axes.xaxis.set_major_formatter(look.percent_tick if distribution.is_share else "{x:g}")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


_REASONS = (
    "missing_customer",
    "duplicate",
    "service_code",
    "service_description",
    "non_positive_price",
    "unreadable",
    "excluded",
)
"""In the order of their colours; any other reason follows by name."""


@look.Picture
def rejections(counts: pl.DataFrame, kept: pl.DataFrame, outlier_periods: Collection[str] = ()) -> Figure:
    """The share of each period's rows that was rejected, by reason.

    Args:
        counts: ``period``, ``reason`` and ``n_rows`` of the rejected rows.
        kept: ``period`` and ``n_rows`` of the rows that count.
        outlier_periods: keys of the periods whose share is far outside the others'; they are marked.
    """
    counts = counts.group_by("period", "reason").agg(pl.col("n_rows").sum()).sort("period", "reason")
    totals = (
        pl.concat(
            [counts.select("period", "n_rows"), kept.select("period", pl.col("n_rows").cast(counts["n_rows"].dtype))]
        )
        .group_by("period")
        .agg(pl.col("n_rows").sum())
        .filter(pl.col("n_rows") > 0)
        .sort("period")
    )
    if totals.is_empty():
        return look.nothing_to_show("Rejected rows by period", "there are no rows.")
    n_rows, n_rejected = int(totals["n_rows"].sum()), int(counts["n_rows"].sum())
    labels = dict(zip(totals["period"], _period_labels(totals["period"].to_list()), strict=True))
    marked = [period for period in totals["period"] if period in outlier_periods]
    figure = look.new_figure(
        (f"{look.percent(n_rejected / n_rows)} of rows rejected" if n_rejected else "No row rejected")
        + (f"; {', '.join(labels[period] for period in marked[:4])} far outside the others" if marked else ""),
        f"{look.number(n_rejected)} of {look.number(n_rows)} rows, by period and reason. "
        "Above a bar: its rejected rows.",
        2.9,
    )
    axes = look.add_panel(figure, 0.7, 0.5, look.WIDTH - 3.5, 2.25)
    reasons = sorted(counts["reason"].unique(), key=lambda reason: (_rank(reason), reason))
    by_period = totals.select("period").join(
        counts.pivot("reason", index="period", values="n_rows"), on="period", how="left", maintain_order="left"
    )
    rows = np.array([by_period[reason].fill_null(0).to_list() for reason in reasons], dtype=float)
    rows = rows.reshape(len(reasons), totals.height)
    _draw_stacked_shares(axes, reasons, rows, totals, marked)
    _draw_reason_labels(axes, reasons, rows, n_rows)
    return figure


def _rank(reason: str) -> int:
    return _REASONS.index(reason) if reason in _REASONS else len(_REASONS)


def _reason_colour(reason: str) -> str:
    return (*look.HUES[: len(_REASONS)], look.MUTED)[_rank(reason)]


def _draw_stacked_shares(
    axes: Axes, reasons: list[str], rows: NDArray[np.float64], totals: pl.DataFrame, marked: list[str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    shares = rows / totals["n_rows"].to_numpy()
    at = np.arange(totals.height)
    floor = np.zeros(totals.height)
    for reason, share in zip(reasons, shares, strict=True):
        axes.bar(at, share, 0.72, bottom=floor, color=_reason_colour(reason))
        floor = floor + share
    top = max(float(floor.max()), 0.01)
    has_counts = totals.height <= 16
    for place, period in enumerate(totals["period"]):
        is_marked = period in marked
        if has_counts or is_marked:
            text = look.number(rows[:, place].sum()) + ("\n▲" if is_marked else "")
            axes.text(
                place,
                floor[place] + 0.02 * top,
                text,
                size=7.5,
                ha="center",
                va="bottom",
                color=look.ALERT if is_marked else look.MUTED,
                weight="bold" if is_marked else "normal",
                linespacing=1.0,
            )
    axes.set_ylim(0, top * 1.22)
    axes.set_xlim(-0.6, max(totals.height, 4) - 0.4)
    every = math.ceil(totals.height / 13)
    axes.set_xticks(at[::every], _period_labels(totals["period"].to_list())[::every])
    if totals.height > 7:
        axes.tick_params(axis="x", rotation=30)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(look.percent_tick)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.set_ylabel("share of the period's rows")


def _draw_reason_labels(axes: Axes, reasons: list[str], rows: NDArray[np.float64], n_rows: int) -> None:
    for position, (reason, total) in enumerate(zip(reasons, rows.sum(axis=1), strict=True)):
        down = 0.96 - 0.1 * position
        axes.plot(1.035, down, "s", color=_reason_colour(reason), transform=axes.transAxes, clip_on=False)
        label = look.shorten(reason.replace("_", " "), 24)
        axes.text(1.06, down, label, transform=axes.transAxes, va="center", weight="bold", size=8.5)
        text = f"{look.number(total)} · {look.percent(total / n_rows)}"
        axes.text(1.5, down, text, transform=axes.transAxes, va="center", ha="right", color=look.MUTED, size=8.5)
