"""Which tables are published, and what of them is there to publish."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from custseg_assets.domain import schemas
from custseg_assets.domain.schemas import Table
from custseg_assets.gcp.bigquery_publish import Part
from custseg_assets.planning import PUBLISHED
from custseg_assets.stores.publications import Publications
from custseg_assets.stores.tables import TableStore

PREDICTION_LOG = "prediction_log"


def snapshot_parts(tables: TableStore, publications: Publications, keys: Iterable[str]) -> list[Part]:
    """Everything of some snapshots, and of those that are published and there no more."""
    wanted = set(keys)
    every = {key for name in PUBLISHED for key in publications.of(name)}
    gone = {key for key in every if all(tables.fingerprint_of(name, key) is None for name in PUBLISHED)}
    return [
        Part(table, key, tables.fingerprint_of(table.name, key), _reader(tables, table, key))
        for table in published_tables()
        if table.name in PUBLISHED
        for key in sorted(wanted | gone)
    ]


def prediction_parts(tables: TableStore, publications: Publications, log: Table) -> list[Part]:
    """Every day of the prediction log, and days that are published and there no more."""
    records = pl.struct("source_file", "source_line").hash(20101201)
    # Halves cannot overflow a sum; the whole would.
    state = pl.struct(pl.len(), (records >> 32).sum().alias("high"), (records & 0xFFFFFFFF).sum().alias("low")).hash()
    found = tables.scan(log).group_by("period").agg(state.first() >> 2).collect()
    days: dict[str, int | None] = dict.fromkeys(publications.of(log.name))
    days |= dict(found.iter_rows())
    return [Part(log, day, state, _reader(tables, log, day)) for day, state in sorted(days.items())]


def published_tables() -> list[Table]:
    """Every table that is published, now or later."""
    # The only table that the segmentation features shape is not among them.
    every = schemas.tables(())
    return [every[name] for name in (*PUBLISHED, PREDICTION_LOG) if name in every]


def _reader(tables: TableStore, table: Table, key: str) -> Callable[[], pl.DataFrame]:
    return lambda: tables.read(table, [key])
