"""Columns of a source: find the mapped columns in a header, or say which are missing. Values are in ``values``."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from custseg_assets.domain.schemas import MAPPED_NAMES
from custseg_assets.domain.transactions.presets import PRESETS, Preset
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


@dataclass(frozen=True)
class ColumnMapping:
    """Which header of a source each mapped column has.

    Attributes:
        columns: mapped column → header, in the mapped columns' order.
        preset: name of the known export, ``None`` for any other.
        ignored: headers without a mapped column.
    """

    columns: dict[str, str]
    preset: str | None
    ignored: tuple[str, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every line needs."""
        amount = ("line_amount",) if "line_amount" in self.columns else ("quantity", "unit_price")
        return ("customer_id", "invoiced_at", *amount)


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
    _refuse_absent(header, settings, where)
    preset = _preset_of(header, settings)
    found = _equal_names(header) | (preset.find(header) if preset else {}) | settings.columns
    _refuse_missing(found, header, where)
    columns = {name: found[name] for name in MAPPED_NAMES if name in found}
    ignored = tuple(name for name in header if name and name not in columns.values())
    return ColumnMapping(columns, preset.name if preset else None, ignored)


def _refuse_repeated(header: Sequence[str], where: str) -> None:
    repeated = sorted(name for name, n in Counter(header).items() if name and n > 1)
    if repeated:
        raise BadInputError(
            f"{where} has more than one column {_quote(repeated)}", "different names", "Rename or remove one of them."
        )


def _refuse_absent(header: Sequence[str], settings: SourceSettings, where: str) -> None:
    for column, name in settings.columns.items():
        if name not in header:
            near = difflib.get_close_matches(name, header, n=3) or list(header)
            raise BadInputError(
                f"{where} has no column {name!r}, which [source.columns] names for {column}",
                f"a column of the file, the nearest being {_quote(near)}",
                f'Correct {column} = "…" in [source.columns].',
            )


def _preset_of(header: Sequence[str], settings: SourceSettings) -> Preset | None:
    if settings.preset:
        return PRESETS[settings.preset]
    return next((preset for preset in PRESETS.values() if preset.is_export(header)), None)


def _equal_names(header: Sequence[str]) -> dict[str, str]:
    by_bare_name = {_bare(name): name for name in reversed(header)}
    return {name: by_bare_name[_bare(name)] for name in MAPPED_NAMES if _bare(name) in by_bare_name}


def _refuse_missing(found: Collection[str], header: Sequence[str], where: str) -> None:
    missing = [name for name in ("customer_id", "invoiced_at") if name not in found]
    parts = [name for name in ("quantity", "unit_price") if name not in found]
    if "line_amount" not in found and parts:
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
