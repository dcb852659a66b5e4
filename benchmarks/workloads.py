"""What ``bench.py`` measures, each in a process of its own: ``python -m benchmarks.workloads NAME ARGUMENT…``.

A workload prints one line of JSON at its end, and its progress on standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import narwhals as nw
import polars as pl

from custseg_assets.domain.schemas import MAPPED_NAMES
from custseg_assets.domain.transactions import cleaning, features
from custseg_assets.errors import CustsegError
from custseg_assets.home.calendar import Calendar
from custseg_assets.home.intake import take_in_source
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource
from custseg_assets.stores.staged import key_batches

TAKING_IN, READING, CLEANING, ORDERS = "taking in", "reading back", "cleaning", "orders and products"
LAST_SNAPSHOT, OTHER_SNAPSHOTS = "features, last snapshot", "features, other snapshots"


class Clock:
    """Adds up the CPU seconds of steps, those of all threads."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the body under a name."""
        started = time.process_time()
        yield
        self.cpu_s[name] += time.process_time() - started


def take_in(source: str, folder: str) -> dict[str, Any]:
    """Read a source as ``custseg run`` does, and write its mapped columns as ``1x.csv``.

    Args:
        source: path of a file or folder, or ``demo``.
        folder: where to write.

    Returns:
        The number of lines, and the preset whose rules apply to them.
    """
    store = DeliveryStore(Path(folder) / "taken_in")
    deliveries = take_in_source(store, source, Settings(), _say)
    mapped = {name for delivery in deliveries for name in delivery.columns}
    lines = store.scan(deliveries).select(name for name in MAPPED_NAMES if name in mapped)
    lines.sink_csv(Path(folder) / "1x.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    presets = [delivery.preset for delivery in deliveries if delivery.preset]
    return {"n_rows": sum(delivery.n_rows for delivery in deliveries), "preset": min(presets, default="")}


def multiply(folder: str, factor: str) -> None:
    """Write the log of a shop ``factor`` times as large: ``1x.csv`` over and over, with other customers and invoices.

    The copies of a line follow each other, so that the log stays in the order of time, as a larger shop's would be.

    Args:
        folder: where ``1x.csv`` is.
        factor: how many copies.
    """
    lines = pl.scan_csv(Path(folder) / "1x.csv", infer_schema=False)
    copies = lines.with_columns(pl.lit([str(number) for number in range(int(factor))]).alias("copy")).explode("copy")
    ids = [name for name in ("customer_id", "invoice_id") if name in lines.collect_schema()]
    # At the end, because the start of an invoice's id says whether it cancels.
    copies.with_columns(pl.col(ids) + "-" + pl.col("copy")).drop("copy").sink_csv(Path(folder) / f"{factor}x.csv")


def steps(source: str, preset: str, folder: str) -> dict[str, Any]:
    """Reading, cleaning and features as the assets do them, in their batches, but without Dagster, checks and tables.

    Taking in is all that ``custseg run`` does with a file: recognise it, type it, keep it as Parquet with a digest of
    each day.

    Args:
        source: path of a file or folder.
        preset: the preset whose rules apply, or nothing.
        folder: where the deliveries are kept.

    Returns:
        The number of lines, of batches and of customers in the last snapshot, and CPU seconds by step.
    """
    settings = Settings.model_validate({"home": folder, "source": {"preset": preset or None}})
    clock, home = Clock(), OpenHome(settings)
    store = home.deliveries
    with clock.step(TAKING_IN):
        deliveries = take_in_source(store, source, settings, _say)
        store.set_current(CurrentSource(tuple(deliveries), description=source))
    # As if the last period were over, so that every snapshot is measured in the same way.
    calendar = Calendar(settings.snapshots, tuple(deliveries), home.calendar.period_keys[-1])
    rules = home.cleaning_rules
    orders, products = [], []
    for keys in key_batches(calendar.rows_of(calendar.period_keys)):
        with clock.step(READING):
            lines = store.scan_periods(deliveries, keys, settings.snapshots.cadence).collect()
        with clock.step(CLEANING):
            classified = cleaning.classify(nw.from_native(lines.lazy()), rules).collect().lazy()
            cleaning.rejected_lines(classified).collect()
            clean = cleaning.clean_lines(classified, rules).collect().lazy()
        with clock.step(ORDERS):
            orders.append(features.order_parts(clean).collect().to_native())
            products.append(features.bought_products(clean).collect().to_native())
        _say(f"  {keys[0]} … {keys[-1]}: {lines.height:,} lines")
        del lines, classified, clean
    n_customers = _measure_snapshots(clock, calendar, pl.concat(orders), pl.concat(products))
    n_rows = sum(delivery.n_rows for delivery in deliveries)
    return {"n_rows": n_rows, "n_batches": len(orders), "n_customers": n_customers, "cpu_s": clock.cpu_s}


def _measure_snapshots(clock: Clock, calendar: Calendar, orders: pl.DataFrame, products: pl.DataFrame) -> int:
    """Features of every snapshot; returns the number of customers in the last."""
    parts, bought = nw.from_native(orders.lazy()), nw.from_native(products.lazy())
    n_customers = 0
    for key in calendar.snapshot_keys:
        with clock.step(LAST_SNAPSHOT if key == calendar.snapshot_keys[-1] else OTHER_SNAPSHOTS):
            window = calendar.window(key)
            totals = features.customer_totals(parts, bought, window).collect().to_native()
            spend = features.spend_by_period(parts, window).collect().to_native()
            n_customers = features.customer_features(totals, spend, window).height
    return n_customers


def history(home: str) -> list[dict[str, Any]]:
    """Every step of every run that a home's Dagster instance recorded, in order, with its wall seconds.

    Args:
        home: of the runs.
    """
    with dg.DagsterInstance.from_config(str(Path(home) / "dagster")) as instance:
        return [
            {"job": run.job_name, "step": step.step_key, "wall_s": step.end_time - step.start_time}
            for run in reversed(instance.get_runs())
            for step in sorted(instance.get_run_step_stats(run.run_id), key=lambda step: step.start_time or 0)
            if step.start_time and step.end_time
        ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


WORKLOADS: Mapping[str, Callable[..., Any]] = {
    workload.__name__: workload for workload in (take_in, multiply, steps, history)
}

if __name__ == "__main__":
    try:
        print(json.dumps(WORKLOADS[sys.argv[1]](*sys.argv[2:])))
    except CustsegError as error:
        sys.exit(f"bench: {error}")
