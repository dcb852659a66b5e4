"""How often a closing alarms, and whether a lapse is seen beside it, with closings cut out of a real log.

``python benchmarks/closing.py HOME 2011-06-30 2011-07-28 …`` takes the clean lines and the newest model of a home that
``custseg run`` filled. On each date the shop closes for some days, whose lines are taken out. The features when it
opens again are compared with those of the day it closed, with and without the closing left out. With ``--open-since``
it has been open again for some days, and the features are compared with those of the same day without a closing, so
that only the closing differs. Both sides are resampled.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timedelta
from pathlib import Path

import narwhals as nw
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from custseg_assets.domain.drift.closing import leave_out_closing
from custseg_assets.domain.drift.fire_drill import scenarios
from custseg_assets.domain.drift.reference import fit_reference
from custseg_assets.domain.drift.scores import measure_drift
from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS
from custseg_assets.domain.segments.clustering import visible_to_kmeans
from custseg_assets.domain.segments.model import SegmentationModel
from custseg_assets.domain.transactions.features import (
    bought_products,
    customer_features,
    customer_totals,
    order_parts,
    spend_by_period,
)
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings

PERIOD_DAYS, WINDOW_DAYS = 30, 183
CLOSED_DAYS = (0, 2, 7)
LAPSE = next(one.change for one in scenarios(PERIOD_DAYS, WINDOW_DAYS) if one.name.startswith("10 % of active"))


def features_as_of(lines: pl.DataFrame, as_of: datetime, closed_at: datetime, n_closed: int) -> pl.DataFrame:
    """``customer_features`` of the customers that K-means sees, without the lines of the days of a closing."""
    key, start = f"{as_of:%Y-%m-%d}", as_of - timedelta(days=WINDOW_DAYS)
    at = pl.col("invoiced_at")
    is_closed = (at >= closed_at) & (at < closed_at + timedelta(days=n_closed))
    observed = lines.filter(at >= start, at < as_of, ~is_closed).with_columns(period=pl.lit(key))
    window = Window(key, (key,), start, as_of, period_end=as_of, span_keys=(key,))
    narrow = nw.from_native(observed.lazy())
    parts = order_parts(narrow)
    totals, spend = customer_totals(parts, bought_products(narrow), window), spend_by_period(parts, window)
    features = customer_features(totals.to_native().collect(), spend.to_native().collect(), window)
    return features.filter(visible_to_kmeans(features, ("recency_days",)))


def is_alarm(model: SegmentationModel, then: pl.DataFrame, now: pl.DataFrame, seed: int, *, is_left_out: bool) -> bool:
    """Whether a report on one sample against another alarms."""
    n_days = 0
    if is_left_out:
        closing = leave_out_closing(then, now, reference_window_days=WINDOW_DAYS, window_days=WINDOW_DAYS, seed=seed)
        then, now, n_days = closing.reference, closing.current, closing.n_days_left_out
    scaled, scaled_now = (
        model.reference.scale(one.select(model.features).to_numpy().astype(float)) for one in (then, now)
    )
    reference = fit_reference(
        model, scaled, period=model.trained_on, period_days=PERIOD_DAYS, window_days=WINDOW_DAYS - n_days
    )
    return bool(measure_drift(reference, scaled_now, period=model.trained_on, seed=seed).alerts)


def lapsed(customers: pl.DataFrame, n_closed: int, random: np.random.Generator) -> pl.DataFrame:
    """One in ten of those who were active when the shop closed had stopped ordering."""
    at_closing = customers.with_columns(pl.col("recency_days") - n_closed)
    return LAPSE(at_closing, random).with_columns(pl.col("recency_days") + n_closed)


def measure(
    lines: pl.DataFrame, model: SegmentationModel, closed_at: datetime, given: argparse.Namespace
) -> pl.DataFrame:
    """Alarms of a closing at one date: a row for every number of closed days."""
    rows = []
    for n_closed in CLOSED_DAYS:
        as_of = closed_at + timedelta(days=n_closed + given.open_since)
        before = features_as_of(lines, as_of if given.open_since else closed_at, closed_at, 0)
        after = features_as_of(lines, as_of, closed_at, n_closed)
        n_at_end = 0 if given.open_since else n_closed
        alarms = np.zeros(3)
        for seed in range(given.repetitions):
            random = np.random.default_rng(seed)
            then, now = (_draw(customers, given.customers, random) for customers in (before, after))
            alarms += [
                is_alarm(model, then, now, seed, is_left_out=False),
                is_alarm(model, then, now, seed, is_left_out=True),
                is_alarm(model, then, lapsed(now, n_at_end, random), seed, is_left_out=True),
            ]
        rows.append((f"{closed_at:%Y-%m-%d}", n_closed, *(alarms / given.repetitions)))
    return pl.DataFrame(rows, ("closed_at", "closed_days", "not_left_out", "left_out", "lapse"), orient="row")


def _draw(customers: pl.DataFrame, n_customers: int, random: np.random.Generator) -> pl.DataFrame:
    drawn = customers[random.integers(customers.height, size=n_customers)]
    # Who is drawn twice is two customers.
    return drawn.with_columns(customer_id=pl.format("{}", pl.int_range(pl.len())))


def main() -> None:
    """Measure, and print one row for each date and number of closed days, then the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("dates", nargs="+", type=datetime.fromisoformat, metavar="CLOSED_AT")
    parser.add_argument("--open-since", type=int, default=0, metavar="DAYS", help="for how long it has been open again")
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=40)
    given = parser.parse_args()
    home = OpenHome(load_settings(home=given.home))
    lines, model = home.tables.read(CLEAN_TRANSACTIONS), home.champions.model_at(home.newest_snapshot())
    every = pl.concat(measure(lines, model, date, given) for date in given.dates)
    rates = pl.col("not_left_out", "left_out", "lapse")
    means = every.group_by("closed_days").agg(rates.mean()).sort("closed_days")
    with pl.Config(
        tbl_rows=-1, tbl_formatting="MARKDOWN", tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True
    ):
        print(every, means, sep="\n\n")


if __name__ == "__main__":
    main()
