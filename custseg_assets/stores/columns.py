"""Columns of a source: find the mapped columns in a header, or say which are missing. Values are in ``values``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from custseg_assets.domain.schemas import MAPPED_NAMES, READ_NAMES
from custseg_assets.domain.transactions.presets import PRESETS, Headers, Preset, RowFilter
from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores.proposals import bare, propose_columns

_LONGEST_SHOWN = 80
_EXPECTED = "columns for customer_id, invoiced_at and line_amount (or quantity and unit_price)"


class MissingColumnsError(BadInputError):
    """A table has no column for something that every line needs."""


_PRICED = ("quantity", "unit_price")


@dataclass(frozen=True)
class ColumnMapping:
    """Which headers of a source each mapped column has, and which other columns say what a line is worth.

    Attributes:
        headers: mapped column → its headers, in the mapped columns' order; several are joined.
        preset: name of the known export, ``None`` for any other.
        ignored: headers that nothing is read from.
        filters: header → which lines count.
        invoice_key: headers that make up an order's id together, none for ``invoice_id`` alone.
    """

    headers: dict[str, Headers]
    preset: str | None
    ignored: tuple[str, ...] = ()
    filters: Mapping[str, RowFilter] = field(default_factory=dict)
    invoice_key: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """Mapped column → its header, or what to call several together."""
        return {name: " + ".join(headers) for name, headers in self.headers.items()}

    @property
    def sources(self) -> dict[str, Headers]:
        """Everything that is read: name → headers. The columns of filters and keys have names of their own."""
        return {
            **self.headers,
            **{filter_column(i): (header,) for i, header in enumerate(self.filters)},
            **{key_column(i): (header,) for i, header in enumerate(self.invoice_key)},
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


def has_required(header: Sequence[str], settings: SourceSettings) -> bool:
    """Whether a row names all columns that every line needs."""
    return not _missing(_find(header, settings), header)


def map_columns(
    header: Sequence[str], settings: SourceSettings, where: str, sample: Callable[[], pl.DataFrame] | None = None
) -> ColumnMapping:
    """Find the mapped columns in a header.

    ``[source.columns]`` comes first; then the names of the preset, set or recognised; then headers that differ from the
    mapped names only in case, spaces and underscores.

    Args:
        header: the source's column names, without surrounding spaces.
        settings: the source's settings.
        where: the file, and its sheet, for the messages.
        sample: makes some rows of text, in the order of the header, that columns are proposed from.

    Raises:
        MissingColumnsError: a required column cannot be found.
        BadInputError: a column that is read is there twice, or a column in the settings is missing.
    """
    _refuse_absent(header, settings, where)
    preset = _preset_of(header, settings)
    found = _find(header, settings)
    _refuse_missing(found, header, where, sample)
    _refuse_twins(found, header, settings, where)
    _refuse_two_totals(found, where)
    headers = {name: found[name] for name in (*MAPPED_NAMES, *READ_NAMES) if name in found}
    filters = {**(preset.filters_of(header) if preset else {}), **settings.filter}
    used = {*filters, *settings.invoice_key, *(one for each in headers.values() for one in each)}
    _refuse_repeated(used, header, where)
    ignored = tuple(name for name in header if name and name not in used)
    return ColumnMapping(headers, preset.name if preset else None, ignored, filters, settings.invoice_key)


def _configured(settings: SourceSettings) -> dict[str, Headers]:
    return {name: (one,) if isinstance(one, str) else one for name, one in settings.columns.items()}


def _find(header: Sequence[str], settings: SourceSettings) -> dict[str, Headers]:
    """The headers of each column that is read, also those in the settings that the table does not have."""
    configured, preset = _configured(settings), _preset_of(header, settings)
    known = preset.find(header) if preset else {}
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


def _refuse_two_totals(found: Mapping[str, Headers], where: str) -> None:
    if {"line_amount", "order_amount"} <= found.keys():
        line, order = (" + ".join(found[name]) for name in ("line_amount", "order_amount"))
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


def _refuse_twins(found: Mapping[str, Headers], header: Sequence[str], settings: SourceSettings, where: str) -> None:
    """Refuse a column that is known by its name alone, where several have that name but for case and spaces."""
    for column, headers in found.items():
        twins = sorted({name for name in header if bare(name) == bare(column)})
        if len(twins) > 1 and headers[0] in twins and column not in settings.columns:
            raise BadInputError(
                f"{where} has more than one column that may be {column}: {_quote(twins)}",
                "one of them named in the settings",
                f'Under [source.columns] in custseg.toml write {column} = "{twins[0]}", or another of them.',
            )


def _refuse_absent(header: Sequence[str], settings: SourceSettings, where: str) -> None:
    columns = _configured(settings).items()
    named = [(name, f"[source.columns] names for {column}") for column, names in columns for name in names]
    named += [(name, "[source.filter] names") for name in settings.filter]
    named += [(name, "[source] invoice_key names") for name in settings.invoice_key]
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


def _equal_names(header: Sequence[str]) -> dict[str, Headers]:
    by_bare_name = {bare(name): name for name in reversed(header)}
    names = (*MAPPED_NAMES, *READ_NAMES)
    return {name: (by_bare_name[bare(name)],) for name in names if bare(name) in by_bare_name}


def _missing(found: Mapping[str, Headers], header: Sequence[str]) -> list[str]:
    there = {name for name, headers in found.items() if set(headers) <= set(header)}
    missing = [name for name in ("customer_id", "invoiced_at") if name not in there]
    parts = [name for name in ("quantity", "unit_price") if name not in there]
    if not {"line_amount", "order_amount"} & there and parts:
        has_neither = len(parts) > 1
        missing += ["line_amount"] if has_neither else parts
    return missing


def _refuse_missing(
    found: Mapping[str, Headers], header: Sequence[str], where: str, sample: Callable[[], pl.DataFrame] | None
) -> None:
    missing = _missing(found, header)
    if not missing:
        return
    used = {name for names in found.values() for name in names}
    others = [name for name in header if name not in used]
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
