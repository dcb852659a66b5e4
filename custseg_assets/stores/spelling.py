"""Spelling: names of columns in the settings as a table's header spells them, and settings without absent ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from custseg_assets.domain.transactions.presets import FirstOf, Way
from custseg_assets.source_settings import SourceSettings

_KEYS = ("invoice_key", "line_key")


def spell_as_in(settings: SourceSettings, header: Sequence[str]) -> SourceSettings:
    """Settings with the header's own names where exactly one differs only in case and surrounding spaces.

    Monthly exports spell a name in one way or another; a name that is in the header itself is left as it is.
    """
    there, by_folded = set(header), dict[str, list[str]]()
    for name in header:
        by_folded.setdefault(_fold(name), []).append(name)

    def spell(name: str) -> str:
        alike = by_folded.get(_fold(name), [])
        return alike[0] if name not in there and len(alike) == 1 else name

    changed: dict[str, Any] = {
        "columns": {column: _spell_way(way, spell) for column, way in settings.columns.items()},
        "filter": _spell_keys(settings.filter, spell),
        "refunds": _spell_keys(settings.refunds, spell),
        **{key: tuple(map(spell, getattr(settings, key))) for key in _KEYS},
    }
    return settings.model_copy(update=changed)


def drop_absent(settings: SourceSettings, header: Sequence[str]) -> tuple[SourceSettings, tuple[str, ...]]:
    """Settings without what names columns that a table does not have, and what that was."""
    spelled, there = spell_as_in(settings, header), set(header)
    absent = {column for column, way in spelled.columns.items() if not set(_names(way)) <= there}
    changed: dict[str, Any] = {"columns": {name: way for name, way in settings.columns.items() if name not in absent}}
    dropped = [f"{column} = {_show(settings.columns[column])}" for column in settings.columns if column in absent]
    for section in ("filter", "refunds"):
        given = getattr(settings, section)
        kept = {own: given[own] for own, name in zip(given, getattr(spelled, section), strict=True) if name in there}
        changed[section] = kept
        dropped += [f'[source.{section}] "{own}"' for own in given if own not in kept]
    for key in _KEYS:
        if not set(getattr(spelled, key)) <= there:
            changed[key] = ()
            dropped.append(f"{key} = {_show(getattr(settings, key))}")
    return settings.model_copy(update=changed), tuple(dropped)


def _fold(name: str) -> str:
    return name.strip().casefold()


def _names(way: str | Way) -> tuple[str, ...]:
    if isinstance(way, str):
        return (way,)
    return tuple(way.first_of) if isinstance(way, FirstOf) else tuple(way)


def _show(way: str | Way) -> str:
    names = ", ".join(f'"{name}"' for name in _names(way))
    return names if isinstance(way, str) else f"[{names}]"


def _spell_way(way: str | Way, spell: Callable[[str], str]) -> str | Way:
    if isinstance(way, str):
        return spell(way)
    names = tuple(map(spell, _names(way)))
    return FirstOf(names) if isinstance(way, FirstOf) else names


def _spell_keys(table: Mapping[str, Any], spell: Callable[[str], str]) -> dict[str, Any]:
    """Two keys that are spelled alike stay two, so that none is lost."""
    spelled = {spell(name): value for name, value in table.items()}
    return spelled if len(spelled) == len(table) else dict(table)
