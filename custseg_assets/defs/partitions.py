"""Periods and snapshots as Dagster partitions, and how one leads to the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from custseg_assets.domain.periods import Cadence, keys_between, shift, start_of
from custseg_assets.domain.schemas import Partitions, Read
from custseg_assets.home.calendar import Calendar
from custseg_assets.settings import SnapshotSettings

_CRON = {"daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *"}
_NO_DATA_YET = "2000-01-01"


@dataclass(frozen=True)
class Layout:
    """The partitions of a home.

    Attributes:
        periods: one partition per period of the source.
        snapshots: one per period with a full observation window.
        n_window: how many periods a snapshot observes.
    """

    periods: dg.TimeWindowPartitionsDefinition
    snapshots: dg.TimeWindowPartitionsDefinition
    n_window: int

    def dependencies(self, reads: Iterable[Read]) -> list[dg.AssetDep]:
        """What is read, as Dagster draws it."""
        return [
            dg.AssetDep(read.table, partition_mapping=self._mapping(read.partitions))
            for read in reads
            if not read.is_circular
        ]

    def is_current(self, calendar: Calendar) -> bool:
        """Whether the periods and snapshots are still those that the layout was made for."""
        pairs = ((self.periods, calendar.period_keys), (self.snapshots, calendar.snapshot_keys))
        return all(tuple(partitions.get_partition_keys()) == keys for partitions, keys in pairs)

    def _mapping(self, partitions: Partitions) -> dg.PartitionMapping | None:
        """How a partition leads to those it reads; ``None`` to its own key, or to a table's every partition."""
        if partitions == "newest":
            return dg.LastPartitionMapping()
        until_first = max(len(self.periods.get_partition_keys()) - 1, 0)
        spans = {
            "window": (self.n_window - 1, 0),
            "until": (until_first, 0),
            "before": (1, 1),
            "before and same": (1, 0),
        }
        return _reaching_back(*spans[partitions]) if partitions in spans else None


def layout_of(calendar: Calendar, settings: SnapshotSettings) -> Layout:
    """The partitions that follow from the data a home has; none before the first source was taken in."""
    n_periods = len(calendar.period_keys)
    return Layout(
        periods=_partitions(calendar.period_keys, settings.cadence),
        snapshots=_partitions(calendar.snapshot_keys, settings.cadence),
        n_window=n_periods if settings.lookback == "all" else settings.lookback,
    )


def _partitions(keys: Sequence[str], cadence: Cadence) -> dg.TimeWindowPartitionsDefinition:
    start = keys[0] if keys else _NO_DATA_YET
    end = shift(start_of(keys[-1]), 1, cadence).isoformat() if keys else _NO_DATA_YET
    # What there is only the data decide; Dagster leaves out what is not over by the clock, but for so many of them.
    today = datetime.now(UTC).date()
    n_ahead = len(keys_between(today, start_of(keys[-1]), cadence)) if keys else 0
    return dg.TimeWindowPartitionsDefinition(
        start=start, end=end, cron_schedule=_CRON[cadence], fmt="%Y-%m-%d", end_offset=n_ahead
    )


def _reaching_back(first: int, last: int) -> dg.TimeWindowPartitionMapping:
    """From so many partitions before the own one to so many before it."""
    with warnings.catch_warnings():
        # Windows that reach before the first period are beta in Dagster 1.13.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(
            start_offset=-first, end_offset=-last, allow_nonexistent_upstream_partitions=True
        )
