"""Columns of a source: find the mapped columns in a header, or say which are missing. Values are in ``values``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from custseg_assets.domain.schemas import MAPPED_NAMES, READ_NAMES
from custseg_assets.domain.transactions.platforms import PRESETS
from custseg_assets.domain.transactions.presets import FirstOf, Headers, Layout, Preset, RowFilter, Way
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.proposals import bare, propose_columns
from custseg_assets.stores.spelling import spell_as_in

_LONGEST_SHOWN = 80
_EXPECTED = "columns for customer_id, invoiced_at and line_amount (or quantity and unit_price)"

NOBODY = ("0", "-", "--", "?", "null", "(null)", "none", "nil", "nan", "na", "n/a", "#n/a", "\\n", "guest", "unknown")
"""Texts, in lower case, that exports write where there is no customer; an empty cell always is one."""

_PRICED = ("quantity", "unit_price")
_OWN = Layout(columns={}, identifying=())
"""What is known of a file that is no known export: nothing."""


class MissingColumnsError(BadInputError):
    """A table has no column for something that every line needs."""


@dataclass(frozen=True)
class ColumnMapping:
    """Which headers of a source each mapped column has, and which other columns say what a line is worth.

    Attributes:
        headers: mapped column → its headers, in the mapped columns' order; several are joined, or alternatives.
        preset: name of the known export, ``None`` for any other.
        ignored: headers that nothing is read from.
        filters: header → which lines count.
        invoice_key: headers that make up an order's id together, none for ``invoice_id`` alone.
        alternatives: mapped columns of whose headers each line's first that is not empty counts, with texts, in lower
            case, that are as good as empty.
        line_key: headers that make up a line's identity together, where a line may come again.
        equal_amounts: two headers whose amounts differ only where there are several currencies.
        date_format: format that the dates of a known export have.
        refunds: header → values of lines for what was paid back.
    """

    headers: dict[str, Headers]
    preset: str | None
    ignored: tuple[str, ...] = ()
    filters: Mapping[str, RowFilter] = field(default_factory=dict)
    invoice_key: tuple[str, ...] = ()
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    line_key: Headers = ()
    equal_amounts: Headers = ()
    date_format: str | None = None
    refunds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """Mapped column → its header, or what to call several together."""
        return {
            name: (" or " if name in self.alternatives else " + ").join(headers)
            for name, headers in self.headers.items()
        }

    @property
    def sources(self) -> dict[str, Headers]:
        """Everything that is read: name → headers. The columns of filters and keys have names of their own."""
        return {
            **self.headers,
            **{filter_column(i): (header,) for i, header in enumerate(self.filters)},
            **{refund_column(i): (header,) for i, header in enumerate(self.refunds)},
            **{key_column(i): (header,) for i, header in enumerate(self.invoice_key)},
            **{line_key_column(i): (header,) for i, header in enumerate(self.line_key)},
            **{equal_column(i): (header,) for i, header in enumerate(self.equal_amounts)},
        }

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every line needs."""
        total = next((name for name in ("line_amount", "order_amount") if name in self.headers), None)
        return ("customer_id", "invoiced_at", *([total] if total else ("quantity", "unit_price")))


def filter_column(i: int) -> str:
    """Name of the column that the ``i``-th filter is about."""
    return f"filter {i}"


def refund_column(i: int) -> str:
    """Name of the column that says which lines are the ``i``-th kind of refunds."""
    return f"refund {i}"


def key_column(i: int) -> str:
    """Name of the column of the ``i``-th part of an order's id."""
    return f"key {i}"


def line_key_column(i: int) -> str:
    """Name of the column of the ``i``-th part of a line's identity."""
    return f"line key {i}"


def equal_column(i: int) -> str:
    """Name of the column of the ``i``-th of two amounts that are to be equal."""
    return f"equal amount {i}"


def has_required(header: Sequence[str], settings: SourceSettings) -> bool:
    """Whether a row names all columns that every line needs."""
    return not _missing(_find(header, settings), header)


def find_columns(header: Sequence[str], settings: SourceSettings) -> dict[str, Headers]:
    """The headers that columns are read from, required or not, as far as a table has them."""
    found = {name: _names(way) for name, way in _find(header, settings).items()}
    return {name: headers for name, headers in found.items() if set(headers) <= set(header)}


def find_missing(header: Sequence[str], settings: SourceSettings) -> tuple[list[str], list[str]]:
    """The required columns that a table does not have, and the headers that nothing else is read from."""
    found = _find(header, settings)
    used = {name for way in found.values() for name in _names(way)}
    return _missing(found, header), [name for name in header if name not in used]


