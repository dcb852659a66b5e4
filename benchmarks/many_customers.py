"""What the steps that are as large as the customers cost, for any number of invented customers.

usage: python -m benchmarks.many_customers --customers 20000000 [--folder DIR] [--steps NAME ...]

A home is filled with the features of three snapshots and the lines of four months, drawn by customer from the number of
its slice, so that no process holds all of them. Then the assets are run one after the other, each in a process of its
own, whose CPU seconds and peak memory, from the system's own accounting, include the imports. The shop is invented:
four kinds of customers who differ in recency, orders and spend, 4,000 products of which few are popular, and a window
of two months. It has to be 1,000 customers at least. The folder takes some 400 bytes a customer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.defs.assets import every_asset
from custseg_assets.defs.partitions import layout_of
from custseg_assets.defs.resources import mlflow_run
from custseg_assets.domain import schemas
from custseg_assets.domain.periods import window_of
from custseg_assets.home.calendar import Calendar
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.settings import Settings, SnapshotSettings
from custseg_assets.stores.delivery import Delivery
from custseg_assets.stores.line_digests import digest_of_sums
from custseg_assets.stores.staged import stage
from custseg_assets.training.local import LocalLauncher

PERIODS = ("2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01")
SNAPSHOTS = PERIODS[1:]
AT_ONCE = 500_000
N_PRODUCTS = 4_000
LINES_A_MONTH = 0.8
"""Lines of a customer in a month, on average."""
KINDS = np.array([[0.12, 2.1, 7.6], [0.35, 1.2, 6.6], [0.20, 0.5, 5.2], [0.75, 0.2, 4.6]])
"""Of each kind of customer: recency as a share of the window, means of the logarithms of orders and of spend."""
STEPS = (
    *(("scaled_features", SNAPSHOTS[0]), ("model_candidates", SNAPSHOTS[0])),
    *(("segmentation_model", SNAPSHOTS[0]), ("promotion_decision", SNAPSHOTS[0])),
    *(("segment_assignments", key) for key in SNAPSHOTS),
    *(("scaled_features", SNAPSHOTS[-1]), ("drift_report", SNAPSHOTS[-1])),
    *(("segment_profiles", SNAPSHOTS[-1]), ("segment_migrations", SNAPSHOTS[-1])),
    *(("customer_value", key) for key in SNAPSHOTS),
    *(("product_recommendations", SNAPSHOTS[-1]), ("serving_release", None)),
)


class InventedHome(LockedHome):
    """A home whose calendar follows from no file."""

    @property
    def calendar(self) -> Calendar:
        """Four months, of which the last three have snapshots."""
        return self._keep("calendar", None, lambda: Calendar(self.settings.snapshots, (_delivery(),)))


def _delivery() -> Delivery:
    first, last = date(2024, 1, 1), date(2024, 4, 30)
    days = {
        (first + timedelta(days=n)).isoformat(): (1, digest_of_sums([n, n])) for n in range((last - first).days + 1)
    }
    return Delivery("invented", "invented", first, last, len(days), days, {}, None)


def settings_of(folder: Path) -> Settings:
    """Of the home in a folder."""
    return Settings(home=folder, snapshots=SnapshotSettings(lookback=2))


def main(argv: Sequence[str] | None = None) -> int:
    """Fill a home and run every step; prints a table."""
    arguments = _arguments(argv)
    if arguments.only:
        _run_only(arguments)
        return 0
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="many-customers-"))
    print(f"| {arguments.customers:,} customers | snapshot | CPU s | peak MiB |\n| --- | --- | --- | --- |")
    try:
        if not (folder / "tables").exists():
            _measure(arguments, folder, "invent", None)
        for name, key in STEPS:
            if not arguments.steps or name in arguments.steps:
                _measure(arguments, folder, name, key)
        print(f"\nhome: {_gib(folder):.2f} GiB, of it releases {_gib(folder / 'releases'):.2f} GiB")
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where to keep the home; a temporary one is removed at the end")
    parser.add_argument("--steps", nargs="*", help="only these, of a home that is there")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--key", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _measure(arguments: argparse.Namespace, folder: Path, name: str, key: str | None) -> None:
    command = [sys.executable, "-m", "benchmarks.many_customers", "--customers", str(arguments.customers)]
    command += ["--folder", str(folder), "--only", name, *(["--key", key] if key else [])]
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} {key}: ended with {process.returncode}")
    cpu = used.ru_utime + used.ru_stime
    print(f"| {name} | {key or '–'} | {cpu:,.1f} | {used.ru_maxrss / 1024:,.0f} |", flush=True)


def _gib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**30


def _run_only(arguments: argparse.Namespace) -> None:
    opened = OpenHome(settings_of(arguments.folder), has_viewers=False)
    with opened.paths.locked() as lock:
        home = InventedHome(opened, lock)
        if arguments.only == "invent":
            invent(home, arguments.customers)
        else:
            materialise(home, arguments.only, arguments.key)


def materialise(home: LockedHome, name: str, key: str | None) -> None:
    """Run an asset, as a job does.

    Raises:
        RuntimeError: it failed.
    """
    layout = layout_of(home.calendar, home.settings.snapshots)
    asset: Any = next(
        one
        for one in every_asset(layout, home.settings)
        if isinstance(one, dg.AssetsDefinition) and dg.AssetKey(name) in one.keys
    )
    resources = {"home": home, "mlflow": mlflow_run(home.registry), "trainer": LocalLauncher(3600)}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], partition_key=key, instance=instance, resources=resources)
        for evaluation in result.get_asset_check_evaluations():
            if not evaluation.passed:
                print(f"{name} {key}: {evaluation.check_name} {evaluation.metadata['summary'].value}", file=sys.stderr)
    if not result.success:
        raise RuntimeError(f"{name} {key} failed")


def invent(home: LockedHome, n_customers: int) -> None:
    """Write the features of each snapshot and the lines of each month; equal numbers give equal tables."""
    with home.staging() as folder:
        for key in SNAPSHOTS:
            features = stage(schemas.CUSTOMER_FEATURES, _features(key, n_customers), folder / f"features {key}")
            home.tables.write(schemas.CUSTOMER_FEATURES, features, {key: 1})
        for key in PERIODS:
            lines = stage(schemas.CLEAN_TRANSACTIONS, _lines(key, n_customers), folder / f"lines {key}")
            home.tables.write(schemas.CLEAN_TRANSACTIONS, lines, {key: 1})


def _slices(n_customers: int) -> Iterator[tuple[int, pl.Series, NDArray[np.int64]]]:
    """Number, ids and kinds of the customers of each slice; kinds are mixed among the ids."""
    for number, start in enumerate(range(0, n_customers, AT_ONCE)):
        stop = min(start + AT_ONCE, n_customers)
        ids = pl.select(pl.format("c{}", pl.int_range(start, stop).cast(pl.String).str.zfill(9))).to_series()
        yield number, ids, np.random.default_rng([1, number]).choice(4, stop - start, p=[0.1, 0.25, 0.3, 0.35])


def _features(key: str, n_customers: int) -> Iterator[pl.DataFrame]:
    window = window_of(key, PERIODS[0], 2, "monthly")
    months = [month for month in PERIODS if window.start.date() <= date.fromisoformat(month) < window.as_of.date()]
    for number, ids, kinds in _slices(n_customers):
        rng = np.random.default_rng([2, SNAPSHOTS.index(key), number])
        n, own = len(ids), np.random.default_rng([3, number])
        # A customer is itself from month to month, and a little different in each.
        recency, orders, spend = (
            KINDS[kinds, column] + width * (0.8 * own.standard_normal(n) + 0.6 * rng.standard_normal(n))
            for column, width in enumerate((0.12, 0.35, 0.6))
        )
        n_orders = 1 + np.floor(np.exp(orders) - 0.7 * rng.random(n)).clip(0).astype(np.int64)
        net = np.exp(spend).round(2)
        days = np.floor(recency.clip(0, 0.999) * (window.as_of - window.start).days).astype(np.int64)
        first = np.maximum(days, rng.integers(0, 60, n))
        yield _rows(
            schemas.CUSTOMER_FEATURES,
            {
                "period": pl.repeat(key, n, eager=True),
                "customer_id": ids,
                "recency_days": days,
                "frequency_orders": n_orders,
                "monetary_gross": net,
                "monetary_net": np.where(rng.random(n) < 0.01, 0.0, net),
                "avg_order_value": net / n_orders,
                "n_products": n_orders + rng.integers(0, 5, n),
                "n_cancelled_orders": np.zeros(n, np.int64),
                "cancellation_rate": np.zeros(n),
                "tenure_days": first,
                "favourite_weekday": rng.integers(0, 7, n),
                "favourite_hour": rng.integers(8, 20, n),
                "monthly_spend_mean": net / 2,
            },
        ).filter(pl.Series(sum(_count_lines(month, number, kinds) for month in months) > 0))


def _lines(key: str, n_customers: int) -> Iterator[pl.DataFrame]:
    start = datetime.fromisoformat(key)
    for number, ids, kinds in _slices(n_customers):
        rng, n_lines = np.random.default_rng([5, PERIODS.index(key), number]), _count_lines(key, number, kinds)
        who, n = np.repeat(np.arange(len(ids)), n_lines), int(n_lines.sum())
        product = (N_PRODUCTS * rng.random(n) ** 3).astype(np.int64) + 20_000
        products = pl.Series(product).cast(pl.String)
        yield _rows(
            schemas.CLEAN_TRANSACTIONS,
            {
                "period": pl.repeat(key, n, eager=True),
                "customer_id": ids.gather(who),
                "invoiced_at": pl.Series(rng.integers(0, 28 * 86_400, n) * 1_000_000).cast(pl.Duration("us")) + start,
                "product_id": products,
                "description": pl.select(pl.format("PRODUCT {}", products)).to_series(),
                "quantity": np.ones(n),
                "unit_price": np.full(n, 9.5),
                "line_amount": np.full(n, 9.5),
                # Never all of a customer's lines.
                "is_cancellation": (rng.random(n) < 0.01) & (np.diff(who, prepend=-1) == 0),
            },
        )


def _count_lines(key: str, number: int, kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lines of each customer of a slice in a month."""
    rng = np.random.default_rng([4, PERIODS.index(key), number])
    return rng.poisson(LINES_A_MONTH * np.array([2.5, 1.2, 0.8, 0.6])[kinds])


def _rows(table: schemas.Table, columns: dict[str, Any]) -> pl.DataFrame:
    """Rows of a table from some of its columns; the others are null."""
    given = pl.DataFrame(columns).cast({name: table.schema[name] for name in columns})
    missing = [column for column in table.columns if column.name not in columns]
    return given.with_columns(pl.lit(None, one.dtype).alias(one.name) for one in missing).select(table.schema.names())


if __name__ == "__main__":
    sys.exit(main())
