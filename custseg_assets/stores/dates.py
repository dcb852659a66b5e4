"""Dates of a source: how a column writes them is decided from all its values, and never guessed.

A column is read in the one way that fits it. Where several fit, it is refused with what each would make of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.date_styles import (
    COUNTED_UNITS,
    YEAR_FIRST,
    Candidate,
    candidates_of,
    counted,
    direct_formats,
    find_styles,
    in_range,
    offset_of_unit,
    split_time,
)
from custseg_assets.stores.lookups import LARGE_TABLE, look_up
from custseg_assets.stores.zones import clock_of_type, put_on_clock, remove_zone_directive, split_zones, to_clock

_FEW, _N_SLIPS = 0.01, 3
"""The share of the values that prove something, and the number of rows, that may be slips and prove nothing."""

_N_YEARS_LIKELY, _N_YEARS_UNLIKELY = 10, 28
"""Lines in so many years. The days of a month are 28 to 31 numbers: taken for years, they make a log of all years from
2001 to 2028 and beyond, with lines on the same few days, or in the same few months, of each."""

_SECONDS = "%s"
_USUAL_FORMS = "dates like 2011-06-17, 2011/06/17, 17.06.2011 or 6/17/2011, with or without a time"


_TIMES_TO_TRY = ("", " %H:%M:%S%.f", " %H:%M", "T%H:%M:%S%.f", "T%H:%M", " %I:%M:%S %p", " %I:%M %p")

_Instants = Callable[[pl.Expr], pl.Expr]


@dataclass(frozen=True)
class DateReading:
    """How a column becomes instants.

    Attributes:
        instants: the instants of a column on the shop's clock, null where they cannot be read.
        convention: what was decided, in words; ``""`` for plain ISO dates and naive instants.
    """

    instants: _Instants
    convention: str


def read_instants(dtype: pl.DataType, time_zone: str | None) -> DateReading:
    """How to read a column that has instants, not texts."""
    convert_to, convention = clock_of_type(dtype, time_zone)

    def instants(values: pl.Expr) -> pl.Expr:
        on_clock = values.dt.convert_time_zone(convert_to) if convert_to else values
        return in_range(on_clock.dt.replace_time_zone(None))

    return DateReading(instants, convention)


def recognise_dates(texts: pl.DataFrame, settings: SourceSettings, where: str) -> DateReading:
    """Recognise how to read the texts of a date column.

    Args:
        texts: the different texts of the column, ``text``, and how many rows have each, ``n``.
        settings: the format, if it is set, the shop's zone, and how much may be unreadable.
        where: file and column, for the messages.

    Raises:
        BadInputError: the format is unknown, does not fit most rows, or several fit; the dates are written in several
            forms or zones.
    """
    if settings.date_format is None and (formats := _plain_formats(texts)):
        direct: _Instants = functools.partial(_parse, formats, None)
        plain = texts.select("text", direct(pl.col("text")).alias("value"))
        if not plain["value"].has_nulls():
            return DateReading(_choose_way(plain, direct), "")
    zoned = split_zones(texts)
    if settings.date_format:
        dates, words, direct = _read_as_set(zoned, settings.date_format, settings.time_zone, where)
        expected = f"dates like {settings.date_format}"
    else:
        dates, words, direct = _read_as_recognised(zoned, settings, where)
        expected = _USUAL_FORMS
    read = dates.drop_nulls("value")
    if read["n"].sum() * 2 < texts["n"].sum():
        raise _unknown_error(texts.join(read, on="text", how="anti"), expected, where)
    example = _describe_example(read, words)
    read, clock = put_on_clock(read, settings.time_zone, where)
    table = texts.select("text").join(read.select("text", in_range(pl.col("value")).alias("value")), "text", how="left")
    return DateReading(_choose_way(table, direct), ", ".join(part for part in (example, clock) if part))


def _choose_way(table: pl.DataFrame, direct: _Instants) -> _Instants:
    """The table of texts and values or, where it is large, the direct way that gives the same."""
    if table.height > LARGE_TABLE and table.select(direct(pl.col("text")).eq_missing(pl.col("value")).all()).item():
        return direct
    return functools.partial(_look_up, table.drop_nulls("value"))


def _look_up(table: pl.DataFrame, text: pl.Expr) -> pl.Expr:
    return look_up(text, table, pl.lit(None, pl.Datetime("us")))


def _parse(formats: Sequence[tuple[str, int | None]], time_zone: str | None, text: pl.Expr) -> pl.Expr:
    """Instants of texts in the first format that fits, each with its offset from UTC."""
    tried = [
        to_clock(
            in_range(text.str.to_datetime(form, strict=False, time_unit="us")), pl.lit(offset, pl.Int64), time_zone
        )
        for form, offset in formats
    ]
    return in_range(pl.coalesce([*tried, pl.lit(None, pl.Datetime("us"))]))


def _plain_formats(texts: pl.DataFrame) -> list[tuple[str, int | None]]:
    """The formats of a column that may have nothing but ISO dates without a zone, ``[]`` if it has others."""
    text = pl.col("text")
    shapes = texts.select(text.str.len_bytes().alias("length"), text.str.slice(10, 1).alias("gap")).unique()
    formats = {(10, ""): "%Y-%m-%d"}
    for gap in " T":
        formats |= {(16, gap): f"%Y-%m-%d{gap}%H:%M", (19, gap): f"%Y-%m-%d{gap}%H:%M:%S"}
    found = sorted(shapes.iter_rows())
    return [(formats[shape], None) for shape in found] if all(shape in formats for shape in found) else []


def _count(unit: str, time_zone: str | None, text: pl.Expr) -> pl.Expr:
    """Instants of texts that are numbers, on the shop's clock."""
    return in_range(to_clock(counted(text, unit), pl.lit(offset_of_unit(unit), pl.Int64), time_zone))


