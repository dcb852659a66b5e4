"""Columns of a source: find the mapped columns in a header, or say which are missing. Values are in ``values``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from custseg_assets.domain.schemas import MAPPED_NAMES
from custseg_assets.domain.transactions.presets import PRESETS, Preset
from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores.proposals import bare, propose_columns

_LONGEST_SHOWN = 80
_EXPECTED = "columns for customer_id, invoiced_at and line_amount (or quantity and unit_price)"


class MissingColumnsError(BadInputError):
    """A table has no column for something that every line needs."""


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
        BadInputError: a mapped column is there twice, or a column in the settings is missing.
    """
    _refuse_absent(header, settings, where)
    preset = _preset_of(header, settings)
    found = _find(header, settings)
    _refuse_missing(found, header, where, sample)
    _refuse_repeated(found, header, where)
    columns = {name: found[name] for name in MAPPED_NAMES if name in found}
    ignored = tuple(name for name in header if name and name not in columns.values())
    return ColumnMapping(columns, preset.name if preset else None, ignored)


def _find(header: Sequence[str], settings: SourceSettings) -> dict[str, str]:
    preset = _preset_of(header, settings)
    return _equal_names(header) | (preset.find(header) if preset else {}) | settings.columns


def _refuse_repeated(found: Mapping[str, str], header: Sequence[str], where: str) -> None:
    """Refuse a mapped column whose name several have; others may have the same name, for they are not read."""
    repeated = {name: column for column, name in found.items() if header.count(name) > 1}
    if repeated:
        raise BadInputError(
            f"{where} has more than one column {_quote(sorted(repeated))}, read as {', '.join(repeated.values())}",
            "different names for the columns that are read",
            "Rename or remove one of them, or map another column under [source.columns].",
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
    by_bare_name = {bare(name): name for name in reversed(header)}
    return {name: by_bare_name[bare(name)] for name in MAPPED_NAMES if bare(name) in by_bare_name}


def _missing(found: Mapping[str, str], header: Sequence[str]) -> list[str]:
    missing = [name for name in ("customer_id", "invoiced_at") if found.get(name) not in header]
    parts = [name for name in ("quantity", "unit_price") if found.get(name) not in header]
    if found.get("line_amount") not in header and parts:
        has_neither = len(parts) > 1
        missing += ["line_amount"] if has_neither else parts
    return missing


def _refuse_missing(
    found: Mapping[str, str], header: Sequence[str], where: str, sample: Callable[[], pl.DataFrame] | None
) -> None:
    missing = _missing(found, header)
    if not missing:
        return
    others = [name for name in header if name not in found.values()]
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
