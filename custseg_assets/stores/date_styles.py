"""Styles of dates: what a text looks like, and every way in which its style may be read.

Which way a column is read is decided in ``dates``; zones are in ``zones``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

YEARS = (1970, 2099)
"""Dates outside these years are typing errors or mean "never"; one of them would make thousands of periods."""

_COUNTED_YEARS = (1990, 2099)
"""A number outside these years is more likely no date."""

_MARK = r"(?:[-/]|\. ?)"
_YEAR_OR_LESS = r"\d{4}|\d{1,2}"
_TIME = (
    r"(?<gap>T|,? {1,2})(?<hour>\d{1,2}):(?<minute>\d{2})(?::(?<second>\d{2})(?:\.(?<fraction>\d{1,9}))?)?"
    r"(?:(?<half_gap>\s?)(?<half>[AaPp])\.?[Mm]\.?)?"
)
_NUMBERS = rf"^(?<a>{_YEAR_OR_LESS})(?<mark>{_MARK})(?<b>\d{{1,2}})(?<mark_2>{_MARK})(?<c>{_YEAR_OR_LESS})(?:{_TIME})?$"
_NAME = r"(?<b>\p{Alphabetic}{3,9})\.?"
_WEEKDAY = r"(?:\p{Alphabetic}{3,9},? )?"
_NAME_SECOND = (
    rf"^{_WEEKDAY}(?<a>{_YEAR_OR_LESS})(?<mark>[-/ ]|\. ?){_NAME}(?:[-/ ]|, )(?<c>{_YEAR_OR_LESS})(?:{_TIME})?$"
)
_NAME_FIRST = rf"^{_WEEKDAY}{_NAME}(?<mark> )(?<a>\d{{1,2}}),? (?<c>\d{{4}}|\d{{2}})(?:{_TIME})?$"
_DIGITS = r"^(?<digits>\d{6,19})(?:\.0+)?$"
_DIGITS_AND_FRACTION = r"^(?<digits>\d{5}(?:\.\d+)?|\d{9,10}\.\d+)$"
_DIGITS_AND_TIME = rf"^(?<digits>\d{{8}}|\d{{6}}){_TIME}$"
_DIGITS_T_DIGITS = r"^(?<digits>\d{8})(?<mark>T)(?<more>\d{4}(?:\d{2})?)$"

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAMES = (
    r"^(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)$"
)

YEAR_FIRST = "year first"
_BY_NAME, _YEAR_THEN_NAME, _SHORT_BY_NAME, _NAME_THEN_DAY = (
    "day, name of the month, year",
    "year, name of the month, day",
    "name of the month between two digits each",
    "name of the month, day, year",
)
_FULL, _SHORT = "four-digit year last", "two-digit year"
_TIME_PARTS = ("gap", "hour", "minute", "second", "fraction", "half_gap", "half")
_COLUMNS = ("a", "b", "c", "mark", "mark_2", "digits", "more", *_TIME_PARTS)

_FIRST = {"d": "day first", "m": "month first", "Y": YEAR_FIRST, "y": YEAR_FIRST}

_COUNTED: dict[str, tuple[float, float, str]] = {
    "seconds": (0, 1e6, "seconds since 1970"),
    "milliseconds": (0, 1e3, "milliseconds since 1970"),
    "microseconds": (0, 1, "microseconds since 1970"),
    "nanoseconds": (0, 1e-3, "nanoseconds since 1970"),
    "excel": (25_569, 86_400e6, "Excel's day numbers"),
    "excel-1904": (24_107, 86_400e6, "Excel's day numbers since 1904"),
}
"""Unit → its number at the start of 1970, its microseconds, its words."""

COUNTED_UNITS = tuple(_COUNTED)

_OF_DIGITS: dict[int, tuple[str, ...]] = {
    5: ("excel",),
    6: ("%y%m%d", "%d%m%y", "%m%d%y"),
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
    9: ("seconds",),
    10: ("seconds", "%Y%m%d%H", "%d%m%Y%H", "%m%d%Y%H", "%y%m%d%H%M", "%d%m%y%H%M", "%m%d%y%H%M"),
    12: ("%Y%m%d%H%M", "%d%m%Y%H%M", "%m%d%Y%H%M", "%y%m%d%H%M%S", "%d%m%y%H%M%S", "%m%d%y%H%M%S"),
    13: ("milliseconds",),
    14: ("%Y%m%d%H%M%S", "%d%m%Y%H%M%S", "%m%d%Y%H%M%S"),
    16: ("microseconds",),
    19: ("nanoseconds",),
}
"""Number of digits → what they may be."""


_N_FORMATS = 12
"""With more formats than these, trying one after the other is no faster than a table of the texts."""


@dataclass(frozen=True)
class Candidate:
    """A way to read the texts of a style.

    Attributes:
        line: what to set ``date_format`` to for it.
        words: what it is, for people.
        value: the instants on the clock of the text, null where a text does not fit.
    """

    line: str
    words: str
    value: pl.Expr


def find_styles(texts: pl.DataFrame) -> pl.DataFrame:
    """Add to texts that look like dates their ``style``, parts and ``time`` of day; the others are left out.

    Args:
        texts: has ``local``, the text without its zone.
    """
    shapes: tuple[tuple[str, Callable[[], pl.Expr]], ...] = (
        (_NUMBERS, _style_of_numbers),
        (_DIGITS, _style_of_digits),
        (_DIGITS_AND_FRACTION, _style_of_digits),
        (_DIGITS_AND_TIME, lambda: pl.concat_str(_style_of_digits(), pl.lit(" and a time"))),
        (_DIGITS_T_DIGITS, _style_of_digits),
        (_NAME_SECOND, _style_of_names),
        (_NAME_FIRST, lambda: pl.lit(_NAME_THEN_DAY)),
    )
    found, rest = [], texts
    for shape, style in shapes:
        fits = pl.col("local").str.contains(shape)
        parts = rest.filter(fits).with_columns(pl.col("local").str.extract_groups(shape).alias("parts")).unnest("parts")
        absent = [pl.lit(None, pl.String).alias(name) for name in _COLUMNS if name not in parts.columns]
        parts = parts.with_columns(absent).with_columns(pl.concat_str("digits", pl.col("more").fill_null("")))
        found.append(parts.with_columns(style().alias("style")).select(*texts.columns, "style", *_COLUMNS))
        rest = rest.filter(~fits)
        if rest.is_empty():
            break
    dates = pl.concat(found).filter(pl.col("style").is_not_null()).with_columns(_number_of_month(), _time_of_day())
    return _join_short_years(dates)


def _style_of_numbers() -> pl.Expr:
    n_a, n_c = pl.col("a").str.len_chars(), pl.col("c").str.len_chars()
    mark = pl.col("mark").str.strip_chars_end()
    return pl.when(pl.col("mark") == pl.col("mark_2")).then(
        pl.when((n_a == 4) & (n_c <= 2))
        .then(pl.lit(YEAR_FIRST))
        .when((n_a <= 2) & (n_c == 4))
        .then(pl.concat_str(pl.lit(f"{_FULL}, "), mark))
        .when((n_a <= 2) & (n_c <= 2))
        .then(pl.concat_str(pl.lit(f"{_SHORT}, "), mark))
    )


def _style_of_digits() -> pl.Expr:
    whole = pl.col("digits").str.extract(r"^(\d+)").str.len_chars()
    # Seconds had nine digits until 2001.
    return pl.concat_str(pl.when(whole == 9).then(10).otherwise(whole), pl.lit(" digits"))


def _style_of_names() -> pl.Expr:
    n_a, n_c = pl.col("a").str.len_chars(), pl.col("c").str.len_chars()
    return (
        pl.when((n_a == 4) & (n_c <= 2))
        .then(pl.lit(_YEAR_THEN_NAME))
        .when((n_a <= 2) & (n_c == 4))
        .then(pl.lit(_BY_NAME))
        .when((n_a <= 2) & (n_c <= 2))
        .then(pl.lit(_SHORT_BY_NAME))
    )


def _number_of_month() -> pl.Expr:
    """``b`` with the number of a month instead of its name; another name becomes null."""
    name = pl.col("b")
    number = name.str.slice(0, 3).str.to_lowercase().replace_strict(_MONTHS, range(1, 13), default=None)
    return (
        pl.when(name.str.contains(r"^\d"))
        .then(name)
        .when(name.str.contains(_MONTH_NAMES))
        .then(number.cast(pl.String))
        .alias("b")
    )


def _time_of_day() -> pl.Expr:
    """Microseconds since midnight, 0 without a time, null for one that does not exist."""
    hour, minute, second = (pl.col(name).cast(pl.Int64).fill_null(0) for name in ("hour", "minute", "second"))
    micros = pl.concat_str("fraction", pl.lit("000000")).str.slice(0, 6).cast(pl.Int64).fill_null(0)
    half = pl.col("half").str.to_lowercase()
    exists = (minute < 60) & (second < 60) & pl.when(half.is_null()).then(hour < 24).otherwise(hour.is_between(1, 12))
    hour = pl.when(half.is_null()).then(hour).otherwise(hour % 12 + pl.when(half == "p").then(12).otherwise(0))
    return pl.when(exists).then(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros).alias("time")


def _join_short_years(dates: pl.DataFrame) -> pl.DataFrame:
    """Two-digit years last join the four-digit ones with the same mark, unless all of them may come first as well."""
    for mark in ("/", "-", "."):
        full, short = f"{_FULL}, {mark}", f"{_SHORT}, {mark}"
        others = dates.filter(pl.col("style") == short)
        if others.height and (dates["style"] == full).any() and others.select(_date_of("ymd").is_null().any()).item():
            dates = dates.with_columns(pl.col("style").replace(short, full))
    return dates


def candidates_of(style: str, dates: pl.DataFrame) -> list[Candidate]:
    """Every way in which dates of one style may be read."""
    if "digits" in style and style[0].isdigit():
        n_digits = int(style.split(maxsplit=1)[0])
        mark = dates["mark"].drop_nulls().head(1).to_list()
        return [_candidate_of_digits(form, "".join(mark)) for form in _OF_DIGITS.get(n_digits, ())]
    mark = dates["mark"][0]
    orders: Sequence[str] = {
        YEAR_FIRST: ("Ymd",),
        _BY_NAME: ("dmY",),
        _YEAR_THEN_NAME: ("Ymd",),
        _SHORT_BY_NAME: ("dmy", "ymd"),
        _NAME_THEN_DAY: ("dmY",),
    }.get(style) or (("dmY", "mdY") if style.startswith(_FULL) else ("dmy", "mdy", "ymd"))
    has_name = style in (_BY_NAME, _YEAR_THEN_NAME, _SHORT_BY_NAME, _NAME_THEN_DAY)
    return [
        Candidate(
            mark.join(f"%{part}" for part in (order.replace("m", "b") if has_name else order)),
            "the month by its name" if has_name and style != _SHORT_BY_NAME else _FIRST[order[0]],
            in_range(_date_of(order) + pl.duration(microseconds="time")),
        )
        for order in orders
    ]


def _date_of(order: str) -> pl.Expr:
    """The date that parts in an order make, null where there is no such date; a year has two digits or four."""
    part = {kind: pl.col(column) for kind, column in zip(order.lower(), "abc", strict=True)}
    year = part["y"]
    n_digits = year.str.len_chars()
    # As strptime has it: 69 to 99 are in the last century.
    short = pl.when(year.cast(pl.Int64) < 69).then(pl.lit("20")).otherwise(pl.lit("19"))
    full = pl.when(n_digits == 4).then(year).when(n_digits == 2).then(pl.concat_str(short, year))
    text = pl.concat_str(full, part["m"].str.zfill(2), part["d"].str.zfill(2), separator="-")
    return text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))


def _candidate_of_digits(form: str, mark: str) -> Candidate:
    digits = pl.col("digits")
    if form in _COUNTED:
        return Candidate(form, _COUNTED[form][2], counted(digits, form))
    # Polars reads no hour without a minute.
    has_hour_only = form.endswith("%H")
    whole = pl.concat_str(digits, pl.lit("00")) if has_hour_only else digits
    instants = whole.str.to_datetime(form + ("%M" if has_hour_only else ""), strict=False, time_unit="us", exact=True)
    line = form.replace("%H", f"{mark}%H")
    return Candidate(line, f"as {line}", in_range(instants + pl.duration(microseconds="time")))


def counted(numbers: pl.Expr, unit: str) -> pl.Expr:
    """Instants of texts that count one of ``COUNTED_UNITS``."""
    zero, micros, _ = _COUNTED[unit]
    since = (numbers.cast(pl.Float64, strict=False) - zero) * micros
    # A fraction of a day is never exact.
    rounded = (since / 1e6).round() * 1e6 if unit.startswith("excel") else since.round()
    instants = rounded.cast(pl.Int64, strict=False).cast(pl.Datetime("us"))
    return pl.when(instants.dt.year().is_between(*_COUNTED_YEARS)).then(instants)


def offset_of_unit(unit: str) -> int | None:
    """Minutes from UTC of what a unit counts; Excel's days are those of the shop."""
    return None if unit.startswith("excel") else 0


