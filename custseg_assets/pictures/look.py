"""The common look of all pictures: colours, sizes, the format of numbers, and the rendering to PNG bytes.

What a picture shows belongs in ``segments`` and ``monitoring``. Matplotlib is imported inside functions because it
costs over half a second, and only through its object interface: pyplot would keep every figure alive.
"""

from __future__ import annotations

import functools
import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.periods import Cadence, start_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

DPI = 100
WIDTH = 8.6
"""The width of every picture in inches: what Dagster's metadata dialog shows without scrolling."""
_TITLE_HEIGHT, _LINE_HEIGHT = 0.4, 0.165

INK, MUTED, GRID, PAPER = "#1f2933", "#5b6773", "#e4e8ec", "#ffffff"
ACCENT, ALERT, WARN, GREY, BAND = "#0072B2", "#b3261e", "#8a5a00", "#a9b2bb", "#e3eef7"

HUES = ("#0072b2", "#b45309", "#00785a", "#a3376f", "#5b4bb0", "#6b6f00", "#8a4b2a", "#4d5b6a")
"""The colours of segments by the number in their id, the same as in the dashboard; white text can be read on each."""
RULE_HUES = ("#6b7580", "#939da6")

PALETTE_COLOURS = 64
"""Colours that a stored picture keeps: no difference to the eye, and a third of the bytes of full colour."""

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    # Text is most of what a picture costs; hinted for a grid of pixels it costs a quarter more and looks no better.
    "text.hinting": "none",
    "axes.edgecolor": GREY,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.0,
    # Without a fixed place Matplotlib lays every panel out twice to find one that is free of ticks.
    "axes.titley": 1.0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
}


class Picture(Generic[P]):
    """A picture: PNG bytes when it is called, the same for the same values and versions of Matplotlib and Pillow.

    Args:
        figure: builds it as a Matplotlib figure; it runs under ``_STYLE``, whatever ``matplotlibrc`` the user has.
    """

    def __init__(self, figure: Callable[P, Figure]) -> None:
        functools.update_wrapper(self, figure)
        self.figure = figure

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """Draw it."""
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        with mpl.rc_context(), warnings.catch_warnings():
            # A segment or product named in a script the font lacks shows as boxes; that is no reason to fail a run.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            canvas: Any = FigureCanvasAgg(self.figure(*args, **kwargs))
            renderer = canvas.get_renderer()
            renderer.draw_text = functools.partial(_draw_text, renderer, renderer.draw_text)
            measure = functools.partial(_measure_text, renderer, renderer.get_text_width_height_descent)
            renderer.get_text_width_height_descent = measure
            canvas.draw()
            image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
            reduced = image.convert("RGB").quantize(
                PALETTE_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
            )
        stream = io.BytesIO()
        reduced.save(stream, format="PNG", compress_level=6, dpi=(DPI, DPI))
        return stream.getvalue()


class _SetText(NamedTuple):
    """A level text as it is drawn.

    Attributes:
        image: its pixels.
        left: where they begin, in pixels from the text's place.
        below: how far the last row is below the text's descent, in pixels.
        size: width, height and descent in pixels, as Matplotlib wants to know them.
    """

    image: NDArray[np.uint8]
    left: float
    below: float
    size: tuple[float, float, float]


@functools.lru_cache(maxsize=1_000)
def _set_text(text: str, prop: Any, dpi: float, is_antialiased: bool) -> _SetText:
    """Set a text, which is most of what it costs; the same stand on many pictures, and each is measured before."""
    from matplotlib.backends.backend_agg import get_hinting_flag
    from matplotlib.font_manager import fontManager, get_font

    font = get_font(fontManager._find_fonts_by_props(prop))  # noqa: SLF001
    font.clear()
    font.set_size(prop.get_size_in_points(), dpi)
    font.set_text(text, 0.0, flags=get_hinting_flag())  # type: ignore[no-untyped-call]
    font.draw_glyphs_to_bitmap(antialiased=is_antialiased)
    # In sixty-fourths of a pixel, as FreeType counts.
    left, below = font.get_bitmap_offset()
    descent, (width, height) = font.get_descent(), font.get_width_height()
    return _SetText(
        np.array(font.get_image()), left / 64, (below + descent) / 64, (width / 64, height / 64, descent / 64)
    )


