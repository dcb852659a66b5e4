"""A ``custseg.toml`` that reads a source as it was read, or a draft of one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from custseg_assets.settings import DEMO, Settings
from custseg_assets.stores.delivery import Delivery
from custseg_assets.stores.toml_text import absolute_path, toml_key, toml_value

_PROPOSED = "  # proposed: is it right?"
_REMARKS = {
    "line_amount": "  # the amount of each line; or quantity and unit_price",
    "invoice_id": "  # perhaps; without it, a customer's day is one order",
    "product_id": "  # perhaps; without it, there are no offers",
}


def write_configuration(
    settings: Settings,
    source: str,
    deliveries: Sequence[Delivery],
    proposed: Collection[str] = (),
    perhaps: Mapping[str, str | list[str]] = MappingProxyType({}),
    comments: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[str]:
    """The lines of a ``custseg.toml`` with the sections ``source`` and ``cleaning``.

    Args:
        settings: with which the source is read.
        source: its path.
        deliveries: what was read, if anything could be.
        proposed: keys in the settings that nobody has confirmed.
        perhaps: columns that are written as comments, and their headers.
        comments: section → lines of comment at its end.
    """
    given = settings.source.model_dump(mode="json", exclude_defaults=True, exclude={"path", "columns", "filter"})
    path = source if source == DEMO or "://" in source else absolute_path(source)
    presets = {delivery.preset for delivery in deliveries}
    preset = next(iter(presets)) if len(presets) == 1 else None
    own = {"path": path, **({"preset": preset} if preset else {}), **given}
    configured = settings.source.model_dump(mode="json")["columns"]
    # A recognised export says itself which column is which.
    columns = configured if presets - {None} else {**_found_columns(deliveries, configured), **configured}
    filters = {
        header: list(rule.only) if rule.only else {"exclude": list(rule.exclude)}
        for header, rule in settings.source.filter.items()
    }
    tables: dict[str, Mapping[str, Any]] = {
        "source": own,
        "source.columns": columns,
        "source.filter": filters,
        "cleaning": settings.cleaning.model_dump(mode="json", exclude_none=True),
    }
    written = {
        name: [
            f"{toml_key(key)} = {toml_value(value)}{_PROPOSED if key in proposed else ''}"
            for key, value in table.items()
        ]
        for name, table in tables.items()
    }
    if settings.source.currency is None and source != DEMO:
        written["source"].append('# currency = "EUR"  # if they are euros: amounts are shown with it')
    written["source.columns"] += [
        f"# {key} = {toml_value(value)}{_remark(key, value, columns)}" for key, value in perhaps.items()
    ]
    for name, lines in written.items():
        if commented := [*lines, *comments.get(name, ())]:
            yield from (f"[{name}]", *commented, "")


def _remark(name: str, header: str | list[str], written: Collection[str]) -> str:
    remark = "  # perhaps: the date with the time" if isinstance(header, list) else _REMARKS.get(name, "")
    return f"{remark}, instead of the line for {name} above" if name in written else remark


def _found_columns(deliveries: Sequence[Delivery], configured: Mapping[str, Any]) -> dict[str, str]:
    """The single headers that were found in all files without being configured."""
    found = [delivery.columns.items() for delivery in deliveries]
    return {
        name: header
        for name, header in (found[0] if found else ())
        if name not in configured and " + " not in header and all((name, header) in one for one in found)
    }