def split_time(texts: pl.DataFrame) -> pl.DataFrame:
    """Add ``date``, the text without zone and time, and ``time``, the microseconds since midnight."""
    parts = texts.with_columns(pl.col("local").str.extract_groups(rf"^(?<date>.*?)(?:{_TIME})?$").alias("parts"))
    return parts.unnest("parts").with_columns(_time_of_day())


def direct_formats(dates: pl.DataFrame, line: str) -> list[tuple[str, int | None]]:
    """The ``strptime`` formats of dates between marks, each with its offset from UTC; ``[]`` if they are many.

    Args:
        dates: of one style, from ``find_styles``.
        line: of the candidate that is chosen.
    """
    order = re.findall("%([dmYy])", line)
    if dates["mark_2"].null_count() or len(order) != 3:
        return []
    year = pl.col("abc"[[part.lower() for part in order].index("y")])
    ways = dates.select(
        "mark",
        (year.str.len_chars() == 2).alias("is_short"),
        *("gap", pl.col("second").is_not_null().alias("has_second"), pl.col("half").is_not_null().alias("has_half")),
        *("half_gap", pl.col("text").str.slice(pl.col("local").str.len_chars()).alias("end"), "offset"),
    ).unique(maintain_order=True)
    if ways.height > _N_FORMATS:
        return []
    formats = []
    for mark, is_short, gap, has_second, has_half, half_gap, end, offset in ways.iter_rows():
        date = mark.join(f"%{part}" for part in order)
        date = re.sub("%[Yy]", "%y" if is_short else "%Y", date)
        time = ("%I" if has_half else "%H") + ":%M" + (":%S%.f" if has_second else "")
        half = f"{half_gap}%p" if has_half else ""
        formats.append((f"{date}{gap}{time}{half}{end}" if gap else date, offset))
    return formats


def in_range(instants: pl.Expr) -> pl.Expr:
    """The instants within ``YEARS``, the others null."""
    return pl.when(instants.dt.year().is_between(*YEARS)).then(instants)
