"""A made shop in which only the order of purchases tells people apart.

Who orders in a month orders four times: last in its last week, and three times either in the week before (early) or
three weeks before (late). All amounts are alike. Who was early comes back the next month nine times in ten, who was
late three times, who was away six: so recency, frequency and spend foresee nothing.
"""

from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from custseg_assets.domain.periods import shift

RETURNS = {"early": 0.85, "late": 0.4, "away": 0.625}
_DAYS_BEFORE = {"early": 7, "late": 21}

RHYTHM = """
[snapshots]
lookback = 2
[model]
{kind}
k_range = [3, 8]
n_bootstraps = 4
n_initialisations = 4
min_segment_customers = 10
deep_weeks = 8
deep_epochs = 40
deep_refits = 2
"""
"""Settings with which a network of this shop is trained in a second or two."""


def rhythm_settings(kind: str, deep_python: str | None = None) -> str:
    """The shop's settings for a kind of model."""
    training = f'[training]\ndeep_python = "{deep_python}"\n' if deep_python else ""
    return RHYTHM.format(kind=f'kind = "{kind}"') + training


def rhythm_log(n_months: int = 6, n_customers: int = 700, first_month: date = date(2024, 1, 1)) -> pl.DataFrame:
    """A log with the columns of Online Retail; see ``tests.support.shops.write_log``."""
    rng = np.random.default_rng(11)
    lines: list[tuple[str, str, datetime, int, str]] = []
    habit = ["away"] * n_customers
    for month in (shift(first_month, n, "monthly") for n in range(n_months)):
        for customer, before in enumerate(habit):
            is_back = rng.random() < RETURNS[before]
            habit[customer] = ("early", "late")[rng.integers(2)] if is_back else "away"
            if is_back:
                lines += _orders(month, customer, habit[customer], rng)
    names = ("invoice_id", "product_id", "invoiced_at", "quantity", "customer_id")
    return pl.DataFrame(lines, schema=names, orient="row").with_columns(
        description=pl.format("THING {}", "product_id"), unit_price=pl.lit(2.5), country=pl.lit("United Kingdom")
    )


def _orders(
    month: date, customer: int, habit: str, rng: np.random.Generator
) -> list[tuple[str, str, datetime, int, str]]:
    end = datetime(month.year, month.month, 1) + timedelta(days=calendar.monthrange(month.year, month.month)[1])
    days = [float(rng.uniform(0, 7)), *(_DAYS_BEFORE[habit] + rng.uniform(0, 7, 3))]
    return [
        (
            f"{month:%y%m}{customer:04}{number}",
            f"{10000 + int(rng.integers(40))}",
            end - timedelta(days=float(before) + 1e-4),
            int(rng.integers(8, 13)),
            f"c{customer:04}",
        )
        for number, before in enumerate(days)
    ]
