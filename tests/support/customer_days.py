"""Made days of customers who order at rates of their own and may leave; and what a model of value writes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl

from custseg_assets.domain.value.days import DAYS, CustomerDays, day_number, known_at
from custseg_assets.domain.value.replay import ValueModel, find_segments
from custseg_assets.domain.value.tables import describe_model, predict_customers, sum_figures

FIRST = day_number(date(2024, 1, 1))


def made_days(n_customers: int = 400, n_days: int = 300, seed: int = 1) -> pl.DataFrame:
    """Rows of ``count_days``: customers come in the first 60 days, and a third of them leave at some time."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, int, int, int]] = []
    for number in range(n_customers):
        gap, begin = float(rng.choice([7.0, 30.0, 90.0])), int(rng.integers(60))
        end = int(rng.integers(begin + 1, n_days + 1)) if rng.random() < 1 / 3 else n_days
        # Who orders seldom spends most an order.
        day, worth = float(begin), gap * float(rng.lognormal(0, 0.3))
        while day < end:
            rows.append((f"c{number:05}", FIRST + int(day), 1, int(worth * rng.lognormal(0, 0.2) * 1e6)))
            day += 1 + rng.exponential(gap)
    return pl.DataFrame(rows, schema=DAYS, orient="row")


def customer_days(*args: int) -> CustomerDays:
    """The same as arrays."""
    return CustomerDays.of(made_days(*args))


def rows_of(
    model: ValueModel, days: CustomerDays, placed_at: Callable[[int], pl.DataFrame | None]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What a model writes of the customers known at its day: rows of ``value_model`` and of ``customer_value``."""
    known = known_at(days, model.at)
    ids = days.ids.gather(known.customers)
    segments = find_segments(ids, placed_at(model.at))
    return (
        describe_model(model, sum_figures(model, known, segments), len(ids)),
        predict_customers(model, ids, known, segments),
    )
