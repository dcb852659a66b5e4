"""Values of a source: raw columns become numbers, instants and ids; an unreadable value is null and keeps its text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from custseg_assets.domain.schemas import MAPPED, MAPPED_NAMES, READ_NAMES
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.amounts import refuse_unequal_amounts, settle_amounts
from custseg_assets.stores.columns import ColumnMapping, key_column
from custseg_assets.stores.customers import CustomerReading, recognise_customers
from custseg_assets.stores.date_styles import YEARS
from custseg_assets.stores.dates import DateReading, read_instants, recognise_dates
from custseg_assets.stores.exclusion import EXCLUDED_BY, describe_filters, exclude_lines, take_back
from custseg_assets.stores.limits import measure_sizes, set_impossible_aside
from custseg_assets.stores.numbers import NumberReading, may_be_grouped, plain_number, recognise_numbers
from custseg_assets.stores.orders import complete_orders
from custseg_assets.stores.raw_table import SOURCE_ROW, SURPLUS, non_empty
from custseg_assets.stores.unreadable import UNREADABLE, keep_days_near, refuse_unreadable, says_something

_IDS = ("invoice_id", "product_id")
NUMBERS = ("quantity", "unit_price", "line_amount", "order_amount", "refunded_amount")
_MONEY = NUMBERS[1:]
_INSTANT = "invoiced_at"
_UNDATED = pl.col(_INSTANT).is_null()
"""Below a report may stand its totals or its number of records, which say nothing of what ids are like."""
_LACKING = "lacks amounts"
_FLOAT_ENDING = ".0"
_FLOAT_LIKE = r"^\d+\.0$"


def plain_columns(
    schema: pl.Schema,
    positions: Mapping[str, Sequence[str]],
    where: str,
    alternatives: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[pl.Expr]:
    """The columns that are read of a raw table as trimmed text, numbers or instants, by their own names.

    Args:
        schema: of the raw table.
        positions: name → columns of the raw table; the texts of several are joined.
        where: the file, for the messages.
        alternatives: names of whose columns the first counts that is not empty, with texts, in lower case, that are as
            good as empty; of the last column they stay.

    Raises:
        BadInputError: a column has something else than plain values, such as lists.
    """
    plain = [
        _plain(name, columns[0], schema[columns[0]], where).alias(name)
        if len(columns) == 1
        else _combined(name, columns, schema, where, alternatives.get(name))
        for name, columns in positions.items()
    ]
    surplus = pl.col(SURPLUS) if SURPLUS in schema else pl.lit(None, pl.String).alias(SURPLUS)
    return [*plain, surplus, pl.col(SOURCE_ROW).cast(pl.Int64)]


def _combined(
    name: str, columns: Sequence[str], schema: pl.Schema, where: str, nothing: Sequence[str] | None
) -> pl.Expr:
    parts = [_plain(f"a part of {name}", column, schema[column], where) for column in columns]
    if nothing is not None:
        says = [pl.when(~part.str.to_lowercase().is_in(nothing)).then(part) for part in parts[:-1]]
        return pl.coalesce(*(non_empty(part) for part in (*says, parts[-1]))).alias(name)
    return non_empty(pl.concat_str(parts, separator=" ", ignore_nulls=True).str.strip_chars()).alias(name)


def _plain(name: str, column: str, dtype: pl.DataType, where: str) -> pl.Expr:
    values = pl.col(column)
    if isinstance(dtype, pl.Datetime | pl.Date) and name == _INSTANT:
        return values.cast(pl.Datetime("us", dtype.time_zone if isinstance(dtype, pl.Datetime) else None))
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise BadInputError(f"{where} holds {dtype} values for {name}", "plain values", "Export that column as text.")
    if dtype.is_numeric() and name in NUMBERS:
        return values.cast(pl.Float64)
    if dtype.is_float() or dtype.is_decimal():
        values = values.cast(pl.Float64).fill_nan(None)
    return values.cast(pl.String).str.strip_chars()


@dataclass(frozen=True)
class _Facts:
    """Facts about whole columns that are needed to read single values.

    Attributes:
        n_rows: data rows.
        n_surplus: rows with more fields than the header.
        odd_numbers: number columns with values that are more than plain numbers, or may be.
        float_like: id columns in which every value looks like ``17850.0``.
        lacks_amounts: whether some lines have no line amount, although others have.
        sizes: of the plain numbers; see ``limits.measure_sizes``.
    """

    n_rows: int
    n_surplus: int
    odd_numbers: tuple[str, ...]
    float_like: frozenset[str]
    lacks_amounts: bool
    sizes: Mapping[str, float]


@dataclass(frozen=True)
class TypedLines:
    """The typed lines of a file.

    Attributes:
        lines: exactly the mapped columns, ``unreadable_values``, ``excluded_by`` and ``source_row``; empty rows are
            left out.
        conventions: mapped column → how its values are written, where that is unusual.
        notes: what was decided about lines and customers, in sentences.
    """

    lines: pl.LazyFrame
    conventions: dict[str, str]
    notes: tuple[str, ...]


def type_lines(
    plain: pl.LazyFrame, mapping: ColumnMapping, settings: SourceSettings, where: str, also: Sequence[str] = ()
) -> TypedLines:
    """Turn the text of a file's columns into numbers, instants and ids.

    Args:
        plain: what ``plain_columns`` selected.
        mapping: where the columns come from.
        settings: decimal mark, date format and how much may be unreadable.
        where: the file, for the messages.
        also: further columns of ``plain``, which are passed on.

    Raises:
        BadInputError: there are no rows, a column is ambiguous, or too many of its values cannot be read.
    """
    names = list(mapping.headers)
    lines, facts, pairs = _usable_lines(plain, names, settings, where)
    lines, filled_in = complete_orders(lines, mapping, where)
    settings = _with_known_dates(lines, mapping, settings)
    dates, n_undated = _read_dates(lines, settings, f"{where}, column {mapping.columns[_INSTANT]!r}")
    instants = dates.instants(pl.col(_INSTANT))
    if mapping.invoice_key:
        lines = lines.with_columns(_order_key(mapping, instants))
    lines = exclude_lines(lines, mapping)
    refuse_unequal_amounts(lines, mapping, where)
    notes = [*filled_in, *describe_filters(lines, mapping, where)]
    numbers = {name: _read_numbers(lines, name, mapping, settings, where) for name in facts.odd_numbers}
    customers = recognise_customers(lines, settings, f"{where}, column {mapping.columns['customer_id']!r}")
    typed = {name: pl.col(name).str.strip_suffix(_FLOAT_ENDING) for name in facts.float_like}
    typed |= {name: plain_number(pl.col(name)) for name in names if name in NUMBERS}
    typed |= {name: reading.numbers(pl.col(name)) for name, reading in numbers.items()}
    typed |= {_INSTANT: instants, "customer_id": customers.ids}
    amounts = {name: typed[name] for name in NUMBERS if name in typed}
    sizes = None if facts.odd_numbers or mapping.filters else facts.sizes
    counted = lines.filter(pl.col(EXCLUDED_BY).is_null())
    aside = set_impossible_aside(counted, amounts, mapping, settings.max_line_amount, where, sizes)
    typed |= aside.numbers
    unread = {*numbers, *aside.numbers}
    if mapping.refunds:
        typed |= take_back({name: typed[name] for name in NUMBERS if name in typed}, mapping)
    unread |= {_INSTANT} if n_undated else set()
    unread |= {"customer_id"} if customers.n_rounded else set()
    pairs += [
        pl.when(typed[name].is_null()).then(_json_pair(name, pl.col(name).cast(pl.String))) for name in sorted(unread)
    ]
    typed |= _without_lost_amounts(typed, unread)
    absent = {column.name: pl.lit(None, column.dtype) for column in MAPPED if column.name not in names}
    columns = {name: pl.col(name) for name in names} | typed | absent
    own = [name for name in READ_NAMES if name in names]
    lines = lines.select(
        *(columns[name].alias(name) for name in (*MAPPED_NAMES, *own)),
        _json_object(pairs).alias(UNREADABLE),
        EXCLUDED_BY,
        SOURCE_ROW,
        *also,
    )
    if own or facts.lacks_amounts:
        lines, said = settle_amounts(lines, mapping, settings, where)
        lines, notes = lines.drop(own), [*notes, *said]
    if mapping.filters:
        lines = keep_days_near(lines)
    if pairs:
        refuse_unreadable(lines, mapping, settings.max_unreadable_share, where)
    said_aside = (f"{where}: {aside.words}",) if aside.words else ()
    conventions = _conventions({**numbers, _INSTANT: dates, "customer_id": customers})
    return TypedLines(lines, conventions, (*notes, *customers.notes, *said_aside))


def _usable_lines(
    plain: pl.LazyFrame, names: list[str], settings: SourceSettings, where: str
) -> tuple[pl.LazyFrame, _Facts, list[pl.Expr]]:
    """The lines that are not empty, facts about them, and the texts of rows with more fields than the header."""
    lines = plain.filter(pl.any_horizontal(pl.col(*names, SURPLUS).is_not_null()))
    facts = _measure(lines, names, settings.decimal)
    if not facts.n_rows:
        raise BadInputError(f"{where} has a header and no data", "data rows", "Export it again with its rows.")
    if not facts.n_surplus:
        return lines, facts, []
    _refuse_surplus(facts, where)
    lines, pairs = _set_surplus_aside(lines, names)
    return lines, _measure(lines, names, settings.decimal), pairs


def _conventions(readings: Mapping[str, NumberReading | DateReading | CustomerReading]) -> dict[str, str]:
    return {name: reading.convention for name, reading in readings.items() if reading.convention}


def _without_lost_amounts(typed: Mapping[str, pl.Expr], unread: Collection[str]) -> dict[str, pl.Expr]:
    """What a line is worth, null where its amount or what was given back of it is there and cannot be read.

    Nothing else may stand for it: neither quantity times price for an amount nor nought for a refund.
    """
    lost = [name for name in ("line_amount", "refunded_amount") if name in unread]
    if not lost:
        return {}
    is_lost = pl.any_horizontal(typed[name].is_null() & says_something(pl.col(name).cast(pl.String)) for name in lost)
    return {name: pl.when(~is_lost).then(typed[name]) for name in ("line_amount", "unit_price") if name in typed}


def _order_key(mapping: ColumnMapping, instants: pl.Expr) -> pl.Expr:
    """The id of a line's order from its parts; the last comes first, so that a cancellation's mark stays in front."""
    days = mapping.headers[_INSTANT]
    texts = {i: pl.col(key_column(i)) for i, header in enumerate(mapping.invoice_key) if header not in days}
    parts = [texts.get(i, instants.dt.date().cast(pl.String)) for i in range(len(mapping.invoice_key))]
    key = pl.concat_str([part.fill_null("") for part in reversed(parts)], separator=" ")
    return pl.when(pl.any_horizontal(text.is_not_null() for text in texts.values())).then(key).alias("invoice_id")


def _measure(lines: pl.LazyFrame, names: list[str], decimal: str | None) -> _Facts:
    schema = lines.collect_schema()
    numbers, ids = ([name for name in names if name in group] for group in (NUMBERS, _IDS))
    plain = {name: pl.col(f"{name} as number") for name in numbers}
    # A step of its own: every aggregate would read the text of its numbers again.
    lines = lines.with_columns(plain_number(pl.col(name)).alias(f"{name} as number") for name in numbers)
    aggregates = [pl.len().alias("n_rows"), pl.col(SURPLUS).count().alias("n_surplus")]
    # The ending decides most columns; a regular expression on every value costs five times as much.
    aggregates += [(pl.col(name).str.ends_with(_FLOAT_ENDING) | _UNDATED).all().alias(name) for name in ids]
    for name in numbers:
        is_odd = (plain[name].is_null() & pl.col(name).is_not_null()).any()
        if schema[name] == pl.String and decimal != ".":
            is_odd |= pl.lit(True) if decimal else may_be_grouped(pl.col(name))
        aggregates.append(is_odd.alias(name))
    if "line_amount" in names:
        aggregates.append((pl.col("line_amount").null_count() > 0).alias(_LACKING))
    sizes = pl.struct(measure_sizes(plain))
    found = lines.select(*aggregates, sizes.alias("sizes")).collect(engine="streaming").row(0, named=True)
    return _Facts(
        n_rows=found["n_rows"],
        n_surplus=found["n_surplus"],
        odd_numbers=tuple(name for name in numbers if found[name]),
        float_like=_float_like(lines, [name for name in ids if found[name]]),
        lacks_amounts=found.get(_LACKING, False),
        sizes=found["sizes"],
    )


def _read_numbers(
    lines: pl.LazyFrame, name: str, mapping: ColumnMapping, settings: SourceSettings, where: str
) -> NumberReading:
    """How to read a column that is more than plain numbers."""
    texts = (
        lines.group_by(pl.col(name).cast(pl.String).alias("text"))
        .agg(pl.len().alias("n"))
        .drop_nulls()
        .collect(engine="streaming")
    )
    where = f"{where}, column {mapping.columns[name]!r}"
    reading = recognise_numbers(texts, settings.decimal, where, is_money=name in _MONEY)
    unreadable = texts.filter(reading.numbers(pl.col("text")).is_null())
    if name in mapping.required and unreadable["n"].sum() * 2 > texts["n"].sum():
        example = unreadable.sort("n", "text", descending=[True, False])["text"][0]
        raise BadInputError(
            f"{where} holds {example!r} and {unreadable['n'].sum() - 1:,} more that are no numbers",
            "numbers such as 1234.5, 1,234.50, 1.234,50 or (12.00), with or without a currency",
            "Map another column, correct [source] decimal if it is set, or export plain numbers.",
        )
    return reading


def _float_like(lines: pl.LazyFrame, names: list[str]) -> frozenset[str]:
    if not names:
        return frozenset()
    is_float = pl.col(names).str.contains(_FLOAT_LIKE) | _UNDATED
    whole = lines.select(is_float.all()).collect(engine="streaming").row(0, named=True)
    return frozenset(name for name in names if whole[name])


def _read_dates(lines: pl.LazyFrame, settings: SourceSettings, where: str) -> tuple[DateReading, int]:
    """How to read the column of instants, and in how many rows its value is not one."""
    values = pl.col(_INSTANT)
    texts = lines.group_by(values.alias("text")).agg(pl.len().alias("n")).drop_nulls().collect(engine="streaming")
    if texts.is_empty():
        raise BadInputError(f"{where} is empty in every row", "dates", "Map invoiced_at to the column that has them.")
    dtype = texts.schema["text"]
    is_text = dtype == pl.String
    reading = recognise_dates(texts, settings, where) if is_text else read_instants(dtype, settings.time_zone)
    unread = texts.filter(reading.instants(pl.col("text")).is_null())
    if len(unread) == len(texts):
        raise BadInputError(
            f"{where} holds {unread.sort('text')['text'][0]}", f"dates from {YEARS[0]} to {YEARS[1]}", "Correct them."
        )
    return reading, int(unread["n"].sum())


def _with_known_dates(lines: pl.LazyFrame, mapping: ColumnMapping, settings: SourceSettings) -> SourceSettings:
    """The settings with the format of a known export's dates, where they have it and none is set."""
    if settings.date_format or not mapping.date_format or lines.collect_schema()[_INSTANT] != pl.String:
        return settings
    first = lines.select(pl.col(_INSTANT).drop_nulls().head(1)).collect(engine="streaming")
    has_it = first[_INSTANT].str.to_datetime(mapping.date_format, strict=False).is_not_null().any()
    return settings.model_copy(update={"date_format": mapping.date_format}) if has_it else settings


