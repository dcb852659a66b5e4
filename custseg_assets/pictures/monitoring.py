"""Pictures of change: what was rejected, how far the customers have drifted, and how a feature's values moved.

Each function ``x`` returns PNG bytes; ``x_figure`` builds the same figure for a reader who wants to take it apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from custseg_assets.pictures.look import (
    ACCENT,
    ALERT,
    GREY,
    HUES,
    INK,
    MUTED,
    PAPER,
    WIDTH,
    new_figure,
    nothing_to_show,
    number,
    panel,
    percent,
    percent_tick,
    render,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DRIFT_PANELS = 12
_DRIFT_COLUMNS = 4


def drift_over_time(reports: pl.DataFrame) -> bytes:
    """Every drift score against its threshold, snapshot by snapshot, those nearest to their threshold first.

    Args:
        reports: rows of the ``drift_report`` table, of any number of snapshots.
    """
    return render(drift_over_time_figure, reports)


def drift_over_time_figure(reports: pl.DataFrame) -> Figure:
    """The figure of ``drift_over_time``."""
    measured = reports.filter(pl.col("score").is_finite()).sort("period", "score_name", "subject")
    if measured.is_empty():
        return nothing_to_show("Drift over time", "no score has been measured yet.")
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
    labels = _labels(periods)
    span = f"Snapshots {labels[0]} to {labels[-1]}" if len(periods) > 1 else f"Snapshot {labels[0]}"
    figure = new_figure(
        _drift_title(measured, periods),
        f"{span}. Dashed: the threshold from which on a score alerts. Filled: an alert.{left_out}",
        1.3 * n_rows + 0.1,
    )
    pitch = (WIDTH - 0.1) / _DRIFT_COLUMNS
    for position, (score_name, subject) in enumerate(shown.select("score_name", "subject").iter_rows()):
        row, column = divmod(position, _DRIFT_COLUMNS)
        axes = panel(figure, 0.2 + column * pitch, 0.35 + 1.3 * (n_rows - 1 - row), pitch - 0.72, 0.7)
        mine = measured.filter((pl.col("score_name") == score_name) & (pl.col("subject") == subject))
        axes.set_title(shorten(subject, 22), loc="left", weight="bold", pad=14, size=8.5)
        threshold = mine["threshold"][-1]
        words = shorten(score_name.replace("_", " "), 20)
        words += f", threshold {threshold:.2g}" if threshold is not None else ""
        axes.text(0, 1.07, words, transform=axes.transAxes, color=MUTED, size=8)
        _score_over_time(axes, mine, periods)
    return figure


def _drift_title(measured: pl.DataFrame, periods: list[str]) -> str:
    last = measured.filter(pl.col("period") == periods[-1])
    if last.is_empty():
        return f"No score could be measured at {_labels(periods)[-1]}"
    now = last.filter("is_alert").sort(pl.col("score") / pl.col("threshold"), descending=True, nulls_last=True)
    if now.height:
        first = f"{now['score_name'][0].replace('_', ' ')} of {now['subject'][0]}"
        return f"{now.height} of {last.height} drift scores alert at {_labels(periods)[-1]}, {first} first"
    earlier = measured.filter("is_alert")["period"].n_unique()
    before = f"; {earlier} earlier snapshot{'s' if earlier != 1 else ''} had alerts" if earlier else ""
    return f"No drift score alerts at {_labels(periods)[-1]}{before}"


def _score_over_time(axes: Axes, scores: pl.DataFrame, periods: list[str]) -> None:
    places = {period: place for place, period in enumerate(periods)}
    at = np.array([places[period] for period in scores["period"]])
    values = scores["score"].to_numpy()
    thresholds = scores["threshold"].cast(pl.Float64).fill_null(math.nan).to_numpy()
    is_alert = scores["is_alert"].fill_null(False).to_numpy()
    axes.plot(at, values, "-o", color=ACCENT, linewidth=1.3, markersize=3, zorder=3)
    axes.plot(at[is_alert], values[is_alert], "o", color=ALERT, markersize=6.5, zorder=4)
    top = float(np.nanmax(np.append(values, thresholds)))
    axes.set_ylim(0, top * 1.2 if top > 0 else 1.0)
    axes.set_xlim(-0.5, len(periods) - 0.5)
    if np.isfinite(thresholds).any():
        # A threshold holds for its snapshot, so it is drawn across the snapshot's place.
        edges, levels = np.stack([at - 0.5, at + 0.5], axis=1).ravel(), np.repeat(thresholds, 2)
        axes.plot(edges, levels, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2, gid="threshold")
    # Without ticks the axes themselves cost most of the drawing; a line at zero says the same.
    axes.set_axis_off()
    axes.axhline(0, color=GREY, linewidth=1.2)
    labels = _labels(periods)
    axes.text(0, -0.06, labels[0], transform=axes.transAxes, size=8, color=MUTED, va="top")
    if len(periods) > 1:
        axes.text(1, -0.06, labels[-1], transform=axes.transAxes, size=8, color=MUTED, va="top", ha="right")
    colour = ALERT if is_alert[-1] else ACCENT
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


def _labels(periods: Sequence[str]) -> list[str]:
    """Months without their day; the keys of other cadences in full."""
    is_monthly = all(period.endswith("-01") for period in periods)
    return [period.removesuffix("-01") if is_monthly else period for period in periods]


N_BINS = 36
_SKEWED_FROM = 8.0
"""Largest common value over the median from which on a logarithmic axis shows more; a normal shape has 2 to 3."""


def distribution_change(reference: ArrayLike, current: ArrayLike, name: str, unit: str) -> bytes:
    """How the distribution of a feature moved between the reference and the current window.

    The bins span the 0.5th to the 99.5th percentile, so one whale does not squeeze everybody else into one bar; the
    few outside are not drawn but count in every share.

    Args:
        reference: one value per customer; missing ones are left out.
        current: likewise.
        name: of the feature.
        unit: of its values.
    """
    return render(distribution_change_figure, reference, current, name, unit)


def distribution_change_figure(reference: ArrayLike, current: ArrayLike, name: str, unit: str) -> Figure:
    """The figure of ``distribution_change``."""
    before, now = (np.asarray(values, dtype=float).ravel() for values in (reference, current))
    before, now = before[np.isfinite(before)], now[np.isfinite(now)]
    if not len(before) or not len(now):
        which = "reference" if not len(before) else "current"
        return nothing_to_show(f"{name}: reference and current", f"the {which} window has no value.")
    medians = float(np.median(before)), float(np.median(now))
    both = np.concatenate([before, now])
    is_log = bool(np.quantile(np.abs(both), 0.995) > _SKEWED_FROM * max(float(np.median(np.abs(both))), 0.5))
    figure = new_figure(
        f"{shorten(name, 34)}: median {number(medians[0])} → {number(medians[1])} ({unit})",
        f"Grey: reference, n = {number(len(before))}. Blue: current window, n = {number(len(now))}. "
        f"The outermost 1 % is not drawn.{' The axis is logarithmic.' if is_log else ''}",
        2.6,
    )
    axes = panel(figure, 0.45, 0.5, WIDTH - 0.75, 2.05)
    edges = _bins(before, now, is_log)
    _densities(axes, before, now, edges, is_log)
    _median_lines(axes, medians)
    axes.set_xlabel(f"{name} ({unit})")
    return figure


def _bins(before: NDArray[np.float64], now: NDArray[np.float64], is_log: bool) -> NDArray[np.float64]:
    """Bin edges, ascending; between whole numbers where all values are whole, so that no bin is empty by rounding."""
    (low, high), (other_low, other_high) = (np.quantile(values, [0.005, 0.995]) for values in (before, now))
    low, high = min(low, other_low), max(high, other_high)
    if all(np.equal(values, np.round(values)).all() for values in (before, now)):
        low, high = np.floor(low) - 0.5, np.ceil(high) + 0.5
        if high - low <= N_BINS:
            return np.arange(low, high + 1.0)
        return np.unique(np.round(_spaced(low, high, is_log) - 0.5) + 0.5)
    return _spaced(low, high, is_log) if high > low else np.array([low - 0.5, low + 0.5])


def _spaced(low: float, high: float, is_log: bool) -> NDArray[np.float64]:
    if is_log:
        return _unlogged(np.linspace(_logged(low), _logged(high), N_BINS + 1))
    return np.linspace(low, high, N_BINS + 1)


def _logged(values: ArrayLike) -> NDArray[np.float64]:
    """The logarithm that takes refunds too: odd, smooth, and ``log1p`` above zero."""
    return np.sign(values) * np.log1p(np.abs(values))


def _unlogged(values: ArrayLike) -> NDArray[np.float64]:
    return np.sign(values) * np.expm1(np.abs(values))


def _densities(
    axes: Axes, before: NDArray[np.float64], now: NDArray[np.float64], edges: NDArray[np.float64], is_log: bool
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    if is_log:
        axes.set_xscale("function", functions=(_logged, _unlogged))
    widths = np.diff(_logged(edges) if is_log else edges)
    for values, colour, is_filled in ((before, GREY, True), (now, ACCENT, False)):
        counts, _ = np.histogram(values, edges)
        density = counts / len(values) / widths
        axes.stairs(density, edges, fill=is_filled, color=colour, alpha=0.55 if is_filled else 1, linewidth=1.8)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, axes.dataLim.y1 * 1.3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=3)
    if is_log:
        above = [digit * 10.0**power for power in range(10) for digit in (1, 3)]
        ticks = [-(10.0**power) for power in range(1, 10)] + [0.0, *above]
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if edges[0] <= tick <= edges[-1]]))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_ylabel("share of customers", size=8)


def _median_lines(axes: Axes, medians: tuple[float, float]) -> None:
    for median, colour, label, height in ((medians[0], MUTED, "reference", 1.0), (medians[1], ACCENT, "current", 0.9)):
        axes.axvline(median, ymax=height, color=colour, linewidth=1.2, linestyle=(0, (2, 1.5)), gid=f"median {label}")
        is_far_right = axes.transAxes.inverted().transform(axes.transData.transform((median, 0.0)))[0] > 0.8
        axes.annotate(
            f"{label} {number(median)}",
            (median, height),
            (-4 if is_far_right else 4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=colour,
            weight="bold",
            ha="right" if is_far_right else "left",
            va="top",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},
        )


_REASONS = (
    "missing_customer",
    "duplicate",
    "service_code",
    "service_description",
    "non_positive_price",
    "unreadable",
)
"""In the order of their colours; any other reason follows by name."""


def rejections(counts: pl.DataFrame, kept: pl.DataFrame, outlier_periods: Collection[str] = ()) -> bytes:
    """What share of each period's rows was rejected, by reason.

    Args:
        counts: ``period``, ``reason`` and ``n_rows`` of the rejected rows.
        kept: ``period`` and ``n_rows`` of the rows that count.
        outlier_periods: keys of the periods whose share is far outside the others'; they are marked.
    """
    return render(rejections_figure, counts, kept, outlier_periods)


def rejections_figure(counts: pl.DataFrame, kept: pl.DataFrame, outlier_periods: Collection[str] = ()) -> Figure:
    """The figure of ``rejections``."""
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
        return nothing_to_show("Rejected rows by period", "there are no rows.")
    n_rows, n_rejected = int(totals["n_rows"].sum()), int(counts["n_rows"].sum())
    labels = dict(zip(totals["period"], _labels(totals["period"].to_list()), strict=True))
    marked = [period for period in totals["period"] if period in outlier_periods]
    figure = new_figure(
        (f"{percent(n_rejected / n_rows)} of rows rejected" if n_rejected else "No row rejected")
        + (f"; {', '.join(labels[period] for period in marked[:4])} far outside the others" if marked else ""),
        f"{number(n_rejected)} of {number(n_rows)} rows, by period and reason. Above a bar: its rejected rows.",
        2.9,
    )
    axes = panel(figure, 0.7, 0.5, WIDTH - 3.5, 2.25)
    reasons = sorted(counts["reason"].unique(), key=lambda reason: (_rank(reason), reason))
    by_period = totals.select("period").join(
        counts.pivot("reason", index="period", values="n_rows"), on="period", how="left", maintain_order="left"
    )
    rows = np.array([by_period[reason].fill_null(0).to_list() for reason in reasons], dtype=float)
    rows = rows.reshape(len(reasons), totals.height)
    _stacked_shares(axes, reasons, rows, totals, marked)
    _reason_labels(axes, reasons, rows, n_rows)
    return figure


def _rank(reason: str) -> int:
    return _REASONS.index(reason) if reason in _REASONS else len(_REASONS)


def _reason_colour(reason: str) -> str:
    return (*HUES[: len(_REASONS)], MUTED)[_rank(reason)]


def _stacked_shares(
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
            text = number(rows[:, place].sum()) + ("\n▲" if is_marked else "")
            axes.text(
                place,
                floor[place] + 0.02 * top,
                text,
                size=7.5,
                ha="center",
                va="bottom",
                color=ALERT if is_marked else MUTED,
                weight="bold" if is_marked else "normal",
                linespacing=1.0,
            )
    axes.set_ylim(0, top * 1.22)
    axes.set_xlim(-0.6, max(totals.height, 4) - 0.4)
    every = math.ceil(totals.height / 13)
    axes.set_xticks(at[::every], _labels(totals["period"].to_list())[::every])
    if totals.height > 7:
        axes.tick_params(axis="x", rotation=30)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(percent_tick)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.set_ylabel("share of the period's rows")


def _reason_labels(axes: Axes, reasons: list[str], rows: NDArray[np.float64], n_rows: int) -> None:
    for position, (reason, total) in enumerate(zip(reasons, rows.sum(axis=1), strict=True)):
        down = 0.96 - 0.1 * position
        axes.plot(1.035, down, "s", color=_reason_colour(reason), transform=axes.transAxes, clip_on=False)
        label = shorten(reason.replace("_", " "), 24)
        axes.text(1.06, down, label, transform=axes.transAxes, va="center", weight="bold", size=8.5)
        text = f"{number(total)} · {percent(total / n_rows)}"
        axes.text(1.5, down, text, transform=axes.transAxes, va="center", ha="right", color=MUTED, size=8.5)
