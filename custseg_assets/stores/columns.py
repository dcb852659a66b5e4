"""Columns of a source: find the mapped columns in a header, or say which are missing. Values are in ``values``."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from custseg_assets.domain.schemas import MAPPED_NAMES, READ_NAMES
from custseg_assets.domain.transactions.platforms import PRESETS
from custseg_assets.domain.transactions.presets import FirstOf, Headers, Layout, Preset, RowFilter, Way
from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings

_EXPECTED = "columns for customer_id, invoiced_at and line_amount (or quantity and unit_price)"

_COMMON_NAMES = {
    "customer_id": (
        "customer",
        "client",
        "clientid",
        "custid",
        "user",
        "userid",
        "buyer",
        "buyerid",
        "member",
        "memberid",
    ),
    "invoiced_at": ("date", "orderdate", "invoicedate", "purchasedate", "transactiondate", "timestamp", "datetime"),
    "line_amount": ("amount", "sales", "total", "linetotal", "revenue", "value", "totalprice"),
    "quantity": ("qty", "units", "count"),
    "unit_price": ("price", "itemprice", "rate"),
}
"""Names that are suggested, never mapped silently: a column ``total`` may be that of the whole invoice."""


_PRICED = ("quantity", "unit_price")
_OWN = Layout(columns={}, identifying=())
"""What is known of a file that is no known export: nothing."""


@dataclass(frozen=True)
class ColumnMapping:
    """Which headers of a source each mapped column has, and which other columns say what a line is worth.

    Attributes:
        headers: mapped column → its headers, in the mapped columns' order; several are joined, or alternatives.
        preset: name of the known export, ``None`` for any other.
        ignored: headers that nothing is read from.
        filters: header → which lines count.
        invoice_key: headers that make up an order's id together, none for ``invoice_id`` alone.
        alternatives: mapped columns of whose headers each line's first that is not empty counts.
        line_key: headers that make up a line's identity together, where a line may come again.
        equal_amounts: two headers whose amounts differ only where there are several currencies.
        date_format: format that the dates of a known export have.
    """

    headers: dict[str, Headers]
    preset: str | None
    ignored: tuple[str, ...] = ()
    filters: Mapping[str, RowFilter] = field(default_factory=dict)
    invoice_key: tuple[str, ...] = ()
    alternatives: frozenset[str] = frozenset()
    line_key: Headers = ()
    equal_amounts: Headers = ()
    date_format: str | None = None

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


def key_column(i: int) -> str:
    """Name of the column of the ``i``-th part of an order's id."""
    return f"key {i}"


def line_key_column(i: int) -> str:
    """Name of the column of the ``i``-th part of a line's identity."""
    return f"line key {i}"


def equal_column(i: int) -> str:
    """Name of the column of the ``i``-th of two amounts that are to be equal."""
    return f"equal amount {i}"


def map_columns(header: Sequence[str], settings: SourceSettings, where: str) -> ColumnMapping:
    """Find the mapped columns in a header.

    ``[source.columns]`` comes first; then the names of the preset, set or recognised; then headers that differ from the
    mapped names only in case, spaces and underscores.

    Args:
        header: the source's column names, without surrounding spaces.
        settings: the source's settings.
        where: the file, and its sheet, for the messages.

    Raises:
        BadInputError: a header is there twice, a column in the settings is missing, or a required one cannot be found.
    """
    _refuse_repeated(header, where)
    configured: dict[str, Way] = {
        name: (one,) if isinstance(one, str) else one for name, one in settings.columns.items()
    }
    _refuse_absent(header, configured, settings, where)
    preset = _preset_of(header, settings)
    layout = preset.layout_of(header, configured) if preset else _OWN
    known = layout.find(header)
    if preset:
        _refuse_lacking(preset, layout, header, configured, where)
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
    _refuse_missing(found, header, where)
    _refuse_two_totals(found, where)
    return _mapping_of(found, header, preset, layout, settings)


def _mapping_of(
    found: Mapping[str, Way], header: Sequence[str], preset: Preset | None, layout: Layout, settings: SourceSettings
) -> ColumnMapping:
    ways = {name: found[name] for name in (*MAPPED_NAMES, *READ_NAMES) if name in found}
    # Whoever maps both amounts has said what they are.
    says_amounts = {"order_amount", "refunded_amount"} <= settings.columns.keys()
    mapping = ColumnMapping(
        headers={name: _names(way) for name, way in ways.items()},
        preset=preset.name if preset else None,
        filters={**layout.filters_of(header), **settings.filter},
        invoice_key=settings.invoice_key,
        alternatives=frozenset(name for name, way in ways.items() if isinstance(way, FirstOf)),
        line_key=settings.line_key or _if_all(layout.line_key, header),
        equal_amounts=() if says_amounts else _if_all(layout.equal_amounts, header),
        date_format=layout.date_format,
    )
    used = {one for each in mapping.sources.values() for one in each}
    return replace(mapping, ignored=tuple(name for name in header if name and name not in used))


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


def _refuse_repeated(header: Sequence[str], where: str) -> None:
    repeated = sorted(name for name, n in Counter(header).items() if name and n > 1)
    if repeated:
        raise BadInputError(
            f"{where} has more than one column {_quote(repeated)}", "different names", "Rename or remove one of them."
        )


def _refuse_absent(header: Sequence[str], configured: Mapping[str, Way], settings: SourceSettings, where: str) -> None:
    named = [
        (name, f"[source.columns] names for {column}") for column, way in configured.items() for name in _names(way)
    ]
    named += [(name, "[source.filter] names") for name in settings.filter]
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
    by_bare_name = {_bare(name): name for name in reversed(header)}
    names = (*MAPPED_NAMES, *READ_NAMES)
    return {name: (by_bare_name[_bare(name)],) for name in names if _bare(name) in by_bare_name}


def _refuse_missing(found: Collection[str], header: Sequence[str], where: str) -> None:
    missing = [name for name in ("customer_id", "invoiced_at") if name not in found]
    parts = [name for name in ("quantity", "unit_price") if name not in found]
    if not {"line_amount", "order_amount"} & set(found) and parts:
        has_neither = len(parts) > 1
        missing += ["line_amount"] if has_neither else parts
    if not missing:
        return
    nearest = {name: _nearest(name, header) for name in missing}
    lines = " and ".join(f'{name} = "{nearest[name] or "…"}"' for name in missing)
    doubt = ", if that is what they are" if any(nearest.values()) else ""
    raise BadInputError(
        f"{where} has no column for {', '.join(missing)} (it has {_quote(header)})",
        _EXPECTED,
        f"Under [source.columns] in custseg.toml write {lines}{doubt}.",
    )


def _nearest(column: str, header: Sequence[str]) -> str | None:
    by_bare_name = {_bare(name): name for name in reversed(header) if name}
    usual = [name for name in _COMMON_NAMES[column] if name in by_bare_name]
    near = usual or difflib.get_close_matches(_bare(column), list(by_bare_name), n=1)
    return by_bare_name[near[0]] if near else None


def _bare(name: str) -> str:
    return re.sub(r"[\s_]+", "", name).lower()


def _quote(names: Sequence[str], at_most: int = 12) -> str:
    shown = ", ".join(repr(name) for name in names[:at_most])
    return f"{shown} and {len(names) - at_most} more" if len(names) > at_most else shown