def _describe_example(read: pl.DataFrame, words: str) -> str:
    if not words:
        return ""
    # A day after the 12th shows what is the day.
    day = pl.col("value").dt.day()
    text, value = (
        read.filter(day == day.max()).sort("n", "text", descending=[True, False]).select("text", "value").row(0)
    )
    return f"{words}: {text!r} is {_show(value)}"


def _show(instant: datetime) -> str:
    return str(instant.date() if instant == datetime(instant.year, instant.month, instant.day) else instant)


_Read = tuple[pl.DataFrame, str, _Instants]
"""Texts with ``value`` on their own clock, what was decided in words, and a quick way that may give the same."""


def _read_as_set(texts: pl.DataFrame, date_format: str, time_zone: str | None, where: str) -> _Read:
    unit = "seconds" if date_format == _SECONDS else date_format
    if unit in COUNTED_UNITS:
        dates = texts.with_columns(counted(pl.col("local"), unit).alias("value"))
        return _mark_clock(dates, offset_of_unit(unit)), date_format, functools.partial(_count, unit, time_zone)
    form = remove_zone_directive(date_format).replace("%+", "%Y-%m-%dT%H:%M:%S%.f")
    if re.search(r"%(?::*#?z|Z)", form):
        raise _format_error(date_format, "a zone that does not end the text", where)
    has_time = re.search(r"%[HIklMSTRrXsc]", form) is not None
    column = pl.col("local" if has_time else "date")
    value = column.str.to_datetime(form, strict=False, time_unit="us", exact=True)
    try:
        dates = split_time(texts).with_columns(
            in_range(value if has_time else value + pl.duration(microseconds="time")).alias("value")
        )
    except pl.exceptions.PolarsError as error:
        raise _format_error(date_format, str(error).splitlines()[0], where) from None
    ends = texts.select(pl.col("text").str.slice(pl.col("local").str.len_chars()), "offset").unique(maintain_order=True)
    times = ("",) if has_time else _TIMES_TO_TRY
    formats = [(form + time + end, offset) for end, offset in ends.head(4).iter_rows() for time in times]
    return dates, date_format, functools.partial(_parse, formats, time_zone)


