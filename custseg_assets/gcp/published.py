"""Which tables are published, and what of them is there to publish."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from custseg_assets.domain.schemas import PREDICTION_LOG, Table, tables
from custseg_assets.gcp.bigquery_publish import Part
from custseg_assets.home.plan import PUBLISHED
from custseg_assets.stores.publications import Publications
from custseg_assets.stores.tables import TableStore, fingerprint


def snapshot_parts(store: TableStore, publications: Publications, keys: Iterable[str]) -> list[Part]:
    """Everything of the snapshots, and of those that are published and there no more.

    Args:
        store: where they are.
        publications: what is published.
        keys: of the snapshots.
    """
    wanted = {key for key in keys if store.fingerprint_of(PUBLISHED[0], key)}
    every = {key for name in PUBLISHED for key in publications.of(name)}
    gone = {key for key in every if all(store.fingerprint_of(name, key) is None for name in PUBLISHED)}
    return [
        Part(table, key, store.fingerprint_of(table.name, key), _reader(store, table, key))
        for table in published_tables()
        if table.name in PUBLISHED
        for key in sorted(wanted | gone)
    ]


def prediction_parts(store: TableStore, publications: Publications) -> list[Part]:
    """Every day of the prediction log, and days that are published and there no more."""
    log = PREDICTION_LOG
    records = pl.struct("source_file", "source_line").hash(20101201)
    # Halves cannot overflow a sum; the whole would.
    halves = (records // (1 << 32)).sum().alias("high"), (records % (1 << 32)).sum().alias("low")
    found = store.scan(log).group_by("period").agg(pl.len().alias("n"), *halves).collect()
    days: dict[str, int | None] = dict.fromkeys(publications.of(log.name))
    days |= {day: fingerprint(*state) for day, *state in found.iter_rows()}
    return [Part(log, day, state, _reader(store, log, day)) for day, state in sorted(days.items())]


def published_tables() -> list[Table]:
    """Every table that is published, now or later."""
    # The only table that the segmentation features shape is not among them.
    every = tables(())
    return [*(every[name] for name in PUBLISHED), PREDICTION_LOG]


def _reader(store: TableStore, table: Table, key: str) -> Callable[[], pl.DataFrame]:
    return lambda: store.read(table, [key])