def map_columns(
    header: Sequence[str], settings: SourceSettings, where: str, sample: Callable[[], pl.DataFrame] | None = None
) -> ColumnMapping:
    """Find the mapped columns in a header.

    ``[source.columns]`` comes first, also where the header differs from it in case and surrounding spaces only; then
    the names of the preset, set or recognised; then headers that differ from the mapped names only in case, spaces and
    underscores.

    Args:
        header: the source's column names, without surrounding spaces.
        settings: the source's settings.
        where: the file, and its sheet, for the messages.
        sample: makes some rows of text, in the order of the header, that columns are proposed from.

    Raises:
        MissingColumnsError: a required column cannot be found.
        BadInputError: a column that is read is there twice, or a column in the settings is missing.
    """
    settings = spell_as_in(settings, header)
    _refuse_absent(header, settings, where)
    preset = _preset_of(header, settings)
    layout = preset.layout_of(header, _configured(settings)) if preset else _OWN
    if preset:
        _refuse_lacking(preset, layout, header, settings.columns, where)
    found = _find(header, settings)
    _refuse_missing(header, settings, where, sample)
    _refuse_twins(found, header, settings, where)
    _refuse_two_totals(found, where)
    mapping = _mapping_of(found, header, preset, layout, settings)
    _refuse_repeated({one for each in mapping.sources.values() for one in each}, header, where)
    return mapping


def _configured(settings: SourceSettings) -> dict[str, Way]:
    return {name: (one,) if isinstance(one, str) else one for name, one in settings.columns.items()}


def _find(header: Sequence[str], settings: SourceSettings) -> dict[str, Way]:
    """The headers of each column that is read, also those in the settings that the table does not have."""
    settings = spell_as_in(settings, header)
    configured, preset = _configured(settings), _preset_of(header, settings)
    known = (preset.layout_of(header, configured) if preset else _OWN).find(header)
    if "line_amount" in configured and configured["line_amount"] == known.get("order_amount"):
        # The export is known to have the order's total there.
        del configured["line_amount"]
    if configured.get("line_amount") or any(
        known.get(name) != configured.get(name, known.get(name)) for name in _PRICED
    ):
        # Somebody says what a line amounts to, in other columns than the export's.
        known.pop("order_amount", None)
    found = _equal_names(header) | known | configured
    if settings.invoice_key:
        found["invoice_id"] = settings.invoice_key
    return found


def _mapping_of(
    found: Mapping[str, Way], header: Sequence[str], preset: Preset | None, layout: Layout, settings: SourceSettings
) -> ColumnMapping:
    ways = {name: found[name] for name in (*MAPPED_NAMES, *READ_NAMES) if name in found}
    nobody = texts_for_nobody(settings)
    # Whoever maps both amounts has said what they are.
    says_amounts = {"order_amount", "refunded_amount"} <= settings.columns.keys()
    mapping = ColumnMapping(
        headers={name: _names(way) for name, way in ways.items()},
        preset=preset.name if preset else None,
        filters={**layout.filters_of(header), **settings.filter},
        invoice_key=settings.invoice_key,
        alternatives={
            name: nobody if name == "customer_id" else () for name, way in ways.items() if isinstance(way, FirstOf)
        },
        line_key=settings.line_key or _if_all(layout.line_key, header),
        equal_amounts=() if says_amounts else _if_all(layout.equal_amounts, header),
        date_format=layout.date_format,
        refunds=settings.refunds,
    )
    used = {one for each in mapping.sources.values() for one in each}
    return replace(mapping, ignored=tuple(name for name in header if name and name not in used))


def texts_for_nobody(settings: SourceSettings) -> tuple[str, ...]:
    """Texts, in lower case, that stand for no customer."""
    usual = NOBODY if settings.customer_id_form != "text" else ()
    return (*usual, *(value.strip().lower() for value in settings.no_customer))


def _if_all(names: Headers, header: Sequence[str]) -> Headers:
    return names if set(names) <= set(header) else ()


def _names(way: Way) -> Headers:
    return way.first_of if isinstance(way, FirstOf) else way


def _refuse_two_totals(found: Mapping[str, Way], where: str) -> None:
    if {"line_amount", "order_amount"} <= found.keys():
        line, order = (" + ".join(_names(found[name])) for name in ("line_amount", "order_amount"))
        raise BadInputError(
            f"{where}: line_amount is {line!r} and order_amount is {order!r}",
            "the total of each line, or that of the whole order",
            "Leave one of them out of [source.columns].",
        )