def _refuse_surplus(facts: _Facts, where: str) -> None:
    if facts.n_surplus * 2 > facts.n_rows:
        raise BadInputError(
            f"{where} has {facts.n_surplus:,} of {facts.n_rows:,} rows with more fields than the header",
            "a name for every column",
            "Complete the header, or set [source] delimiter.",
        )


def _set_surplus_aside(lines: pl.LazyFrame, names: list[str]) -> tuple[pl.LazyFrame, list[pl.Expr]]:
    """Make rows with more fields than the header null, and return their texts as JSON pairs.

    The fields of such a row are shifted, so none of them can be trusted.
    """
    is_surplus = pl.col(SURPLUS).is_not_null()
    blanked = lines.with_columns(
        pl.col(names).name.suffix(" as written"),
        *(pl.when(~is_surplus).then(pl.col(name)).alias(name) for name in names),
    )
    pairs = [pl.when(is_surplus).then(_json_pair(name, pl.col(f"{name} as written"))) for name in names]
    return blanked, [*pairs, _json_pair("beyond the header", pl.col(SURPLUS))]


def _json_pair(name: str, text: pl.Expr) -> pl.Expr:
    """``"name": "text"`` as JSON writes it, null for a null text."""
    as_json = pl.struct(text.alias("v")).struct.json_encode().str.strip_prefix('{"v":').str.strip_suffix("}")
    return pl.when(text.is_not_null()).then(pl.concat_str(pl.lit(f'"{name}": '), as_json))


def _json_object(pairs: list[pl.Expr]) -> pl.Expr:
    if not pairs:
        return pl.lit(None, pl.String)
    joined = pl.concat_str(pairs, separator=", ", ignore_nulls=True)
    return pl.when(joined != "").then(pl.concat_str(pl.lit("{"), joined, pl.lit("}")))
