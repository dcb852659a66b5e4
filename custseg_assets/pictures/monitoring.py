"""Pictures of change: rejected rows, drift by severity, the distribution behind an alert, and the service's latency.

Each gives PNG bytes when it is called; its ``figure`` gives the same as a Matplotlib figure, for tests.
Pictures of a segmentation belong in ``segments``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.periods import Cadence
from custseg_assets.pictures import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from custseg_assets.domain.drift.report import Change

MAX_SCORES = 24
"""The picture has this many of the highest scores; all of them are in the table."""
_ROW = 0.25
_LONGEST_BAR = 3.0
"""Times its threshold that a score is drawn at most; its figure says the rest."""
_KINDS = {
    "psi": "distribution (PSI)",
    "wasserstein": "distance moved (Wasserstein)",
    "share_shift": "change of share",
    "correlation_shift": "change of correlation",
}


@look.Picture
def drift_by_severity(reports: pl.DataFrame, cadence: Cadence) -> Figure:
    """The newest drift report: every score against its threshold, those that alert first, with its values and words.

    Args:
        reports: rows of the ``drift_report`` table, of any number of snapshots; ``large_effect`` and ``own_threshold``
            may be missing.
        cadence: of the snapshots.
    """
    if reports.filter(pl.col("score").is_finite()).is_empty():
        return look.nothing_to_show("Drift", "no score has been measured yet.")
    newest = reports["period"].max()
    name = look.period_name(str(newest), cadence)
    nearness = (pl.col("score") / pl.col("threshold")).alias("nearness")
    optional = [pl.lit(None, pl.Float64).alias(one) for one in _OPTIONAL if one not in reports.columns]
    known = reports.with_columns(nearness, *optional).filter(pl.col("score").is_finite())
    of_newest = known.filter(pl.col("period") == newest)
    if of_newest.is_empty():
        return look.nothing_to_show(f"Drift at {name}", "no score could be measured at this snapshot.")
    order = ("is_alert", "nearness", "score_name", "subject")
    ranked = of_newest.sort(order, descending=(True, True, False, False), nulls_last=True)
    shown = ranked.head(MAX_SCORES)
    earlier = known.filter(pl.col("period") < newest)
    remarks = "" if earlier.is_empty() else " Dots: earlier snapshots."
    remarks += f" The {shown.height} highest of {ranked.height} are shown." if shown.height < ranked.height else ""
    height = _ROW * shown.height
    figure = look.new_figure(
        _drift_title(ranked, known, str(newest), name),
        f"{name}{look.as_of_words(of_newest)}. Bars: score over the threshold at which it alerts, the line.{remarks}",
        height + 0.3,
    )
    axes = look.add_panel(figure, 3.3, 0.15, 2.0, height)
    _draw_scores(axes, shown, earlier)
    return figure


_OPTIONAL = ("large_effect", "own_threshold")


def _drift_title(ranked: pl.DataFrame, known: pl.DataFrame, newest: str, name: str) -> str:
    now = ranked.filter("is_alert")
    if now.height:
        first = f"{_subject_words(now['subject'][0])}, {_kind_words(now['score_name'][0])}, first"
        return f"{now.height} of {ranked.height} drift scores alert at {name}: {first}"
    earlier = known.filter(pl.col("is_alert"), pl.col("period") < newest)["period"].n_unique()
    before = f"; {earlier} earlier snapshot{'s' if earlier != 1 else ''} had alerts" if earlier else ""
    return f"No drift score alerts at {name}{before}"


def _subject_words(subject: str) -> str:
    return subject.replace("_", " ")


def _kind_words(score_name: str) -> str:
    return _KINDS.get(score_name, score_name.replace("_", " "))


def _severity(score: Mapping[str, Any]) -> tuple[str, str]:
    """How much a score says: words and their colour."""
    if not score["is_alert"]:
        return "within what is expected", look.MUTED
    if score["large_effect"] is not None and score["score"] >= score["large_effect"]:
        return "large by any measure", look.ALERT
    if score["own_threshold"] is not None and score["score"] >= score["own_threshold"]:
        return "more than is usual here", look.ALERT
    return "more than chance", look.WARN


def _draw_scores(axes: Axes, scores: pl.DataFrame, earlier: pl.DataFrame) -> None:
    places = {key: place for place, key in enumerate(scores.select("score_name", "subject").iter_rows())}
    lengths = scores["nearness"].fill_null(0.0).fill_nan(0.0).clip(0.0, _LONGEST_BAR).to_list()
    told = [_severity(score) for score in scores.iter_rows(named=True)]
    colours = [look.ACCENT if colour == look.MUTED else colour for _, colour in told]
    axes.barh(range(scores.height), lengths, 0.5, color=colours, gid="scores")
    was = [
        (places[score_name, subject], min(value, _LONGEST_BAR))
        for score_name, subject, value in earlier.select("score_name", "subject", "nearness").iter_rows()
        if (score_name, subject) in places and value is not None
    ]
    if was:
        axes.plot([value for _, value in was], [row for row, _ in was], "o", color=look.GREY, markersize=2.5, alpha=0.8)
    axes.axvline(1.0, color=look.INK, linewidth=1.0, gid="threshold")
    across = axes.get_yaxis_transform()
    for row, (score, (words, colour)) in enumerate(zip(scores.iter_rows(named=True), told, strict=True)):
        weight = "bold" if score["is_alert"] else "normal"
        label = look.shorten(
            f"{_subject_words(score['subject'])}: {_kind_words(score['score_name'])}", 50 if score["is_alert"] else 56
        )
        axes.text(-0.03, row, label, transform=across, ha="right", va="center", size=8, weight=weight)
        threshold = "no threshold" if score["threshold"] is None else f"alerts from {score['threshold']:.2g}"
        axes.text(
            1.04, row, f"{score['score']:.2g}, {threshold}", transform=across, va="center", size=8, color=look.INK
        )
        axes.text(1.78, row, words, transform=across, va="center", size=8, color=colour, weight=weight)
    axes.set_xlim(0, max(1.25, *lengths) * 1.02)
    axes.set_ylim(scores.height - 0.5, -0.5)
    axes.set_axis_off()
    axes.axvline(0, color=look.GREY, linewidth=0.8)


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
    first, last = (look.period_name(day, "daily") for day in (days[0], days[-1]))
    kinds = by_day["kind"].unique().sort().to_list()
    newest = by_day.filter(pl.col("period") == days[-1]).sort("n_requests", descending=True)
    n_requests, slowest = look.number(newest["n_requests"][0]), look.number(newest["latency_p99_ms"][0])
    figure = look.new_figure(
        f"On {last} 99 % of {n_requests} requests ({newest['kind'][0]}) were answered within {slowest} ms",
        f"Milliseconds within which that share of a day's requests was answered, {first} to {last}, UTC.",
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
    ends = [0, len(days) - 1] if len(days) > 1 else [0]
    axes.set_xticks(ends, [look.period_name(days[end], "daily", is_short=True) for end in ends])
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
def rejections(
    counts: pl.DataFrame, kept: pl.DataFrame, cadence: Cadence, outlier_periods: Collection[str] = ()
) -> Figure:
    """The share of each period's rows that was rejected, by reason.

    Args:
        counts: ``period``, ``reason`` and ``n_rows`` of the rejected rows.
        kept: ``period`` and ``n_rows`` of the rows that count.
        cadence: of the periods.
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
    labels = {period: look.period_name(period, cadence) for period in totals["period"]}
    marked = [period for period in totals["period"] if period in outlier_periods]
    figure = look.new_figure(
        (f"{look.percent(n_rejected / n_rows)} of rows rejected" if n_rejected else "No row rejected")
        + (f"; {', '.join(labels[period] for period in marked[:4])} far outside the others" if marked else ""),
        f"{look.number(n_rejected)} of {look.number(n_rows)} rows, by period and reason, on a scale to 100 %. "
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
    _name_periods(axes, totals["period"].to_list(), cadence)
    _draw_reason_labels(axes, reasons, rows, n_rows)
    return figure


def _rank(reason: str) -> int:
    return _REASONS.index(reason) if reason in _REASONS else len(_REASONS)


def _reason_colour(reason: str) -> str:
    return (*look.HUES[: len(_REASONS)], look.MUTED)[_rank(reason)]


def _draw_stacked_shares(
    axes: Axes, reasons: list[str], rows: NDArray[np.float64], totals: pl.DataFrame, marked: list[str]
) -> None:
    shares = rows / totals["n_rows"].to_numpy()
    at = np.arange(totals.height)
    floor = np.zeros(totals.height)
    for reason, share in zip(reasons, shares, strict=True):
        axes.bar(at, share, 0.72, bottom=floor, color=_reason_colour(reason))
        floor = floor + share
    has_counts = totals.height <= 16
    for place, period in enumerate(totals["period"]):
        is_marked = period in marked
        if has_counts or is_marked:
            text = look.number(rows[:, place].sum()) + ("\n▲" if is_marked else "")
            axes.text(
                place,
                floor[place] + 0.015,
                text,
                size=7.5,
                ha="center",
                va="bottom",
                color=look.ALERT if is_marked else look.MUTED,
                weight="bold" if is_marked else "normal",
                linespacing=1.0,
            )
    axes.set_ylim(0, 1.14)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(look.percent_tick)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.set_ylabel("share of the period's rows")


def _name_periods(axes: Axes, periods: Sequence[str], cadence: Cadence) -> None:
    every = math.ceil(len(periods) / 13)
    axes.set_xlim(-0.6, max(len(periods), 4) - 0.4)
    axes.set_xticks(
        range(0, len(periods), every), [look.period_name(one, cadence, is_short=True) for one in periods[::every]]
    )
    if len(periods) > 5:
        axes.tick_params(axis="x", rotation=30)


def _draw_reason_labels(axes: Axes, reasons: list[str], rows: NDArray[np.float64], n_rows: int) -> None:
    for position, (reason, total) in enumerate(zip(reasons, rows.sum(axis=1), strict=True)):
        down = 0.96 - 0.1 * position
        axes.plot(1.035, down, "s", color=_reason_colour(reason), transform=axes.transAxes, clip_on=False)
        label = look.shorten(reason.replace("_", " "), 24)
        axes.text(1.06, down, label, transform=axes.transAxes, va="center", weight="bold", size=8.5)
        text = f"{look.number(total)} · {look.percent(total / n_rows)}"
        axes.text(1.5, down, text, transform=axes.transAxes, va="center", ha="right", color=look.MUTED, size=8.5)