def _mark_clock(dates: pl.DataFrame, offset: int | None) -> pl.DataFrame:
    """The dates with the zone of what they count, which may be none."""
    zone = None if offset is None else "UTC"
    return dates.with_columns(pl.lit(zone, pl.String).alias("zone"), pl.lit(offset, pl.Int64).alias("offset"))


def _format_error(date_format: str, reason: str, where: str) -> BadInputError:
    return BadInputError(
        f"[source] date_format = {date_format!r}: {reason}",
        "a strptime format",
        f'Write for example "%m/%d/%Y" or "%d/%m/%Y %H:%M" for {where}.',
    )


def _read_as_recognised(texts: pl.DataFrame, settings: SourceSettings, where: str) -> _Read:
    dates = find_styles(texts)
    if dates.is_empty():
        raise _unknown_error(texts, _USUAL_FORMS, where)
    # A day and its time are of one form, an instant in a zone and one without are not.
    dates = dates.with_columns(pl.col("zone").is_not_null().alias("has_zone"))
    forms = (
        dates.group_by("style", "has_zone")
        .agg(pl.col("n").sum(), _most_frequent())
        .sort("n", "style", "has_zone", descending=[True, False, False])
    )
    n_rows = forms["n"].to_list()
    if sum(n_rows[1:]) > settings.max_unreadable_share * int(texts["n"].sum()):
        raise _mixed_error(forms, where)
    style, has_zone = forms.row(0)[:2]
    dates = dates.filter((pl.col("style") == style) & (pl.col("has_zone") == has_zone))
    chosen, values = _choose(candidates_of(style, dates), dates, where)
    if chosen is None:
        raise _unknown_error(texts, _USUAL_FORMS, where)
    dates = dates.with_columns(values[chosen.line].alias("value"))
    words = "" if style == YEAR_FIRST else chosen.words
    if chosen.line in COUNTED_UNITS:
        dates = _mark_clock(dates, offset_of_unit(chosen.line))
        return dates, words, functools.partial(_count, chosen.line, settings.time_zone)
    return dates, words, functools.partial(_parse, direct_formats(dates, chosen.line), settings.time_zone)


def _most_frequent() -> pl.Expr:
    return pl.col("text").sort_by("n", "text", descending=[True, False]).first()


def _choose(
    candidates: Sequence[Candidate], dates: pl.DataFrame, where: str
) -> tuple[Candidate | None, Mapping[str, pl.Series]]:
    """The candidate that the values prove, ``None`` where none reads anything, and what each makes of the values.

    A value that only some candidates can read proves that it is not one of the others.
    """
    values = {candidate.line: dates.select(candidate.value.alias("value")).to_series() for candidate in candidates}
    readers = [candidate for candidate in candidates if values[candidate.line].null_count() < dates.height]
    if not readers:
        return None, values
    can_read = pl.DataFrame({reader.line: values[reader.line].is_not_null() for reader in readers})
    is_proof = can_read.select(pl.any_horizontal(pl.all()) & ~pl.all_horizontal(pl.all())).to_series()
    n_against = {line: int(dates["n"].filter(is_proof & ~can_read[line]).sum()) for line in can_read.columns}
    n_few = _FEW * int(dates["n"].filter(is_proof).sum())
    fitting = [reader for reader in readers if n_against[reader.line] <= n_few]
    if not fitting:
        raise _clash_error(readers, can_read, n_against, dates, where)
    years = {reader.line: sorted(values[reader.line].dt.year().drop_nulls().unique().to_list()) for reader in readers}
    likely = [reader for reader in readers if _is_likely(years[reader.line])]
    if fitting[0] not in likely:
        # A day that does not exist must not prove that the days of the others are years.
        fitting += [r for r in likely if r not in fitting and n_against[r.line] <= _N_SLIPS]
    possible = [reader for reader in fitting if reader in likely] if len(fitting) > 1 else fitting
    n_unlikely = sum(len(years[reader.line]) >= _N_YEARS_UNLIKELY for reader in fitting if reader not in possible)
    if len(possible) != 1 or n_unlikely != len(fitting) - 1:
        raise _ambiguous_error([(reader, values[reader.line]) for reader in fitting], dates, where)
    (chosen,) = possible
    own = years[chosen.line]
    for other in readers:
        against = values[other.line].filter(~can_read[chosen.line] & can_read[other.line]).dt.year()
        # One that the other way puts far from the log is a slip.
        if against.is_between(own[0], own[-1]).any():
            raise _clash_error((chosen, other), can_read, n_against, dates, where)
    return chosen, values