def _draw_text(
    renderer: Any,
    letter_by_letter: Callable[..., None],
    gc: Any,
    x: float,
    y: float,
    s: str,
    prop: Any,
    angle: float,
    ismath: Any = False,
    mtext: Any = None,
) -> None:
    """Draw a level text at once: Matplotlib draws it letter by letter, which is half of what a text costs."""
    if angle or ismath:
        letter_by_letter(gc, x, y, s, prop, angle, ismath, mtext)
        return
    text = _set_text(s, prop.copy(), renderer.dpi, gc.get_antialiased())
    place = round(x + text.left), round(y + text.below) + 1
    renderer._renderer.draw_text_image(text.image, *place, 0.0, gc)  # noqa: SLF001  (as the method that it replaces)


def _measure_text(
    renderer: Any, measure: Callable[..., tuple[float, float, float]], s: str, prop: Any, ismath: Any
) -> tuple[float, float, float]:
    """Width, height and descent of a text in pixels, as the renderer's own method."""
    return measure(s, prop, ismath) if ismath else _set_text(s, prop.copy(), renderer.dpi, True).size


def new_figure(title: str, explanation: str, height: float) -> Figure:
    """An empty figure with a title and an explanation.

    Args:
        title: the finding that the picture shows.
        explanation: what is drawn; at most two lines are shown.
        height: inches below the header.
    """
    from matplotlib.figure import Figure

    lines = textwrap.wrap(explanation, 118, max_lines=2, placeholder=" …")
    total = _TITLE_HEIGHT + _LINE_HEIGHT * len(lines) + 0.2 + height
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor=PAPER)
    figure.text(0.15 / WIDTH, 1 - 0.12 / total, shorten(title, 84), size=11.5, weight="bold", va="top")
    figure.text(0.15 / WIDTH, 1 - 0.38 / total, "\n".join(lines), color=MUTED, va="top", linespacing=1.25)
    return figure


def nothing_to_show(what: str, why: str) -> Figure:
    """A figure that says why there is nothing to draw.

    Args:
        what: the subject of the picture.
        why: what is missing, in words.
    """
    return new_figure(what, f"Nothing to show: {why}", 0.1)


def add_panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches from the lower left corner.

    Places are fixed because an automatic layout draws the figure twice more and would not align equal pictures.
    """
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def segment_order(segment_id: str) -> tuple[bool, str, int]:
    """Sort key that puts ``S2`` before ``S10`` and rule segments (``R1`` …) after both.

    >>> sorted(["R1", "S10", "S2"], key=segment_order)
    ['S2', 'S10', 'R1']
    """
    return _is_rule(segment_id), re.sub(r"\d.*", "", segment_id), _number_of(segment_id)


def segment_colour(segment_id: str) -> str:
    """The colour of a segment: it depends on the id alone, so it is the same in every picture, snapshot and model.

    From the ninth segment on the hues repeat, first darker, then lighter.
    """
    from matplotlib.colors import to_hex, to_rgb

    position = max(_number_of(segment_id) - 1, 0)
    if _is_rule(segment_id):
        return RULE_HUES[position % len(RULE_HUES)]
    turn, hue = divmod(position, len(HUES))
    weight, shift = ((0.0, 0.0), (0.45, 0.0), (0.45, 0.45), (0.7, 0.0))[turn % 4]
    red, green, blue = to_rgb(HUES[hue])
    return to_hex(((1 - weight) * red + shift, (1 - weight) * green + shift, (1 - weight) * blue + shift))


def _is_rule(segment_id: str) -> bool:
    return re.match(r"R\d", segment_id) is not None


def _number_of(segment_id: str) -> int:
    digits = re.search(r"\d{1,9}", segment_id)
    return int(digits.group()) if digits else 0


def sort_by_segment(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort rows into the order that segments have in every picture."""
    order = sorted(range(frame.height), key=lambda row: segment_order(frame["segment_id"][row]))
    return frame[order]


