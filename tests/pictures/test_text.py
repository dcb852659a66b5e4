"""Texts that are drawn at once are where Matplotlib draws them letter by letter."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from custseg_assets.pictures import look
from custseg_assets.pictures.look import Picture


@pytest.mark.parametrize("words", ["Champions", "gypsy, 1 234", "−7.8 %\n(26 to 41 %)"])
@pytest.mark.parametrize("how", [{}, {"ha": "right", "va": "top"}, {"ha": "center", "va": "center"}, {"rotation": 30}])
def test_a_text_is_where_it_is_by_matplotlib_to_a_pixel(
    words: str, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def figure() -> Figure:
        drawn = Figure(figsize=(3, 2), dpi=100)
        drawn.text(0.503, 0.497, words, **how)
        return drawn

    ours = bounds(Picture(figure)())
    monkeypatch.setattr(look, "_draw_text", lambda _, letter_by_letter, *what, **how: letter_by_letter(*what, **how))
    theirs = bounds(Picture(figure)())
    assert np.abs(ours - theirs).max() <= 1, (ours, theirs)


def bounds(png: bytes) -> Any:
    """First and last row and column with ink."""
    rows, columns = np.nonzero(np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 160)
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])