def _is_likely(years: Sequence[int]) -> bool:
    return len(years) <= _N_YEARS_LIKELY and years[-1] - years[0] < len(years)


def _ambiguous_error(fitting: Sequence[tuple[Candidate, pl.Series]], dates: pl.DataFrame, where: str) -> BadInputError:
    shown = [
        f'with date_format = "{candidate.line}" it begins on {first} and ends on {last}'
        for candidate, values in fitting
        for first, last in [values.dt.date().sort().drop_nulls()[[0, -1]]]
    ]
    return BadInputError(
        f"{where} is ambiguous: {dates['text'].min()!r} may be {' or '.join(c.words for c, _ in fitting)}, and no row"
        f" proves either; {', '.join(shown)}",
        "dates that can only be read one way",
        f"Set [source] date_format = {_list_lines(candidate for candidate, _ in fitting)}.",
    )


def _clash_error(
    readers: Sequence[Candidate],
    can_read: pl.DataFrame,
    n_against: Mapping[str, int],
    dates: pl.DataFrame,
    where: str,
) -> BadInputError:
    first, second = sorted(readers, key=lambda reader: n_against[reader.line])[:2]
    shown = []
    for one, other in ((first, second), (second, first)):
        rows = dates.filter(can_read[one.line] & ~can_read[other.line])
        if rows.height:
            shown.append(f"{rows['text'].min()!r} is {one.words}, like {rows['n'].sum() - 1:,} more")
    return BadInputError(
        f"{where} is ambiguous: {', but '.join(shown)}",
        "dates that can only be read one way",
        "Export them in one form, best as 2011-06-17; a spreadsheet may have turned day and month round in some."
        f" [source] date_format = {_list_lines((first, second))} sets the others aside, as far as"
        " max_unreadable_share allows.",
    )


def _list_lines(candidates: Iterable[Candidate]) -> str:
    return " or ".join(f'"{candidate.line}"' for candidate in candidates)


def _mixed_error(forms: pl.DataFrame, where: str) -> BadInputError:
    shown = [f"{text!r} ({n:,} rows)" for text, n in forms.select("text", "n").head(3).iter_rows()]
    if forms["style"].n_unique() == 1:
        return BadInputError(
            f"{where} holds times with a zone and without: {', '.join(shown)}",
            "times on one clock, because an order belongs to the shop's day",
            "Export them all with their zone, or all without.",
        )
    return BadInputError(
        f"{where} holds dates in {len(forms)} forms: {', '.join(shown)}",
        "one form in a column",
        "A spreadsheet has probably converted the cells that it could read in its own order of day and month, so that"
        " these may be turned round in them: export the log again without opening it there, best with dates like"
        " 2011-06-17. [source] date_format sets the other forms aside, as far as max_unreadable_share allows.",
    )


def _unknown_error(texts: pl.DataFrame, expected: str, where: str) -> BadInputError:
    example = str(texts.select(_most_frequent()).item())
    return BadInputError(f"{where} holds {example!r}", expected, _advice(example))


_ADVICE: Sequence[tuple[str, str]] = (
    (r"^\d{9,10}(\.0)?$", 'If these are seconds since 1970, set [source] date_format = "seconds".'),
    (r"^\d{13}(\.0)?$", 'If these are milliseconds since 1970, set [source] date_format = "milliseconds".'),
    (r"^\d{5}(\.\d+)?$", 'If these are Excel\'s day numbers, set [source] date_format = "excel".'),
)


def _advice(example: str) -> str:
    usual = 'Set [source] date_format, for example "%d-%b-%Y".'
    return next((advice for shape, advice in _ADVICE if re.match(shape, example)), usual)
