"""Partitions are what the data say, wherever the clock stands."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import get_args

import dagster as dg
import polars as pl
import pytest

from custseg_assets.defs.partitions import layout_of
from custseg_assets.domain.periods import Cadence, keys_between, period_start, shift
from custseg_assets.home.calendar import Calendar
from custseg_assets.settings import SnapshotSettings
from tests.support.shops import HEADERS, QUICK, custseg, shop_log, write_log


def partitions_until(last: date, cadence: Cadence) -> tuple[dg.TimeWindowPartitionsDefinition, tuple[str, ...]]:
    keys = keys_between(shift(period_start(last, cadence), -3, cadence), last, cadence)
    calendar = Calendar(SnapshotSettings(cadence=cadence), ())
    calendar.period_keys = keys
    return layout_of(calendar, SnapshotSettings(cadence=cadence)).periods, keys


@pytest.mark.parametrize("cadence", get_args(Cadence))
@pytest.mark.parametrize("days", [-800, -40, -1, 0, 1, 2, 33, 400])
def test_partitions_are_those_of_the_data_whatever_the_clock_says(cadence: Cadence, days: int) -> None:
    partitions, keys = partitions_until(datetime.now(UTC).date() + timedelta(days=days), cadence)
    assert tuple(partitions.get_partition_keys()) == keys
    assert partitions.get_last_partition_key() == keys[-1]
    assert all(partitions.has_partition_key(key) for key in keys)
    following = shift(date.fromisoformat(keys[-1]), 1, cadence).isoformat()
    assert not partitions.has_partition_key(following)


def test_a_log_that_ends_today_is_taken_in_and_followed_by_tomorrows_file(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    first = shift(today.replace(day=1), -3, "monthly")
    lines = shop_log(5, first)
    until = pl.lit(datetime.combine(today, datetime.max.time()))
    log = write_log(lines.filter(pl.col("invoiced_at") <= until), tmp_path / "log.csv")
    config = f'{QUICK}\n[landing]\nsettle_seconds = 0\n[source]\npath = "{log}"\n'
    home = tmp_path / "home"
    outcome = custseg(home, "run", config=config)
    assert outcome.status == 0, outcome.err
    tomorrow = today + timedelta(days=1)
    assert f", as of {tomorrow}, " in outcome.out
    new = lines.filter(pl.col("invoiced_at").dt.date() == tomorrow)
    (home / "landing").mkdir(exist_ok=True)
    write_log(new, home / "landing" / "tomorrow.csv", HEADERS)
    outcome = custseg(home, "run")
    assert outcome.status == 0, outcome.err
    assert f", as of {tomorrow + timedelta(days=1)}, " in outcome.out