def shorten(text: str, limit: int) -> str:
    """Cut a text that is longer than ``limit`` characters, and end it with an ellipsis.

    >>> shorten("Champions", 6)
    'Champ…'
    """
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def segment_label(segment_id: str, name: str, limit: int = 24) -> str:
    """The id and the name of a segment, as a label in a picture."""
    return shorten(f"{segment_id} {name}", limit)


def number(value: float | None) -> str:
    """A number as text, with thousands separators and no more digits than a reader compares.

    >>> number(1234.56), number(2.5), number(3.0), number(0.123), number(None)
    ('1,235', '2.5', '3', '0.12', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if 0 < abs(value) < 1:
        return f"{value:.2g}".replace("-", "−")
    rounded = round(value, 1)
    text = f"{value:,.0f}" if abs(value) >= 100 or rounded == round(value) else f"{rounded:,.1f}"
    return text.replace("-", "−")


def percent(share: float | None) -> str:
    """A share as text, in percent.

    >>> percent(0.249), percent(0.0096), percent(0.0001), percent(0), percent(None)
    ('25 %', '1.0 %', '≈0 %', '0 %', '–')
    """
    if share is None or math.isnan(share):
        return "–"
    if 0 < abs(share) < 0.0005:
        return "≈0 %"
    digits = 0 if share == 0 or abs(share) >= 0.0995 else 1
    return f"{share * 100:.{digits}f} %".replace("-", "−")


def money(value: float | None, currency: str | None) -> str:
    """An amount as text, with its currency where that is known.

    >>> money(1234.56, "GBP"), money(1234.56, None), money(None, "GBP")
    ('GBP 1,235', '1,235', '–')
    """
    text = number(value)
    return text if currency is None or text == "–" else f"{currency} {text}"


def day_name(day: date) -> str:
    """A day as people write it.

    >>> day_name(date(2025, 2, 1))
    '1 February 2025'
    """
    return f"{day.day} {day:%B %Y}"


def period_name(key: str, cadence: Cadence, *, is_short: bool = False) -> str:
    """A period or snapshot by its key, as people call it.

    >>> period_name("2025-01-01", "monthly"), period_name("2025-01-01", "monthly", is_short=True)
    ('January 2025', 'Jan 2025')
    >>> period_name("2025-01-06", "weekly"), period_name("2025-01-06", "daily")
    ('week of 6 January 2025', '6 January 2025')
    """
    first = start_of(key)
    if is_short:
        return f"{first:%b %Y}" if cadence == "monthly" else f"{first.day} {first:%b %Y}"
    if cadence == "monthly":
        return f"{first:%B %Y}"
    return f"week of {day_name(first)}" if cadence == "weekly" else day_name(first)


def as_of_words(frame: pl.DataFrame) -> str:
    """``, as of 1 February 2025`` for rows of one snapshot that say so; nothing for others."""
    if "as_of" not in frame.columns or frame.is_empty():
        return ""
    return f", as of {day_name(frame['as_of'].max())}"  # type: ignore[arg-type]


def percent_tick(share: float, _: object) -> str:
    """The label of a tick in percent; Matplotlib's own formatter keeps a useless decimal."""
    return f"{round(share * 100, 6):g} %"


def text_colour_on(red: float, green: float, blue: float) -> str:
    """Dark or white, whichever reads better on a background given in 0 to 1 (relative luminance of WCAG 2)."""
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return INK if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.22 else PAPER