def _refuse_repeated(used: Iterable[str], header: Sequence[str], where: str) -> None:
    """Refuse a column that is read and whose name several have; others are not read."""
    repeated = sorted(name for name in used if header.count(name) > 1)
    if repeated:
        raise BadInputError(
            f"{where} has more than one column {_quote(repeated)}",
            "different names for the columns that are read",
            "Rename or remove one of them, or map another column under [source.columns].",
        )


def _refuse_twins(found: Mapping[str, Way], header: Sequence[str], settings: SourceSettings, where: str) -> None:
    """Refuse a column that is known by its name alone, where several have that name but for case and spaces."""
    for column, way in found.items():
        twins = sorted({name for name in header if bare(name) == bare(column)})
        if len(twins) > 1 and _names(way)[0] in twins and column not in settings.columns:
            raise BadInputError(
                f"{where} has more than one column that may be {column}: {_quote(twins)}",
                "one of them named in the settings",
                f'Under [source.columns] in custseg.toml write {column} = "{twins[0]}", or another of them.',
            )


def _refuse_absent(header: Sequence[str], settings: SourceSettings, where: str) -> None:
    columns = _configured(settings).items()
    named = [(name, f"[source.columns] names for {column}") for column, way in columns for name in _names(way)]
    named += [(name, "[source.filter] names") for name in settings.filter]
    named += [(name, "[source.refunds] names") for name in settings.refunds]
    named += [(name, "[source] invoice_key names") for name in settings.invoice_key]
    named += [(name, "[source] line_key names") for name in settings.line_key]
    for name, by in named:
        if name not in header:
            near = difflib.get_close_matches(name, header, n=3) or list(header)
            raise BadInputError(
                f"{where} has no column {name!r}, which {by}",
                f"a column of the file, the nearest being {_quote(near)}",
                "Correct it in custseg.toml.",
            )


def _preset_of(header: Sequence[str], settings: SourceSettings) -> Preset | None:
    if settings.preset:
        return PRESETS.get(settings.preset)
    return next((preset for preset in PRESETS.values() if preset.is_export(header)), None)


def _refuse_lacking(
    preset: Preset, layout: Layout, header: Sequence[str], configured: Collection[str], where: str
) -> None:
    """A file that is only said to be an export must still say what was paid back and what counts."""
    needed = {name: name for name, rule in layout.filters.items() if rule.refuses_others}
    needed |= {_names(ways[0])[0]: name for name, ways in layout.columns.items() if name == "refunded_amount"}
    lacking = [own for own, name in needed.items() if own not in header and name not in configured]
    if lacking:
        raise BadInputError(
            f"{where} has no column {_quote(lacking)}, which {preset.title} have",
            "the columns that say what was paid back and which lines count",
            'Export it again with them, or write preset = "none" under [source] and columns under [source.columns].',
        )


def _equal_names(header: Sequence[str]) -> dict[str, Way]:
    by_bare_name = {bare(name): name for name in reversed(header)}
    names = (*MAPPED_NAMES, *READ_NAMES)
    return {name: (by_bare_name[bare(name)],) for name in names if bare(name) in by_bare_name}


def _missing(found: Mapping[str, Way], header: Sequence[str]) -> list[str]:
    there = {name for name, way in found.items() if set(_names(way)) <= set(header)}
    missing = [name for name in ("customer_id", "invoiced_at") if name not in there]
    parts = [name for name in ("quantity", "unit_price") if name not in there]
    if not {"line_amount", "order_amount"} & there and parts:
        has_neither = len(parts) > 1
        missing += ["line_amount"] if has_neither else parts
    return missing


def _refuse_missing(
    header: Sequence[str], settings: SourceSettings, where: str, sample: Callable[[], pl.DataFrame] | None
) -> None:
    missing, others = find_missing(header, settings)
    if not missing:
        return
    proposals = propose_columns(missing, header, others, sample() if sample else None)
    lines = " and ".join(proposals[name].as_line(name) for name in missing)
    doubt = ", if that is what they are" if any(one.header for one in proposals.values()) else ""
    raise MissingColumnsError(
        f"{where} has no column for {', '.join(missing)} (it has {_quote([name for name in header if name])})",
        _EXPECTED,
        f"Under [source.columns] in custseg.toml write {lines}{doubt}.",
    )


def shorten(text: str) -> str:
    """As much of a text as an error shows."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _quote(names: Sequence[str], at_most: int = 12) -> str:
    shown = ", ".join(repr(shorten(name)) for name in names[:at_most])
    return f"{shown} and {len(names) - at_most} more" if len(names) > at_most else shown
