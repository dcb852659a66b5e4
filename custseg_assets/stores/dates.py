"""Dates of a source: recognise their format from the whole column; day or month first is never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from custseg_assets.errors import BadInputError

YEARS = (1970, 2099)
"""Dates outside these years are typing errors or mean "never"; one of them would make thousands of periods."""

_DATE = r"(?<a>\d{1,4})(?<separator>[-/.])(?<b>\d{1,2})(?<separator_2>[-/.])(?<c>\d{2}(?:\d{2})?|\d)"
_TIME = r"(?<gap>T| {1,2})\d{1,2}:\d{2}(?<seconds>:\d{2}(?:\.\d{1,9})?)?(?:(?<half_gap> ?)(?<half>[AaPp][Mm]))?"
_ZONE = r"(?:Z|[+-]\d{2}:?\d{2})"
_DATE_AND_TIME = rf"^{_DATE}(?:{_TIME})?$"
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
        """The instants of a text column in the shop's local time, null where they cannot be read.

        A zone after the time is dropped, not converted: periods are made of the shop's days.
        """
        local = _remove_zone(text) if self.has_zone else text
        tried = [local.str.to_datetime(form, strict=False, time_unit="us", exact=True) for form in self.formats]
        return in_range(pl.coalesce(tried))


def _remove_zone(text: pl.Expr) -> pl.Expr:
    return text.str.replace(_ZONE_AFTER_TIME, "$1")


def in_range(instants: pl.Expr) -> pl.Expr:
    """The instants within ``YEARS``, the others null."""
    return pl.when(instants.dt.year().is_between(*YEARS)).then(instants)


def recognise_dates(texts: pl.DataFrame, date_format: str | None, where: str) -> DateReading:
    """Recognise how to read the texts of a date column.

    Args:
        texts: the different texts of the column, ``text``, and how many rows have each, ``n``.
        date_format: the format in the settings, which is then used.
        where: file and column, for the messages.

    Raises:
        BadInputError: the format is unknown, does not fit most rows, or does not tell days from months.
    """
    formats = _check_format(date_format, where) if date_format else _recognise_formats(texts, where)
    # The zone stays where the format itself reads it.
    has_zone = "%z" not in "".join(formats) and bool(texts["text"].str.contains(_ZONE_AFTER_TIME).any())
    reading = DateReading(formats, has_zone)
    unreadable = texts.filter(reading.instants(pl.col("text")).is_null())
    if unreadable["n"].sum() * 2 > texts["n"].sum():
        raise _unknown_error(unreadable, f"dates like {' or '.join(reading.formats[:2])}", where)
    return reading


def _check_format(date_format: str, where: str) -> tuple[str, ...]:
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


def _recognise_formats(texts: pl.DataFrame, where: str) -> tuple[str, ...]:
    dates = (
        texts.select("text", "n", _remove_zone(pl.col("text")).str.extract_groups(_DATE_AND_TIME).alias("parts"))
        .unnest("parts")
        .filter(pl.col("separator") == pl.col("separator_2"))
        .with_columns(_family().alias("family"))
        .filter(pl.col("family").is_not_null())
    )
    if dates.is_empty():
        raise _unknown_error(
            texts, "dates like 2011-06-17, 2011/06/17, 17.06.2011 or 6/17/2011, with or without a time", where
        )
    # One column, one style: a workbook that mixes two has read some dates with day and month swapped, so the rarer
    # style becomes null.
    totals = dates.group_by("family").agg(pl.col("n").sum()).sort("n", "family", descending=[True, False])
    family = totals["family"][0]
    dates = dates.filter(pl.col("family") == family)
    if family == _SHORT_DASHED:
        reason = "may start with the year, the day or the month"
        raise _ambiguous_error(dates["text"].min(), reason, '"%y-%m-%d", "%d-%m-%y" or "%m-%d-%y"', where)
    order = {_YEAR_FIRST: "Ymd", _DOTTED: "dmY"}.get(family) or _find_order(dates, where)
    return _formats(dates, order)


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


def _find_order(dates: pl.DataFrame, where: str) -> str:
    """``dmY`` or ``mdY``, from a value that fits only one of them."""
    first, second = (dates.filter(pl.col(part).cast(pl.Int64).is_between(13, 31)) for part in "ab")
    if first.height and second.height:
        clash = f"is month first, but {first['text'].min()!r} is day first"
        raise _ambiguous_error(second["text"].min(), clash, '"%m/%d/%Y" or "%d/%m/%Y"', where)
    if not first.height and not second.height:
        reason = "may be day first or month first, and no row proves either"
        raise _ambiguous_error(dates["text"].min(), reason, '"%m/%d/%Y" or "%d/%m/%Y"', where)
    return "dmY" if first.height else "mdY"


def _formats(dates: pl.DataFrame, order: str) -> tuple[str, ...]:
    """One ``strptime`` format for each style of the texts."""
    parts = ["separator", "short", "gap", "has_seconds", "half_gap", "half"]
    ways = dates.select(
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


def _ambiguous_error(example: object, reason: str, formats: str, where: str) -> BadInputError:
    return BadInputError(
        f"{where} is ambiguous: {example!r} {reason}",
        "dates that can only be read one way",
        f"Set [source] date_format = {formats}.",
    )


def _unknown_error(texts: pl.DataFrame, expected: str, where: str) -> BadInputError:
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
