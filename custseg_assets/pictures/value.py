"""Pictures of what customers are predicted to do: how near earlier predictions came."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from custseg_assets.pictures import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OLD = ("#c9d3dc", "#b3c3d1", "#97b1c6", "#74a0bf", "#3f8abb")
"""Colours of the days before the newest, from the oldest on."""


@look.Picture
def calibration(model: pl.DataFrame, target: str = "order_30d") -> Figure:
    """Predicted against seen: by tenth of the customers on earlier days, and for the whole shop.

    Args:
        model: rows of ``value_model`` of one snapshot.
        target: a probability.
    """
    chosen = model.filter(pl.col("target") == target, pl.col("is_chosen"))
    what = f"Who orders within {target.rpartition('_')[2].removesuffix('d')} days"
    rows = json.loads(chosen["calibration"].item() or "[]") if chosen.height else []
    if not rows:
        return look.nothing_to_show(what, "no earlier day could be predicted yet and compared with what came.")
    row = chosen.row(0, named=True)
    by_decile = pl.DataFrame(rows)
    days = by_decile["day"].unique().sort().to_list()
    figure = look.new_figure(
        f"{what}: predicted and seen differ by {look.number(100 * row['calibration_error'])} points on average",
        f"Left: customers by tenth of the probability that {row['method']} gave them on earlier days, by what was "
        "known then, against how many ordered; on the line all is right. Right: the share of all customers.",
        2.95,
    )
    _draw_deciles(look.add_panel(figure, 0.65, 0.5, 3.3, 2.35), by_decile, days)
    _draw_levels(look.add_panel(figure, 4.75, 0.5, 3.0, 2.35), by_decile, days, row)
    return figure


def _draw_deciles(axes: Axes, by_decile: pl.DataFrame, days: list[str]) -> None:
    top = max(0.1, 1.08 * float(np.max(by_decile.select("predicted", "seen").to_numpy())))
    axes.plot([0, top], [0, top], color=look.GREY, linewidth=1, linestyle="--", gid="right")
    colours = [*_OLD[-len(days) + 1 :], look.ACCENT] if len(days) > 1 else [look.ACCENT]
    for day, colour in zip(days[-len(colours) :], colours, strict=True):
        mine = by_decile.filter(pl.col("day") == day).sort("predicted")
        is_newest = day == days[-1]
        axes.plot(
            mine["predicted"].to_numpy(),
            mine["seen"].to_numpy(),
            "-o",
            color=colour,
            linewidth=1.8 if is_newest else 1,
            markersize=4 if is_newest else 2.5,
            label=look.period_name(day, "daily", is_short=True),
            gid=day,
        )
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.xaxis.set_major_formatter(look.percent_tick)
    axes.yaxis.set_major_formatter(look.percent_tick)
    axes.set_xlabel("predicted")
    axes.set_ylabel("seen")
    axes.grid()
    axes.tick_params(length=0)
    axes.legend(loc="upper left", frameon=False, fontsize=7.5, title="from this day on", title_fontsize=7.5)


def _draw_levels(axes: Axes, by_decile: pl.DataFrame, days: list[str], row: dict[str, object]) -> None:
    weighed = (pl.col("predicted", "seen") * pl.col("n_customers")).sum() / pl.col("n_customers").sum()
    levels = by_decile.group_by("day").agg(weighed).sort("day")
    at = list(range(len(days)))
    now = len(days)
    axes.plot(
        at, levels["seen"].to_numpy(), "-o", color=look.INK, linewidth=1.3, markersize=4, gid="seen", label="seen"
    )
    axes.plot(
        [*at, now],
        [*levels["predicted"], row["level"]],
        "o",
        color=look.ACCENT,
        markersize=5,
        fillstyle="none",
        gid="predicted",
        label="predicted",
    )
    low, high = (float(str(row[name])) for name in ("level_low", "level_high"))
    axes.plot([now, now], [low, high], color=look.ACCENT, linewidth=6, alpha=0.3, solid_capstyle="butt", gid="interval")
    axes.annotate(
        f"{look.percent(float(str(row['level'])))}\n({look.percent(low)} to {look.percent(high)})",
        (now, high),
        (0, 4),
        textcoords="offset points",
        ha="center",
        size=8,
        color=look.ACCENT,
    )
    axes.set_xlim(-0.4, now + 0.6)
    highest = max(high, *levels["seen"], *levels["predicted"])
    axes.set_ylim(0, 1.3 * highest)
    shown = [date.fromisoformat(day) for day in days]
    axes.set_xticks([*at, now], [*(f"{day:%b %y}" for day in shown), "now"], size=7)
    axes.yaxis.set_major_formatter(look.percent_tick)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.legend(loc="lower left", frameon=False, fontsize=7.5)
