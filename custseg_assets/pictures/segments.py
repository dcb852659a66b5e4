"""Pictures of a segmentation: the choice of k, the profiles of the segments, their customers, and migrations.

Each gives PNG bytes when it is called; its ``figure`` gives the same as a Matplotlib figure, for tests.
Pictures of change over time belong in ``monitoring``.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.pictures import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

ROW = 0.34
"""Height of a table row, in inches."""

MAX_POINTS = 3_000


class _Measure(NamedTuple):
    column: str
    title: str
    direction: str
    is_share: bool = False


_MEASURES = (
    _Measure("silhouette", "silhouette", "higher is better"),
    _Measure("davies_bouldin", "Davies-Bouldin", "lower is better"),
    _Measure("bootstrap_ari", "bootstrap ARI", "higher is steadier"),
    _Measure("worst_jaccard", "worst Jaccard", "higher is steadier"),
    _Measure("smallest_share", "smallest cluster", "of customers", is_share=True),
)


@look.Picture
def k_selection(candidates: pl.DataFrame, limits: Mapping[str, float]) -> Figure:
    """The choice of the number of clusters: five measures by k, their limits, and which k keep them.

    Args:
        candidates: one row per k, columns of the ``model_candidates`` table.
        limits: lowest acceptable value by column name; columns without one have no line.
    """
    if candidates.is_empty():
        return look.nothing_to_show("Choosing the number of segments", "no number of clusters was tried.")
    candidates = candidates.sort("k")
    chosen = candidates.filter("is_chosen")
    n_eligible = int(candidates["is_eligible"].sum())
    kept = f"{n_eligible} of the {candidates.height} tried keep{'s' if n_eligible == 1 else ''} every limit"
    figure = look.new_figure(
        f"k = {chosen['k'][0]} chosen: {kept}" if chosen.height else f"No k chosen: {kept}",
        "Dashed: the lowest acceptable value. Hollow: a limit is missed. "
        + (
            f"Band: k = {chosen['k'][0]}, {chosen['reason'][0]}"
            if chosen.height
            else "The table says which, for each k."
        ),
        2.0,
    )
    pitch = (look.WIDTH - 0.2) / len(_MEASURES)
    for position, measure in enumerate(_MEASURES):
        axes = look.add_panel(figure, 0.5 + position * pitch, 0.45, pitch - 0.5, 1.2)
        _draw_measure(axes, candidates, measure, limits.get(measure.column))
        _draw_chosen_k(axes, chosen, measure)
    return figure


def _draw_measure(axes: Axes, candidates: pl.DataFrame, measure: _Measure, limit: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    ks = candidates["k"].to_numpy()
    values = candidates[measure.column].cast(pl.Float64).fill_null(math.nan).to_numpy()
    eligible = candidates["is_eligible"].to_numpy()
    axes.set_title(measure.title, loc="left", weight="bold", pad=18)
    axes.set_xlabel("k", labelpad=1)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    margin = max(0.6, 0.05 * (ks.max() - ks.min()))
    axes.set_xlim(ks.min() - margin, ks.max() + margin)
    axes.set_xticks(ks[:: math.ceil(len(ks) / 6)])
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.plot(ks, values, color=look.GREY, linewidth=1.2, zorder=2)
    axes.plot(
        ks[~eligible], values[~eligible], "o", color=look.GREY, markerfacecolor=look.PAPER, markersize=5, zorder=3
    )
    axes.plot(ks[eligible], values[eligible], "o", color=look.ACCENT, markersize=5, zorder=3)
    if measure.is_share:
        axes.yaxis.set_major_formatter(look.percent_tick)
    if limit is not None:
        axes.axhline(limit, color=look.ALERT, linewidth=1.1, linestyle=(0, (4, 2)), gid="limit")
    measured = values[np.isfinite(values)]
    if not len(measured):
        axes.text(0.5, 0.2, "not measured", transform=axes.transAxes, color=look.MUTED, ha="center")
        return
    low, high = min(measured.min(), limit or measured.min()), max(measured.max(), limit or measured.max())
    room = (high - low) or abs(high) or 1.0
    axes.set_ylim(low - 0.15 * room, high + 0.15 * room)


def _draw_chosen_k(axes: Axes, chosen: pl.DataFrame, measure: _Measure) -> None:
    """Draw the chosen k as a band, and write its value before the words that say which direction is good."""
    start = 0.0
    for k, value in chosen.select("k", measure.column).iter_rows():
        axes.axvspan(k - 0.4, k + 0.4, color=look.BAND, zorder=0)
        if value is not None:
            text = look.percent(value) if measure.is_share else f"{value:.2f}"
            axes.text(0, 1.06, text, transform=axes.transAxes, color=look.ACCENT, size=8.5, weight="bold")
            start = 0.08 * len(text)
    axes.text(start, 1.06, measure.direction, transform=axes.transAxes, color=look.MUTED, size=8)


class _Feature(NamedTuple):
    name: str
    title: str
    is_share: bool = False


_PROFILE_FEATURES = (
    _Feature("recency_days", "recency\n(days)"),
    _Feature("frequency_orders", "orders\n(count)"),
    _Feature("monetary_net", "net spend\n(currency)"),
    _Feature("avg_order_value", "per order\n(currency)"),
    _Feature("n_products", "products\n(count)"),
    _Feature("tenure_days", "tenure\n(days)"),
    _Feature("days_between_orders", "between\norders (d)"),
    _Feature("cancellation_rate", "cancelled\n(share)", is_share=True),
)
_RATIO_AT_FULL_COLOUR = 8.0


@look.Picture
def profile_heatmap(profiles: pl.DataFrame, customer_features: pl.DataFrame, currency: str | None = None) -> Figure:
    """The profile of each segment: medians in business units, coloured by their ratio to the median of all customers.

    Args:
        profiles: one row per segment, columns of the ``segment_profiles`` table.
        customer_features: the snapshot's customers, for the median of all.
        currency: of all amounts, where it is known.
    """
    profiles = look.sort_by_segment(profiles)
    # A shop without products has no products to compare: what is null for every segment is left out.
    features = [feature for feature in _PROFILE_FEATURES if profiles[f"median_{feature.name}"].is_not_null().any()]
    if not features:
        return look.nothing_to_show("Segment profiles", "no customer has anything in the window.")
    height = ROW * (profiles.height + 1)
    figure = look.new_figure(
        f"{_count_of_segments(profiles.height)}: {_share_sentence(profiles)}",
        f"Median customer of each segment{look.as_of_words(profiles)}. Colour: compared with the median of all, orange "
        "above, violet below, full colour from 8 times or an eighth. Bars end at 100\N{NO-BREAK SPACE}%.",
        height + 0.55,
    )
    table = look.add_panel(figure, 2.0, 0.2, look.WIDTH - 4.0, height)
    overall = {feature.name: customer_features[feature.name].median() for feature in features}
    _draw_profile_cells(table, profiles, features, overall, currency)
    _draw_segment_names(table, profiles)
    for position, (column, title) in enumerate(
        (("share_customers", "share of\ncustomers"), ("share_revenue", "share of\nnet spend"))
    ):
        bars = look.add_panel(figure, look.WIDTH - 1.9 + position * 0.92, 0.2 + ROW, 0.85, height - ROW)
        _draw_share_bars(bars, profiles, column)
        bars.text(0, -0.62, title, size=8, color=look.MUTED, va="bottom", linespacing=1.1)
    return figure


def _draw_profile_cells(
    axes: Axes,
    profiles: pl.DataFrame,
    features: list[_Feature],
    overall: Mapping[str, object],
    currency: str | None,
) -> None:
    import matplotlib as mpl

    colours = mpl.colormaps["PuOr_r"]
    n_rows = profiles.height
    background = np.ones((n_rows + 1, len(features), 3))
    for column, feature in enumerate(features):
        whole = overall[feature.name]
        whole = float(whole) if isinstance(whole, int | float) else None
        words = look.percent if feature.is_share else look.number
        title = feature.title.replace("(currency)", f"({currency})" if currency else "(amount)")
        axes.text(column, -0.62, title, size=7.5, color=look.MUTED, ha="center", va="bottom", linespacing=1.1)
        axes.text(column, n_rows, words(whole), color=look.MUTED, ha="center", va="center")
        for row, value in enumerate(profiles[f"median_{feature.name}"]):
            background[row, column] = _ratio_colour(value, whole, colours)
            ink = look.text_colour_on(*background[row, column])
            axes.text(column, row, words(value), color=ink, ha="center", va="center")
    axes.imshow(background, aspect="auto", interpolation="nearest")
    axes.hlines(np.arange(n_rows + 1) - 0.5, -0.5, len(features) - 0.5, color=look.PAPER, linewidth=2)
    axes.vlines(np.arange(1, len(features)) - 0.5, -0.5, n_rows - 0.5, color=look.PAPER, linewidth=2)
    axes.set_axis_off()


def _ratio_colour(value: float | None, whole: float | None, colours: Colormap) -> tuple[float, float, float]:
    """The colour of a median: by the logarithm of its ratio to ``whole``, and white where it cannot be compared."""
    if value is None or whole is None or value == whole or whole < 0:
        return (1.0, 1.0, 1.0)
    ratio = max(value / whole, 1 / _RATIO_AT_FULL_COLOUR) if whole else _RATIO_AT_FULL_COLOUR
    depth = min(1.0, math.log(ratio) / math.log(_RATIO_AT_FULL_COLOUR))
    red, green, blue, _ = colours(0.5 + 0.42 * depth)
    return red, green, blue


def _draw_segment_names(axes: Axes, profiles: pl.DataFrame) -> None:
    left = axes.get_xlim()[0]
    for row, (segment_id, name) in enumerate(profiles.select("segment_id", "segment_name").iter_rows()):
        axes.plot(left - 0.12, row, "s", color=look.segment_colour(segment_id), markersize=7, clip_on=False)
        axes.text(left - 0.28, row, look.segment_label(segment_id, name, 22), ha="right", va="center", weight="bold")
    axes.text(left - 0.28, profiles.height, "all customers", ha="right", va="center", color=look.MUTED)
    axes.set_xlim(left)


def _draw_share_bars(axes: Axes, profiles: pl.DataFrame, column: str) -> None:
    shares = profiles[column].fill_null(0.0).clip(0.0, 1.0).to_list()
    rows = range(profiles.height)
    axes.barh(rows, [1.0] * profiles.height, 0.5, color=look.GRID)
    axes.barh(rows, shares, 0.5, color=[look.segment_colour(segment_id) for segment_id in profiles["segment_id"]])
    for row, share in zip(rows, profiles[column], strict=True):
        axes.text(1.08, row, look.percent(share), va="center", size=8.5)
    axes.set_xlim(0, 1.9)
    axes.set_ylim(profiles.height - 0.5, -0.5)
    axes.set_axis_off()


def _count_of_segments(n_segments: int) -> str:
    return f"{n_segments} segment{'s' if n_segments != 1 else ''}"


def _share_sentence(profiles: pl.DataFrame) -> str:
    """``Champions, 19 % of customers, bring 66 % of net spend``, about the segment with the largest share of it."""
    profile = profiles.sort("share_revenue", descending=True, nulls_last=True, maintain_order=True).row(0, named=True)
    customers, revenue = profile["share_customers"], profile["share_revenue"]
    name = look.shorten(str(profile["segment_name"]), 28)
    if not isinstance(customers, float) or not isinstance(revenue, float):
        return "no net spend to share out"
    return f"{name}, {look.percent(customers)} of customers, bring {look.percent(revenue)} of net spend"


@look.Picture
def revenue_by_segment(profiles: pl.DataFrame, currency: str | None = None) -> Figure:
    """Each segment's share of customers above its share of net spend, both on a scale to 100 %.

    Args:
        profiles: one row per segment, columns of the ``segment_profiles`` table.
        currency: of all amounts, where it is known.
    """
    if profiles.is_empty():
        return look.nothing_to_show("Customers and net spend by segment", "the snapshot has no customers.")
    profiles = look.sort_by_segment(profiles)
    height = 0.5 * profiles.height
    n_customers, revenue = int(profiles["n_customers"].sum()), float(profiles["revenue_net"].sum())
    figure = look.new_figure(
        f"{_count_of_segments(profiles.height)}: {_share_sentence(profiles)}",
        f"{look.number(n_customers)} customers{look.as_of_words(profiles)}, net spend {look.money(revenue, currency)}. "
        "Pale: share of customers. Full: share of net spend in the window. A whole bar is 100\N{NO-BREAK SPACE}%.",
        height + 0.15,
    )
    axes = look.add_panel(figure, 2.1, 0.1, look.WIDTH - 2.3, height)
    shares = profiles.select(pl.col("share_customers", "share_revenue").fill_null(0.0).clip(0.0, 1.0))
    rows = np.arange(profiles.height)
    colours = [look.segment_colour(segment_id) for segment_id in profiles["segment_id"]]
    for offset, column, alpha in ((-0.19, "share_customers", 0.5), (0.19, "share_revenue", 1.0)):
        axes.barh(rows + offset, np.ones(profiles.height), 0.3, color=look.GRID)
        axes.barh(rows + offset, shares[column], 0.3, color=colours, alpha=alpha, gid=column)
    for row, profile in enumerate(profiles.iter_rows(named=True)):
        spend = look.money(profile["revenue_net"], currency)
        for offset, share, count in (
            (-0.19, profile["share_customers"], f"{look.number(profile['n_customers'])} customers"),
            (0.19, profile["share_revenue"], f"{spend} spent"),
        ):
            text = f"{look.percent(share)}  ·  {count}"
            axes.text(1.015, row + offset, text, size=8, va="center", color=look.MUTED)
        label = look.segment_label(profile["segment_id"], profile["segment_name"])
        axes.text(-0.015, row, label, ha="right", va="center", weight="bold")
    axes.set_xlim(0, 1.42)
    axes.set_ylim(profiles.height - 0.5, -0.5)
    axes.set_axis_off()
    return figure


@look.Picture
def cluster_scatter(
    customer_features: pl.DataFrame, assignments: pl.DataFrame, *, seed: int, currency: str | None = None
) -> Figure:
    """Customers by recency and net spend, coloured by segment, with each segment's median.

    Args:
        customer_features: the snapshot's customers; ``customer_id``, ``recency_days`` and ``monetary_net``.
        assignments: ``customer_id``, ``segment_id`` and ``segment_name`` of the same snapshot.
        seed: of the sample that is drawn of many customers; medians are of all of them.
        currency: of all amounts, where it is known.
    """
    named = customer_features.select("customer_id", "recency_days", "monetary_net").join(
        assignments.select("customer_id", "segment_id", "segment_name"), on="customer_id"
    )
    customers = named.drop_nulls().filter(pl.col("monetary_net") > 0).sort("customer_id")
    if customers.is_empty():
        return look.nothing_to_show(
            "Customers by recency and net spend", "no customer has an order and a net spend above 0."
        )
    medians = look.sort_by_segment(
        customers.group_by("segment_id")
        .agg(pl.col("segment_name").first(), pl.col("recency_days", "monetary_net").median(), n_customers=pl.len())
        .sort("segment_id")
    )
    n_drawn = min(customers.height, MAX_POINTS)
    drawn = np.sort(np.random.default_rng(seed).choice(customers.height, n_drawn, replace=False))
    n_without = assignments.height - customers.height
    figure = look.new_figure(
        f"{_count_of_segments(medians.height)} by recency and net spend{look.as_of_words(assignments)}",
        f"One dot is a customer: {look.number(n_drawn)} of {look.number(customers.height)} drawn"
        + (f", {look.number(n_without)} without a net spend above 0 left out" if n_without else "")
        + ". Numbered: the median of each segment. Both axes are logarithmic.",
        4.4,
    )
    axes = look.add_panel(figure, 0.75, 0.55, look.WIDTH - 3.3, 3.75)
    _set_recency_and_spend_axes(axes, customers)
    axes.set_ylabel(f"net spend in the window ({currency})" if currency else "net spend in the window")
    _draw_customers(axes, customers[drawn])
    _draw_medians(axes, medians)
    return figure


def _set_recency_and_spend_axes(axes: Axes, customers: pl.DataFrame) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("function", functions=(np.log1p, np.expm1))
    axes.set_yscale("log")
    longest = float(customers["recency_days"].to_numpy().max())
    axes.set_xlim(-0.2, max(longest * 1.15, 1.0))
    spend = customers["monetary_net"].to_numpy()
    axes.set_ylim(max(spend.min() / 1.3, spend.max() / 1e7), spend.max() * 1.6)
    days = [day for day in (0, 1, 3, 7, 14, 30, 60, 120, 240, 480, 960, 1920) if day <= max(longest, 1.0)]
    axes.xaxis.set_major_locator(FixedLocator(days))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: look.number(value)))
    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: look.number(value) if value >= 1 else f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(length=0)
    axes.grid()
    axes.set_xlabel("recency: days since the last order")


def _draw_customers(axes: Axes, customers: pl.DataFrame) -> None:
    # Customers are in the order of their ids, so that no segment is painted over another.
    colour_of = {segment: look.segment_colour(segment) for segment in customers["segment_id"].unique()}
    axes.scatter(
        customers["recency_days"].to_numpy(),
        customers["monetary_net"].to_numpy(),
        s=9,
        c=[colour_of[segment] for segment in customers["segment_id"]],
        alpha=0.55,
        linewidths=0,
    )


def _draw_medians(axes: Axes, medians: pl.DataFrame) -> None:
    step = min(0.065, 1.0 / medians.height)
    axes.text(1.45, 1.02, "customers", transform=axes.transAxes, ha="right", color=look.MUTED, size=8)
    for place, median in enumerate(medians.iter_rows(named=True)):
        colour = look.segment_colour(median["segment_id"])
        at = (median["recency_days"], median["monetary_net"])
        axes.plot(*at, "o", color=colour, markersize=17, markeredgecolor=look.PAPER, markeredgewidth=1.5, zorder=4)
        axes.annotate(
            median["segment_id"], at, color=look.PAPER, weight="bold", size=7.5, ha="center", va="center", zorder=5
        )
        down = 0.98 - place * step
        axes.plot(1.035, down, "o", color=colour, markersize=8, transform=axes.transAxes, clip_on=False)
        label = look.segment_label(median["segment_id"], median["segment_name"], 24)
        axes.text(1.06, down, label, transform=axes.transAxes, va="center", weight="bold", size=8.5)
        count = look.number(median["n_customers"])
        axes.text(1.45, down, count, transform=axes.transAxes, va="center", ha="right", color=look.MUTED, size=8.5)


MAX_LABELLED_SEGMENTS = 12
"""A matrix with more rows than this shows colours only; the numbers are in the table."""

MAX_LEVEL_NAMES = 8
"""A matrix with more columns than this has slanted names."""

_NEWCOMER, _GONE = "(new)", "(gone)"


@look.Picture
def migration_matrix(moves: pl.DataFrame, currency: str | None = None) -> Figure:
    """Migrations: customers that moved from one segment to another, as counts and as shares of the segment before.

    Args:
        moves: ``from_segment`` (null: not known before), ``to_segment`` (null: no longer known), ``n_customers``
            and ``revenue_net``, the net spend of those customers.
        currency: of all amounts, where it is known.
    """
    moves = (
        moves.with_columns(pl.col("from_segment").fill_null(_NEWCOMER), pl.col("to_segment").fill_null(_GONE))
        .group_by("from_segment", "to_segment")
        .agg(pl.col("n_customers", "revenue_net").sum())
        .filter(pl.col("n_customers") > 0)
        .sort("from_segment", "to_segment")
    )
    if moves.is_empty():
        return look.nothing_to_show("Moves between segments", "there is no earlier snapshot to compare with.")
    rows = _segments_of(moves["from_segment"], _NEWCOMER)
    columns = _segments_of(moves["to_segment"], _GONE)
    counts = np.zeros((len(rows), len(columns)))
    for before, now, n_customers in moves.select("from_segment", "to_segment", "n_customers").iter_rows():
        counts[rows.index(before), columns.index(now)] = n_customers
    height = (0.42 if len(rows) <= MAX_LABELLED_SEGMENTS else 0.24) * len(rows)
    title, largest = _migration_words(moves, currency)
    figure = look.new_figure(
        title,
        "Rows: segment before. Columns: segment now. Cells: customers and their share of the row. Outlined: stayed."
        + largest,
        height + (0.55 if len(columns) <= MAX_LEVEL_NAMES else 1.2),
    )
    axes = look.add_panel(figure, 2.0, 0.1, look.WIDTH - 2.2, height)
    _draw_migration_cells(axes, counts, rows, columns)
    return figure


def _segments_of(names: pl.Series, last: str) -> list[str]:
    return sorted(names.unique(), key=lambda name: (name == last, look.segment_order(name)))


def _migration_words(moves: pl.DataFrame, currency: str | None) -> tuple[str, str]:
    """The title, and a sentence about the largest move if there is one."""
    known = moves.filter(pl.col("from_segment") != _NEWCOMER)
    stayed = int(known.filter(pl.col("from_segment") == pl.col("to_segment"))["n_customers"].sum())
    title = f"{look.percent(stayed / int(known['n_customers'].sum()))} stayed" if known.height else "Everybody is new"
    left = known.filter(pl.col("from_segment") != pl.col("to_segment")).sort(
        "n_customers", "from_segment", "to_segment", descending=(True, False, False)
    )
    if left.is_empty():
        return title, ""
    move = left.row(0, named=True)
    way = " to ".join(look.shorten(move[end], 22) for end in ("from_segment", "to_segment"))
    return (
        f"{title}; most moved from {way}: {look.number(move['n_customers'])}",
        f" Net spend of the largest move: {look.money(move['revenue_net'], currency)}.",
    )


def _draw_migration_cells(axes: Axes, counts: NDArray[np.float64], rows: list[str], columns: list[str]) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    shares = counts / counts.sum(axis=1, keepdims=True)
    background = mpl.colormaps["Blues"](0.85 * shares)[:, :, :3]
    background[counts == 0] = 1.0
    axes.imshow(background, aspect="auto", interpolation="nearest")
    is_labelled = max(counts.shape) <= MAX_LABELLED_SEGMENTS
    for row, column in np.argwhere(counts > 0):
        if is_labelled:
            text = f"{look.number(counts[row, column])}\n{look.percent(shares[row, column])}"
            ink = look.text_colour_on(*background[row, column])
            axes.text(column, row, text, color=ink, size=8, ha="center", va="center", linespacing=1.1)
        if rows[row] == columns[column]:
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=look.INK, linewidth=1.2, zorder=3)
            )
    axes.set_yticks(range(len(rows)), [look.shorten(name, 26) for name in rows], color=look.INK)
    axes.xaxis.tick_top()
    if len(columns) <= MAX_LEVEL_NAMES:
        names = ["\n".join(textwrap.wrap(name, 12, max_lines=2, placeholder=" …")) for name in columns]
        axes.set_xticks(range(len(columns)), names, color=look.INK)
    else:
        names = [look.shorten(name, 16) for name in columns]
        axes.set_xticks(range(len(columns)), names, color=look.INK, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(columns) - 0.5, color=look.GRID, linewidth=0.8)
    axes.vlines(np.arange(1, len(columns)) - 0.5, -0.5, len(rows) - 0.5, color=look.GRID, linewidth=0.8)
