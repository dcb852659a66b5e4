"""The picture of ``custseg compare``: candidates side by side, a panel for each figure.

The figures are worked out in ``commands.compare``; what they mean belongs in ``domain.promotion``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from custseg_assets.pictures.look import ACCENT, GREY, INK, Picture, add_panel, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("bootstrap_ari", "stability", 0.0),
    ("smallest_share", "smallest segment", 0.0),
    ("share_moved", "would move", 0.0),
    ("validity_return", "foresees returns", 0.5),
    ("validity_spend", "foresees spend", 0.5),
)
"""Figure, its label, and where its axis begins: what foresees nothing has a concordance of a half."""
_ROW_HEIGHT, _LEFT, _GAP = 0.3, 1.8, 0.25


@Picture
def candidates_side_by_side(rows: pl.DataFrame, title: str, explanation: str) -> Figure:
    """One line per candidate, one panel per figure; the model in force is grey, and what is not known is left out.

    Args:
        rows: one per candidate, the model in force first: ``name`` and the figures.
        title: the finding.
        explanation: what was compared.
    """
    height = _ROW_HEIGHT * rows.height + 0.7
    figure = new_figure(title, explanation, height)
    width = (figure.get_figwidth() - _LEFT - 0.2) / len(_PANELS) - _GAP
    places = range(rows.height)
    colours = [GREY, *[ACCENT] * (rows.height - 1)]
    for number, (name, label, low) in enumerate(_PANELS):
        axes = add_panel(figure, _LEFT + number * (width + _GAP), 0.4, width, height - 0.75)
        known = [place for place in places if rows[name][place] is not None]
        values = [rows[name][place] for place in known]
        axes.hlines(known, low, values, colors=[colours[place] for place in known], linewidth=2)
        axes.scatter(values, known, c=[colours[place] for place in known], s=28, zorder=3)
        axes.set_title(label, color=INK)
        axes.set_xlim(low, 1 + (1 - low) / 20)
        axes.set_xticks([low, (1 + low) / 2, 1], [f"{tick:g}" for tick in (low, (1 + low) / 2, 1)])
        axes.set_ylim(rows.height - 0.5, -0.5)
        axes.set_yticks(list(places), rows["name"].to_list() if number == 0 else [""] * rows.height)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=True, axis="x")
    return figure
