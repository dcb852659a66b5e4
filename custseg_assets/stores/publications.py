"""What is to be published elsewhere and what has been, so that only what changed is published again.

How a destination is written to does not belong here: BigQuery is in ``gcp.bigquery_publish``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.domain.schemas import PREDICTION_LOG, PROMOTION_DECISION, Column, Table
from custseg_assets.settings import Settings
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home
from custseg_assets.stores.tables import TableReader, fingerprint

HELD_OUT = Table(
    "held_out_customers",
    "One row per customer whom a running campaign holds out: the views' lists leave it out.",
    (
        Column("period", pl.String(), "Partition key: first day of the newest snapshot's last period."),
        Column("customer_id", pl.String(), "Customer, exactly as the shop writes it."),
    ),
)
UNKNOWN = -1
"""The fingerprint of a partition that the destination has and that this home did not publish."""


class Publications:
    """The record of one destination, in a file of the home.

    It is a cache: where the destination is not in the state in which this home left it, or the file is lost, everything
    is published again.

    Args:
        path: the file; made when the first partition is recorded.
        destination: what the tables are published to; a record of another destination is ignored.
    """

    def __init__(self, path: Path, destination: str) -> None:
        self.path, self.destination = path, destination

    @property
    def home(self) -> str:
        """The id by which the destination knows this home; made when it is asked for first."""
        found: str | None = self._load().get("home")
        if found is None:
            found = uuid.uuid4().hex
            self._write(self._read(), found)
        return found

    def of(self, table: str) -> dict[str, int]:
        """Partition key → fingerprint of what was published of a table."""
        found: dict[str, int] = self._read().get(table, {}).get("partitions", {})
        return dict(found)

    def state(self, table: str) -> str | None:
        """The state in which the last publication left a table, in the destination's own words."""
        found: str | None = self._read().get(table, {}).get("state")
        return found

    def note(self, table: str, key: str, fingerprint: int | None, state: str) -> None:
        """Record that a partition is published, or with ``None`` that it was removed, and the table's state now."""
        kept = {other: known for other, known in self.of(table).items() if other != key}
        self._note(table, state=state, partitions=kept | ({} if fingerprint is None else {key: fingerprint}))

    def take_over(self, table: str, keys: Iterable[str], state: str) -> None:
        """Record that nothing is known of a table but its state and which partitions it has."""
        self._note(table, state=state, partitions=dict.fromkeys(keys, UNKNOWN))

    def version_of(self, table: str) -> int | None:
        """Version at which a table without fingerprints was published as a whole."""
        found: int | None = self._read().get(table, {}).get("version")
        return found

    def note_version(self, table: str, version: int | None) -> None:
        """Record that a table is published as it stood at a version."""
        self._note(table, version=version)

    def _note(self, table: str, **facts: object) -> None:
        record = self._read()
        self._write({**record, table: {"partitions": {}, **record.get(table, {}), **facts}})

    @staticmethod
    def in_bigquery(home: Home, settings: Settings) -> Publications:
        """The record of the BigQuery dataset in the settings."""
        gcp = settings.gcp
        return Publications(home.published, f"{gcp.project}.{gcp.bigquery.dataset}")

    def _write(self, record: Mapping[str, object], home: str | None = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_state(
            self.path,
            {"destination": self.destination, "home": home or self._load().get("home"), "tables": record},
        )

    def _read(self) -> dict[str, dict[str, Any]]:
        return dict(self._load().get("tables", {}))

    def _load(self) -> dict[str, Any]:
        content = read_state(self.path, "destination", "tables")
        return content if content and content["destination"] == self.destination else {}


@dataclass(frozen=True)
class Part:
    """A partition to publish.

    Attributes:
        table: declaration of its table.
        key: of the partition.
        fingerprint: of what it was made from; ``None`` if it is gone and has to be removed from the destination, too.
        read: reads its rows.
    """

    table: Table
    key: str
    fingerprint: int | None
    read: Callable[[], pl.DataFrame]


def snapshot_parts(
    tables: Sequence[Table], store: TableReader, publications: Publications, keys: Iterable[str]
) -> list[Part]:
    """The partitions of all snapshots, and of snapshots that are published but no longer in the store.

    Args:
        tables: the published tables of a snapshot; a snapshot is complete if the first has it.
        store: of the tables.
        publications: what is published.
        keys: of the snapshots.
    """
    wanted = {key for key in keys if store.fingerprint_of(tables[0].name, key)}
    every = {key for table in tables for key in publications.of(table.name)}
    gone = {key for key in every if all(store.fingerprint_of(table.name, key) is None for table in tables)}
    return [
        Part(table, key, state_to_publish(store, table.name, key), _reader(store, table, key))
        for table in tables
        for key in sorted(wanted | gone)
    ]


def state_to_publish(store: TableReader, name: str, key: str) -> int | None:
    """What tells whether a partition has changed since it was published; ``None`` where it has not been written.

    Args:
        store: of the tables.
        name: of the table.
        key: of the partition.
    """
    made_from = store.fingerprint_of(name, key)
    if made_from is None or name != PROMOTION_DECISION.name:
        return made_from
    # A person's decision takes the place of the gate's, which was made from the same.
    rows = store.whole(PROMOTION_DECISION).filter(pl.col("period") == key)
    return fingerprint(made_from, rows.rows())


def prediction_parts(store: TableReader, publications: Publications) -> list[Part]:
    """The days of the prediction log, and days that are published but no longer in the store."""
    log = PREDICTION_LOG
    records = pl.struct("source_file", "source_line").hash(20101201)
    # Halves cannot overflow a sum; the whole would.
    halves = (records // (1 << 32)).sum().alias("high"), (records % (1 << 32)).sum().alias("low")
    found = store.scan(log).group_by("period").agg(pl.len().alias("n"), *halves).collect()
    days: dict[str, int | None] = dict.fromkeys(publications.of(log.name))
    days |= {day: fingerprint(*state) for day, *state in found.iter_rows()}
    return [Part(log, day, state, _reader(store, log, day)) for day, state in sorted(days.items())]


def held_out_parts(publications: Publications, states: Mapping[str, int], read: Callable[[], pl.Series]) -> list[Part]:
    """Who is held out now, and what is published of who was.

    Args:
        publications: what is published.
        states: key of the newest snapshot and what stands for its holdouts; empty where nobody is held out.
        read: reads the ids of the customers.
    """

    def rows_of(key: str) -> Callable[[], pl.DataFrame]:
        return lambda: read().alias("customer_id").to_frame().select(period=pl.lit(key), customer_id="customer_id")

    every: dict[str, int | None] = {**dict.fromkeys(publications.of(HELD_OUT.name)), **states}
    return [Part(HELD_OUT, key, state, rows_of(key)) for key, state in sorted(every.items())]


def _reader(store: TableReader, table: Table, key: str) -> Callable[[], pl.DataFrame]:
    return lambda: store.read(table, [key])
