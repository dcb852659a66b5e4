"""The picture of a campaign's report: each figure with its interval, over all segments and in each.

The figures are worked out in ``domain.campaigns``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from custseg_assets.domain.campaigns.outcomes import OUTCOMES, RETURN
from custseg_assets.domain.campaigns.report import ALL
from custseg_assets.pictures.look import ACCENT, GREY, INK, Picture, add_panel, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_HEIGHT, _LEFT, _GAP = 0.32, 1.8, 0.35
_LABELS = {RETURN: "return, in points", "spend": "spend per customer, capped"}


@Picture
def effects_with_intervals(report: pl.DataFrame) -> Figure:
    """One line per segment, one panel per figure; all segments together come first.

    Args:
        report: rows of ``campaign_report`` of one campaign.
    """
    segments = [ALL, *sorted(set(report["segment_id"]) - {ALL})]
    names = dict(report.select("segment_id", "segment_name").iter_rows())
    headline = report.filter("is_headline").row(0, named=True)
    height = _ROW_HEIGHT * len(segments) + 0.8
    figure = new_figure(
        f"{headline['campaign']}, return over all segments: {headline['verdict']}",
        f"audience less holdout after {headline['days_observed']} of {headline['days']} days, with 95 % intervals; one "
        "with 0 in it tells neither more nor less",
        height,
    )
    width = (figure.get_figwidth() - _LEFT - 0.2) / len(OUTCOMES) - _GAP
    for number, name in enumerate(OUTCOMES):
        axes = add_panel(figure, _LEFT + number * (width + _GAP), 0.45, width, height - 0.8)
        scale = 100 if name == RETURN else 1
        for place, segment in enumerate(segments):
            row = report.filter(figure=name, segment_id=segment).row(0, named=True)
            if row["effect"] is not None:
                colour = ACCENT if segment == ALL else GREY
                axes.hlines(place, scale * row["effect_low"], scale * row["effect_high"], colors=colour, linewidth=2)
                axes.scatter([scale * row["effect"]], [place], c=[colour], s=28, zorder=3)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_title(_LABELS[name], color=INK)
        axes.set_ylim(len(segments) - 0.5, -0.5)
        labels = ["all segments" if one == ALL else f"{one} {names.get(one) or ''}" for one in segments]
        axes.set_yticks(range(len(segments)), labels if number == 0 else [""] * len(segments))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=True, axis="x")
    return figure
