"""Small shops for whole runs, and the command run on them in this process."""

from __future__ import annotations

import calendar
import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from custseg_assets import cli
from custseg_assets.domain.periods import shift
from custseg_assets.domain.schemas import RAW_TRANSACTIONS
from custseg_assets.home import intake

HEADERS = {
    "invoice_id": "InvoiceNo",
    "product_id": "StockCode",
    "description": "Description",
    "quantity": "Quantity",
    "invoiced_at": "InvoiceDate",
    "unit_price": "UnitPrice",
    "customer_id": "CustomerID",
    "country": "Country",
}

QUICK = """
[snapshots]
lookback = 2
[model]
k_range = [3, 4]
n_bootstraps = 4
n_initialisations = 2
min_bootstrap_ari = 0.7
min_segment_customers = 10
"""
"""Settings with which a whole run of a small shop takes few seconds."""


@dataclass(frozen=True)
class Kind:
    """Customers who are alike: how many, orders a month, lines an order, units a line."""

    n_customers: int
    orders_per_month: float
    n_lines: int
    units: int


KINDS = (Kind(40, 8, 2, 12), Kind(60, 1, 2, 4), Kind(60, 1 / 3, 1, 1))
"""Three kinds that every clustering must tell apart: often and much, monthly, seldom and little."""


OTHERS = (Kind(30, 7, 2, 9), Kind(70, 1, 2, 4), Kind(50, 1 / 3, 1, 1))
"""Customers of another shop."""


def use_small_demo(patch: pytest.MonkeyPatch) -> None:
    """Have the demo be a shop of 150 customers instead of the large one."""

    def small_demo() -> pl.DataFrame:
        lines = shop_log(3, date(2023, 1, 1), OTHERS).with_row_index("source_row")
        schema = {name: kind for name, kind in RAW_TRANSACTIONS.schema.items() if name not in ("period", "source_file")}
        there = [pl.col(name).cast(kind) for name, kind in schema.items() if name in lines.columns]
        missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in lines.columns]
        return lines.select(*there, *missing).select([*schema])

    patch.setattr(intake, "generate_demo", small_demo)


def shop_log(n_months: int = 4, first_month: date = date(2024, 1, 1), kinds: tuple[Kind, ...] = KINDS) -> pl.DataFrame:
    """A log with the columns of Online Retail; the first months of a longer one are those of a shorter one."""
    return pl.concat([_month_of(shift(first_month, n, "monthly"), kinds) for n in range(n_months)])


def _month_of(month: date, kinds: tuple[Kind, ...]) -> pl.DataFrame:
    rng = np.random.default_rng([month.year, month.month])
    n_days = calendar.monthrange(month.year, month.month)[1]
    orders: list[tuple[str, datetime, Kind]] = []
    for letter, kind in zip("ABC", kinds, strict=False):
        for number in range(kind.n_customers):
            for _ in range(rng.poisson(kind.orders_per_month) if kind.orders_per_month != 1 else 1):
                minute = int(rng.integers(n_days * 1440))
                orders.append(
                    (f"{letter}{number:03}", datetime(month.year, month.month, 1) + timedelta(minutes=minute), kind)
                )
    lines: list[tuple[str, str, datetime, int, str | None]] = [
        (f"{month:%y%m}{order:05}", f"{10000 + int(product)}", at, int(rng.poisson(kind.units)) + 1, customer)
        for order, (customer, at, kind) in enumerate(sorted(orders, key=lambda order: order[1]))
        for product in rng.choice(40, kind.n_lines, replace=False)
    ]
    at = datetime(month.year, month.month, 2, 12)
    lines += [
        (f"{month:%y%m}90001", "10001", at, 1, None),
        (f"{month:%y%m}90002", "POST", at, 1, "A000"),
        (f"C{month:%y%m}90003", "10001", at, -1, "A001"),
    ]
    names = ("invoice_id", "product_id", "invoiced_at", "quantity", "customer_id")
    return pl.DataFrame(lines, schema=names, orient="row").with_columns(
        description=pl.format("THING {}", "product_id"),
        unit_price=1.5 + pl.col("product_id").str.slice(-1).cast(pl.Float64, strict=False).fill_null(0.0),
        country=pl.lit("United Kingdom"),
    )


def write_log(lines: pl.DataFrame, path: Path, headers: Mapping[str, str] = HEADERS) -> Path:
    """Write columns of a log under the headers a shop gives them."""
    lines.select(pl.col(name).alias(header) for name, header in headers.items()).write_csv(
        path, datetime_format="%Y-%m-%d %H:%M:%S"
    )
    return path


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code, and what it said on standard output and on standard error."""

    status: int
    out: str
    err: str


def custseg(home: Path, *arguments: object, config: str | Path | None = None) -> Outcome:
    """Run the command in this process.

    Args:
        home: its home.
        arguments: its arguments.
        config: text, or path, of its configuration.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        quiet(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("CUSTSEG_HOME", str(home))
        if config is not None:
            patch.setenv("CUSTSEG_CONFIG", str(_written(config, home)))
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class FilledShop:
    """A home that one run from nothing has filled.

    Attributes:
        home: its folder.
        source: its log, ``log.csv`` beside the home.
        outcome: how the run ended.
    """

    home: Path
    source: Path
    outcome: Outcome


def fill_shop(folder: Path, log: pl.DataFrame) -> FilledShop:
    """Run the whole pipeline on a log, in ``folder/home``, with nothing of Google's."""
    source = write_log(log, folder / "log.csv")
    outcome = custseg(folder / "home", "run", "--source", source, config=QUICK)
    assert outcome.status == 0, outcome.err
    return FilledShop(folder / "home", source, outcome)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of importing MLflow and of resolving Dagster's jobs: what they tell is theirs to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="custseg_")
        # Google's client leaves the connection of a download that is refused to the garbage collector, which may come
        # while code of custseg runs.
        warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
        yield


def _written(config: str | Path, home: Path) -> Path:
    if isinstance(config, Path):
        return config
    path = home.with_name(f"{home.name}.toml")
    path.write_text(config)
    return path
