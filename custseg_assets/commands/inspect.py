"""``custseg inspect``: what custseg would read of a source, before anything is stored, and a configuration to save."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl

from custseg_assets.domain.transactions.cleaning import classify, clean_lines
from custseg_assets.home.intake import take_in_source
from custseg_assets.home.log_doubts import find_log_doubts, rules_for
from custseg_assets.settings import DEMO, Settings
from custseg_assets.stores.deliveries import Delivery, DeliveryStore, new_stray_days
from custseg_assets.stores.sources import Progress

_N_EXAMPLES = 3
_AMOUNT = pl.coalesce("line_amount", pl.col("quantity") * pl.col("unit_price"))


def inspect(source: str, settings: Settings, say: Progress) -> str:
    """What would be read of a source.

    Args:
        source: path of a file or folder, or another source that ``[source] path`` may name.
        settings: how it is read.
        say: takes each line of progress.

    Returns:
        The facts, the doubts, and a configuration that reads the source in just this way.

    Raises:
        BadInputError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="custseg-inspect-") as folder:
        store = DeliveryStore(Path(folder) / "deliveries")
        deliveries = take_in_source(store, source, settings, say)
        return "\n".join(_describe(store, deliveries, settings, source))


def _describe(store: DeliveryStore, deliveries: Sequence[Delivery], settings: Settings, source: str) -> Iterator[str]:
    rules = rules_for(deliveries, settings)
    raw = store.scan(deliveries)
    classified = classify(nw.from_native(raw.with_columns(pl.lit("").alias("period"))), rules)
    classified = classified.sort("source_file", "source_row")
    reasons = _native(classified).select("reason", "line_amount", "source_file", "source_row").collect()
    kept = _native(clean_lines(classified, rules)).collect()
    yield ""
    yield f"records     {reasons.height:>12,}"
    counted = reasons.drop_nulls("reason").group_by("reason").agg(pl.len().alias("n"), pl.col("line_amount").sum())
    for reason, n, amount in counted.sort("n", "reason", descending=[True, False]).iter_rows():
        yield f"  {reason:<20} {n:>10,} {amount or 0:>18,.2f}"
    yield f"kept        {kept.height:>12,} {kept['line_amount'].sum():>19,.2f}"
    orders, cancelled = (kept.filter(pl.col("is_cancellation") == flag) for flag in (False, True))
    yield f"customers   {kept['customer_id'].n_unique():>12,}"
    yield f"orders      {orders['invoice_id'].n_unique():>12,} {orders['line_amount'].sum():>19,.2f}"
    if cancelled.height:
        yield f"taken back  {cancelled['invoice_id'].n_unique():>12,} {cancelled['line_amount'].sum():>19,.2f}"
    days = [day for one in deliveries for day in (one.first_date, one.last_date)]
    yield f"days          {min(days)} to {max(days)}"
    yield from _examples(kept)
    for note in dict.fromkeys(note for delivery in deliveries for note in delivery.notes):
        yield f"note        {note}"
    for doubt in find_log_doubts(store, deliveries, settings):
        yield f"! doubtful  {doubt}"
    for stray in new_stray_days((), deliveries):
        yield f"! doubtful  {stray}"
    yield ""
    yield "# custseg.toml"
    yield from configuration(settings, deliveries, source)


def _native(lines: Any) -> pl.LazyFrame:
    frame: pl.LazyFrame = lines.to_native()
    return frame


def _examples(kept: pl.DataFrame) -> Iterator[str]:
    """The first lines as they count."""
    names = ["customer_id", "invoiced_at", "invoice_id", "product_id", "quantity", "line_amount"]
    shown = [name for name in names if kept[name].null_count() < kept.height]
    for row in kept.select(shown).head(_N_EXAMPLES).iter_rows(named=True):
        yield "  e.g. " + ", ".join(f"{name} {value}" for name, value in row.items())


def configuration(settings: Settings, deliveries: Sequence[Delivery], source: str) -> Iterator[str]:
    """The lines of a ``custseg.toml`` that reads a source as it was read.

    Args:
        settings: with which it was read.
        deliveries: what was read.
        source: its path.
    """
    given = settings.source.model_dump(mode="json", exclude_defaults=True, exclude={"path", "columns", "filter"})
    path = source if source == DEMO or "://" in source else str(Path(source).absolute())
    presets = {delivery.preset for delivery in deliveries}
    preset = presets.pop() if len(presets) == 1 else None
    own = {"path": path, **({"preset": preset} if preset else {}), **given}
    yield "[source]"
    yield from (f"{name} = {_toml(value)}" for name, value in own.items())
    columns = settings.source.model_dump(mode="json")["columns"]
    if not preset:
        columns = {**_found_columns(deliveries, columns), **columns}
    tables: dict[str, Mapping[str, Any]] = {
        "source.columns": columns,
        "source.filter": {
            header: {kind: values for kind, values in (("only", rule.only), ("exclude", rule.exclude)) if values}
            for header, rule in settings.source.filter.items()
        },
        "cleaning": settings.cleaning.model_dump(mode="json", exclude_none=True),
    }
    for name, table in tables.items():
        if table:
            yield f"\n[{name}]"
            yield from (f"{_key(key)} = {_toml(value)}" for key, value in table.items())


def _found_columns(deliveries: Sequence[Delivery], configured: Mapping[str, Any]) -> dict[str, str]:
    """The single headers that were found without being configured."""
    found = deliveries[0].columns
    return {name: header for name, header in found.items() if name not in configured and " + " not in header}


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _toml(value: Any) -> str:
    """A value as TOML writes it; text is as in JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
