"""The demo as the monthly files that a shop would export, and the configuration of the home they land in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from custseg_assets.commands.replay import as_delivered
from custseg_assets.domain.demo import generate_demo
from custseg_assets.domain.transactions.platforms import ONLINE_RETAIL
from tests.support.live import QUICK_SENSORS

CONFIG = f"""
[source]
preset = "online_retail"
{QUICK_SENSORS}"""
"""What a shop with such an export would write, and short intervals of the sensors."""


def monthly_files(seed: int, n_customers: int) -> Mapping[str, pl.DataFrame]:
    """A demo shop's log as the csv files it would export, by first day of the month.

    Args:
        seed: of the shop.
        n_customers: customers with an id.
    """
    headers = {name: header for name, ((header,), *_) in ONLINE_RETAIL.layouts[0].columns.items()}
    log = generate_demo(seed, n_customers)
    # A line whose date cannot be read stands between two that can.
    month = log["invoiced_at"].dt.strftime("%Y-%m-01").forward_fill()
    parts = log.with_columns(month=month).partition_by("month", as_dict=True, include_key=False, maintain_order=True)
    return {str(key): as_delivered(lines, [*headers]).rename(headers) for (key,), lines in parts.items()}


def drop_file(lines: pl.DataFrame, landing: Path, key: str) -> None:
    """Drop a month's file, under a name that is not taken in until it is whole."""
    landing.mkdir(parents=True, exist_ok=True)
    unfinished = landing / f"{key}.csv.part"
    lines.write_csv(unfinished, datetime_format="%Y-%m-%d %H:%M:%S")
    unfinished.rename(landing / f"{key}.csv")
