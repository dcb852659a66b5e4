"""Periods and snapshots as Dagster partitions, and how one leads to the other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from custseg_assets.domain.periods import Cadence, shift, start_of
from custseg_assets.home.fingerprints import Provenance
from custseg_assets.settings import Settings

_CRON = {"daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *"}
_NO_DATA_YET = "2000-01-01"


@dataclass(frozen=True)
class Layout:
    """The partitions of a home.

    Attributes:
        periods: one partition per period of the source.
        snapshots: one per period with a full observation window.
        window: maps a snapshot to the periods it observes.
        until: maps a snapshot to every period, or every snapshot, up to its own.
        previous: maps a snapshot to itself and the one before.
        before: maps a snapshot to the one before alone, for a table that reads its own earlier partitions.
    """

    periods: dg.TimeWindowPartitionsDefinition
    snapshots: dg.TimeWindowPartitionsDefinition
    window: dg.TimeWindowPartitionMapping
    until: dg.TimeWindowPartitionMapping
    previous: dg.TimeWindowPartitionMapping
    before: dg.TimeWindowPartitionMapping


def layout_of(provenance: Provenance, settings: Settings) -> Layout:
    """The partitions that follow from the data a home has; none before the first source was taken in."""
    cadence, lookback = settings.snapshots.cadence, settings.snapshots.lookback
    n_periods = len(provenance.period_keys)
    reach = n_periods if lookback == "all" else lookback
    return Layout(
        periods=_partitions(provenance.period_keys, cadence),
        snapshots=_partitions(provenance.snapshot_keys, cadence),
        window=_reaching_back(reach - 1),
        until=_reaching_back(max(n_periods - 1, 0)),
        previous=_reaching_back(1),
        before=_reaching_back(1, until=1),
    )


def is_current(layout: Layout, provenance: Provenance) -> bool:
    """Whether the periods and snapshots are still those that a layout was made for."""
    pairs = ((layout.periods, provenance.period_keys), (layout.snapshots, provenance.snapshot_keys))
    return all(tuple(partitions.get_partition_keys()) == tuple(keys) for partitions, keys in pairs)


def _partitions(keys: Sequence[str], cadence: Cadence) -> dg.TimeWindowPartitionsDefinition:
    start = keys[0] if keys else _NO_DATA_YET
    end = shift(start_of(keys[-1]), 1, cadence).isoformat() if keys else _NO_DATA_YET
    return dg.TimeWindowPartitionsDefinition(start=start, end=end, cron_schedule=_CRON[cadence], fmt="%Y-%m-%d")


def _reaching_back(n_periods: int, until: int = 0) -> dg.TimeWindowPartitionMapping:
    with warnings.catch_warnings():
        # Windows that reach before the first period are beta in Dagster 1.13.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(
            start_offset=-n_periods, end_offset=-until, allow_nonexistent_upstream_partitions=True
        )
