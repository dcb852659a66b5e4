"""How a source writes its dates: recognised from the whole column; day or month first is never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from custseg_assets.errors import BadInputError

YEARS = (1970, 2099)
"""Dates outside these years are typing errors or stand-ins for "never"; one of them would span thousands of periods."""

_DATE = r"(?<a>\d{1,4})(?<separator>[-/.])(?<b>\d{1,2})(?<separator_2>[-/.])(?<c>\d{2}(?:\d{2})?|\d)"
_TIME = r"(?<gap>T| {1,2})\d{1,2}:\d{2}(?<seconds>:\d{2}(?:\.\d{1,9})?)?(?:(?<half_gap> ?)(?<half>[AaPp][Mm]))?"
_ZONE = r"(?:Z|[+-]\d{2}:?\d{2})"
_SHAPE = rf"^{_DATE}(?:{_TIME})?$"
_ZONE_AFTER_TIME = rf"(:\d{{2}}(?:\.\d+)?) ?{_ZONE}$"

_TIMES_TO_TRY = (" %H:%M:%S%.f", " %H:%M", "T%H:%M:%S%.f", "T%H:%M", " %I:%M:%S %p", " %I:%M %p")

_YEAR_FIRST, _DOTTED, _SHORT_DASHED, _DAY_OR_MONTH_FIRST = "year first", "dotted", "short dashed", "day or month first"


@dataclass(frozen=True)
class DateReading:
    """How the texts of a column become instants.

    Attributes:
        formats: ``strptime`` formats, in the order they are tried.
        has_zone: whether some times are followed by a zone.
    """

    formats: tuple[str, ...]
    has_zone: bool

    def instants(self, text: pl.Expr) -> pl.Expr:
        """The instants of a text column on the shop's own clock, null where they cannot be read.

        A zone behind the time is dropped, not converted: the shop's day is what matters.
        """
        local = _without_zone(text) if self.has_zone else text
        tried = [local.str.to_datetime(form, strict=False, time_unit="us", exact=True) for form in self.formats]
        return in_range(pl.coalesce(tried))


def _without_zone(text: pl.Expr) -> pl.Expr:
    return text.str.replace(_ZONE_AFTER_TIME, "$1")


def in_range(instants: pl.Expr) -> pl.Expr:
    """The instants of believable years, the others null."""
    return pl.when(instants.dt.year().is_between(*YEARS)).then(instants)


def recognise_dates(texts: pl.DataFrame, date_format: str | None, where: str) -> DateReading:
    """How the texts of a date column are to be read.

    Args:
        texts: the different texts of the column, ``text``, and how many rows have each, ``n``.
        date_format: what the user says they are, which settles it.
        where: file and column, for the messages.

    Raises:
        BadInputError: the format is unknown, does not fit most rows, or does not tell days from months.
    """
    formats = _given(date_format, where) if date_format else _recognised(texts, where)
    # A format that reads the zone itself must still find it.
    has_zone = "%z" not in "".join(formats) and bool(texts["text"].str.contains(_ZONE_AFTER_TIME).any())
    reading = DateReading(formats, has_zone)
    unreadable = texts.filter(reading.instants(pl.col("text")).is_null())
    if unreadable["n"].sum() * 2 > texts["n"].sum():
        raise _unknown(unreadable, f"dates like {' or '.join(reading.formats[:2])}", where)
    return reading


def _given(date_format: str, where: str) -> tuple[str, ...]:
    has_time = re.search(r"%[HIklMSTRrXsc]", date_format) is not None
    formats = (date_format,) if has_time else (date_format, *(date_format + time for time in _TIMES_TO_TRY))
    try:
        pl.select(DateReading(formats, has_zone=False).instants(pl.lit("2011-06-01")))
    except pl.exceptions.PolarsError as error:
        raise BadInputError(
            f"[source] date_format = {date_format!r}: {str(error).splitlines()[0]}",
            "a strptime format",
            f'Write for example "%m/%d/%Y" or "%d/%m/%Y %H:%M" for {where}.',
        ) from None
    return formats


def _recognised(texts: pl.DataFrame, where: str) -> tuple[str, ...]:
    shapes = (
        texts.select("text", "n", _without_zone(pl.col("text")).str.extract_groups(_SHAPE).alias("parts"))
        .unnest("parts")
        .filter(pl.col("separator") == pl.col("separator_2"))
        .with_columns(_family().alias("family"))
        .filter(pl.col("family").is_not_null())
    )
    if shapes.is_empty():
        raise _unknown(
            texts, "dates like 2011-06-17, 2011/06/17, 17.06.2011 or 6/17/2011, with or without a time", where
        )
    # One column, one style: a workbook that mixes them has read some dates with day and month swapped, so the rarer
    # style goes to quarantine instead of being believed.
    totals = shapes.group_by("family").agg(pl.col("n").sum()).sort("n", "family", descending=[True, False])
    family = totals["family"][0]
    shapes = shapes.filter(pl.col("family") == family)
    if family == _SHORT_DASHED:
        reason = "may start with the year, the day or the month"
        raise _ambiguous(shapes["text"].min(), reason, '"%y-%m-%d", "%d-%m-%y" or "%m-%d-%y"', where)
    order = {_YEAR_FIRST: "Ymd", _DOTTED: "dmY"}.get(family) or _proven_order(shapes, where)
    return _formats(shapes, order)


def _family() -> pl.Expr:
    year_first, year_last = pl.col("a").str.len_chars() == 4, pl.col("a").str.len_chars() <= 2
    has_full_year = pl.col("c").str.len_chars() > 1
    return (
        pl.when(year_first & (pl.col("c").str.len_chars() <= 2))
        .then(pl.lit(_YEAR_FIRST))
        .when(year_last & has_full_year & (pl.col("separator") == "."))
        .then(pl.lit(_DOTTED))
        .when(year_last & (pl.col("separator") == "-") & (pl.col("c").str.len_chars() == 2))
        .then(pl.lit(_SHORT_DASHED))
        .when(year_last & has_full_year)
        .then(pl.lit(_DAY_OR_MONTH_FIRST))
    )


def _proven_order(shapes: pl.DataFrame, where: str) -> str:
    """``dmY`` or ``mdY``, by a value that only one of them can be."""
    first, second = (shapes.filter(pl.col(part).cast(pl.Int64).is_between(13, 31)) for part in "ab")
    if first.height and second.height:
        clash = f"is month first, but {first['text'].min()!r} is day first"
        raise _ambiguous(second["text"].min(), clash, '"%m/%d/%Y" or "%d/%m/%Y"', where)
    if not first.height and not second.height:
        reason = "may be day first or month first, and no row proves either"
        raise _ambiguous(shapes["text"].min(), reason, '"%m/%d/%Y" or "%d/%m/%Y"', where)
    return "dmY" if first.height else "mdY"


def _formats(shapes: pl.DataFrame, order: str) -> tuple[str, ...]:
    """One ``strptime`` format for each way the texts are written."""
    parts = ["separator", "short", "gap", "has_seconds", "half_gap", "half"]
    ways = shapes.select(
        "separator",
        "gap",
        "half_gap",
        (pl.col("c").str.len_chars() == 2).alias("short") if order[-1] == "Y" else pl.lit(False).alias("short"),
        pl.col("seconds").is_not_null().alias("has_seconds"),
        pl.col("half").is_not_null().alias("half"),
    ).unique()
    formats = []
    for separator, short, gap, has_seconds, half_gap, half in ways.select(parts).iter_rows():
        form = separator.join(f"%{part}" for part in (order.replace("Y", "y") if short else order))
        if gap is not None:
            form += gap + ("%I" if half else "%H") + ":%M" + (":%S%.f" if has_seconds else "")
            form += f"{half_gap}%p" if half else ""
        formats.append(form)
    # %Y would read the year of 1/2/11 as 11 A.D., so two-digit years are tried first.
    return tuple(sorted(formats, key=lambda form: ("%y" not in form, form)))


def _ambiguous(example: object, reason: str, formats: str, where: str) -> BadInputError:
    return BadInputError(
        f"{where} is ambiguous: {example!r} {reason}",
        "dates that can only be read one way",
        f"Set [source] date_format = {formats}.",
    )


def _unknown(texts: pl.DataFrame, expected: str, where: str) -> BadInputError:
    example = texts.sort("n", "text", descending=[True, False])["text"][0]
    return BadInputError(f"{where} holds {example!r}", expected, _advice(example))


_ADVICE: Sequence[tuple[str, str]] = (
    (r"^\d{8}$", 'Set [source] date_format = "%Y%m%d".'),
    (r"^\d{10}$", 'If these are seconds since 1970, set [source] date_format = "%s".'),
    (r"^\d{5}(\.\d+)?$", "If these are Excel's day numbers, format the column as a date in Excel and save it again."),
)


def _advice(example: str) -> str:
    usual = 'Set [source] date_format, for example "%d-%b-%Y".'
    return next((advice for shape, advice in _ADVICE if re.match(shape, example)), usual)
