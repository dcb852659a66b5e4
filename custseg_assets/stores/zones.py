"""Zones of a source's times: the zone that a text ends with, and the clock that tells on which day an instant is.

An order belongs to the shop's day. A zone that says the shop's own offset is left out; an instant in UTC is on
another day in many a shop, so it is converted (``[source] time_zone``), or it is said that it was not.
"""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import polars as pl

from custseg_assets.errors import BadInputError

_ZONE = r"(?:Z|(?:UTC|GMT)[+-]\d{1,2}(?::?\d{2})?|[+-]\d{2}(?::?\d{2})?|UTC|GMT|MSK|[A-Z]{1,4}T)"
_ENDS_WITH_ZONE = (
    r"^(?<local>.*(?::\d{2}(?:\.\d+)?(?:\s?[AaPp]\.?[Mm]\.?)?|T\d{4,6}))"
    rf" ?\(?(?<zone>{_ZONE})\)?(?:\[[A-Za-z_/]+\])?$"
)
_UTC = ("Z", "UTC", "GMT")
_UTC_NAMES = (*_UTC, "Etc/UTC", "Etc/GMT", "Etc/UCT", "Etc/Zulu", "UCT", "Zulu", "Etc/Universal", "Universal", "+00:00")
_BRITISH = frozenset({"GMT", "BST"})
_SUMMER_MINUTES = 60
"""Offsets of one place are so far apart at most."""

_IN_UTC = (
    'in UTC, and so are its days; where the shop is elsewhere, write time_zone under [source], such as "Europe/Berlin"'
)


def split_zones(texts: pl.DataFrame) -> pl.DataFrame:
    """Add ``local``, the text without its zone, ``zone`` and ``offset``, its minutes from UTC, null for a mere name."""
    text = pl.col("text")
    if not texts["text"].str.contains(_ENDS_WITH_ZONE).any():
        return texts.with_columns(
            text.alias("local"), pl.lit(None, pl.String).alias("zone"), pl.lit(None, pl.Int64).alias("offset")
        )
    split = texts.with_columns(text.str.extract_groups(_ENDS_WITH_ZONE).alias("parts")).unnest("parts")
    numbers = pl.col("zone").str.extract_groups(r"(?<sign>[+-])(?<hours>\d{1,2}):?(?<minutes>\d{2})?$").struct
    hours, minutes = (numbers.field(name).cast(pl.Int64) for name in ("hours", "minutes"))
    sign = pl.when(numbers.field("sign") == "-").then(-1).otherwise(1)
    return split.with_columns(
        pl.coalesce("local", "text").alias("local"),
        pl.when(pl.col("zone").is_in(_UTC))
        .then(0)
        .otherwise(sign * (hours * 60 + minutes.fill_null(0)))
        .alias("offset"),
    )


def remove_zone_directive(date_format: str) -> str:
    """A ``strptime`` format without the zone at its end, which is read apart from it.

    >>> remove_zone_directive("%Y-%m-%d %H:%M:%S %z"), remove_zone_directive("%Y-%m-%dT%H:%M:%SZ")
    ('%Y-%m-%d %H:%M:%S', '%Y-%m-%dT%H:%M:%S')
    """
    without = re.sub(r" ?(?:%:{0,3}#?z|%Z)$", "", date_format)
    return re.sub(rf"(?<=[SMTRpf]) ?{_ZONE}$", "", without)


def put_on_clock(dates: pl.DataFrame, time_zone: str | None, where: str) -> tuple[pl.DataFrame, str]:
    """The dates with ``value`` on the shop's clock, and what was decided in words, ``""`` without zones.

    Args:
        dates: ``value`` as the text has it, ``n`` rows, ``zone`` and ``offset``.
        time_zone: that of the settings.
        where: file and column, for the messages.

    Raises:
        BadInputError: the zones are of several places, or are names that ``time_zone`` does not have.
    """
    zoned = dates.filter(pl.col("zone").is_not_null() & pl.col("value").is_not_null())
    if zoned.is_empty():
        return dates, ""
    counts = dict(zoned.group_by("zone").agg(pl.col("n").sum()).sort("n", "zone", descending=[True, False]).iter_rows())
    if time_zone is None:
        return dates, _describe_clock(zoned, counts, where)
    named = set(zoned.filter(pl.col("offset").is_null())["zone"])
    if not named <= _names_of(time_zone):
        raise BadInputError(
            f"{where} has times in {_list_zones(counts)}, but [source] time_zone = {time_zone!r}",
            "zones as numbers, such as +02:00, or by the names that this zone has",
            "Export the times in UTC, or correct time_zone.",
        )
    value = to_clock(pl.col("value"), pl.col("offset"), time_zone)
    return dates.with_columns(value.alias("value")), f"converted to {time_zone}"


def to_clock(value: pl.Expr, offset: pl.Expr, time_zone: str | None) -> pl.Expr:
    """Instants that are ``offset`` minutes from UTC on the clock of a zone; without either they stay."""
    if time_zone is None:
        return value
    in_utc = (value - pl.duration(minutes=offset)).dt.replace_time_zone("UTC")
    return pl.coalesce(in_utc.dt.convert_time_zone(time_zone).dt.replace_time_zone(None), value)


def clock_of_type(dtype: pl.DataType, time_zone: str | None) -> tuple[str | None, str]:
    """The zone that instants of a type are converted to, ``None`` if to none, and what was decided in words."""
    own = dtype.time_zone if isinstance(dtype, pl.Datetime) else None
    if own is None:
        return None, ""
    if time_zone is None:
        return None, _IN_UTC if own in _UTC_NAMES else f"on the clock of {own}"
    return time_zone, f"converted from {own} to {time_zone}"


def _describe_clock(zoned: pl.DataFrame, counts: dict[str, int], where: str) -> str:
    offsets = zoned["offset"]
    if offsets.eq_missing(0).all():
        return _IN_UTC
    names = set(counts)
    is_one_place = (
        len({re.sub("[SD]T$", "T", name) for name in names}) == 1 or names <= _BRITISH
        if offsets.null_count()
        else offsets.max() - offsets.min() <= _SUMMER_MINUTES  # type: ignore[operator]  # of numbers
    )
    if not is_one_place:
        raise BadInputError(
            f"{where} has times in several zones: {_list_zones(counts)}",
            "times on one clock, because an order belongs to the shop's day",
            'Write the shop\'s zone under [source], such as time_zone = "Europe/Berlin".',
        )
    return f"on the clock of its zone, {' and '.join(list(counts)[:2])}"


def _list_zones(counts: dict[str, int]) -> str:
    shown = [f"{zone} ({n:,})" for zone, n in list(counts.items())[:4]]
    return ", ".join([*shown, *(["…"] if len(counts) > len(shown) else [])])


def _names_of(time_zone: str) -> set[str | None]:
    zone = ZoneInfo(time_zone)
    return {datetime(year, month, 1, tzinfo=zone).tzname() for year in range(1990, 2038) for month in (1, 4, 7, 10)}
