"""How many customers move between segments from month to month, and what their segments foresee, by rule.

``python benchmarks/moves.py HOME --cdnow CDNOW_master.txt`` takes the closed snapshots of homes that ``custseg run``
filled, assigns their customers anew by each rule, with the models that are in force there, and prints a table per home.
``CDNOW_master.txt`` is in the wheel of ``lifetimes`` 0.11.3 (``lifetimes/datasets``); a home is filled with it first.
Moves are those of ``measure_moves``; concordance is what the promotion gate compares models by.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import narwhals as nw
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from custseg_assets.domain.periods import end_of
from custseg_assets.domain.promotion.validity import (
    PairedValidity,
    combine_validity,
    measure_outcomes,
    measure_validity,
)
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES
from custseg_assets.domain.segments.clustering import assign_customers
from custseg_assets.domain.segments.migrations import MoveRates, measure_moves
from custseg_assets.domain.segments.model import RFM, SegmentationModel
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings


class Month(NamedTuple):
    """A closed snapshot: who is known, their features, the model in force, and what they did in the next period.

    ``outcomes`` is ``None`` where the next period is not over.
    """

    features: pl.DataFrame
    known: pl.Series
    model: SegmentationModel
    outcomes: pl.DataFrame | None


Rule = Callable[[Sequence[Month]], list[pl.DataFrame]]


def months_of(home: OpenHome) -> list[Month]:
    """The closed snapshots of a home that have segments, oldest first."""
    last_date = max(delivery.last_date for delivery in home.calendar.deliveries)
    observed_until = datetime.combine(last_date + timedelta(days=1), datetime.min.time())
    cadence = home.settings.snapshots.cadence
    closed = [key for key in home.calendar.period_keys if end_of(key, cadence) <= observed_until]
    following = dict(pairwise(closed))

    def month(key: str) -> Month:
        lines = home.tables.scan(CLEAN_TRANSACTIONS, home.calendar.periods_until(key))
        outcomes = None
        if key in following:
            period = home.tables.scan(CLEAN_TRANSACTIONS, [following[key]]).collect()
            outcomes = measure_outcomes(nw.from_native(period.lazy())).collect().to_native()
        return Month(
            home.tables.read(CUSTOMER_FEATURES, [key]),
            lines.select("customer_id").unique().collect()["customer_id"],
            home.champions.model_at(key),
            outcomes,
        )

    segmented = home.champions.segmented(home.calendar.snapshot_keys)
    return [month(key) for key in segmented if key in closed]


def by_margin_rule(months: Sequence[Month], margin_rule: float, *, lasting: bool = True) -> list[pl.DataFrame]:
    """Assignments by the pipeline's rule; without ``lasting`` a move has to be clear, however long it lasts."""

    def assign() -> Iterator[pl.DataFrame]:
        before, earlier_model = None, None
        for month in months:
            if before is not None and not lasting:
                # As if every customer had been nearest to its own segment: then no other is nearest twice in a row.
                before = before.with_columns(is_held=pl.lit(value=False))
            before = assign_customers(month.features, month.known, month.model, before, earlier_model, margin_rule)
            earlier_model = month.model
            yield before

    return list(assign())


def by_quintiles(months: Sequence[Month], segment: Callable[[pl.DataFrame], pl.Series]) -> list[pl.DataFrame]:
    """Assignments in which those of K-means have given way to groups of RFM quintiles.

    Args:
        months: the snapshots.
        segment: the group of each customer, from its quintiles of recency (5 is the most recent), frequency and
            monetary value, in columns of the features' names.
    """

    def regroup(assigned: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
        rest = assigned.filter("is_rule_segment")
        seen = assigned.filter(~pl.col("is_rule_segment")).join(features, on="customer_id")
        worth = seen.select((-pl.col(name) if name == "recency_days" else pl.col(name)).alias(name) for name in RFM)
        quintiles = worth.select(quintile(pl.col(name)) for name in RFM)
        grouped = seen.with_columns(segment_id=segment(quintiles).cast(pl.String)).select(rest.columns)
        return pl.concat([rest, grouped]).sort("customer_id")

    nearest = by_margin_rule(months, 0.0)
    return [regroup(assigned, month.features) for assigned, month in zip(nearest, months, strict=True)]


def quintile(values: pl.Expr) -> pl.Expr:
    """1 for the lowest fifth of the values to 5 for the highest; equal values are in one."""
    return (values.rank() * 5 / values.len()).ceil()


RULES: dict[str, Rule] = {
    "nearest centroid (margin_rule 0)": partial(by_margin_rule, margin_rule=0.0),
    "quintiles of the RFM sum": partial(
        by_quintiles, segment=lambda scores: scores.select(quintile(pl.sum_horizontal(RFM)))[:, 0]
    ),
    "RFM cells": partial(by_quintiles, segment=lambda scores: scores.select(pl.concat_str(RFM))[:, 0]),
    **{
        f"{share}{', or lasting' if lasting else ''}": partial(by_margin_rule, margin_rule=share, lasting=lasting)
        for lasting in (False, True)
        for share in (0.4, 0.5, 0.6)
    },
}


class Figures(NamedTuple):
    """What one rule does to one shop."""

    rates: list[MoveRates]
    validity: tuple[PairedValidity, ...]


def measure(home: OpenHome) -> dict[str, Figures]:
    """Moves by rule, and validity as the difference from that of the nearest centroid."""
    months = months_of(home)
    reference = by_margin_rule(months, 0.0)
    found = {}
    for name, rule in RULES.items():
        assigned = rule(months)
        earlier = [None, None, *assigned]
        rates = [measure_moves(*three) for three in zip(assigned, earlier[1:], earlier, strict=False)]
        snapshots = [
            measure_validity(
                base.select("customer_id", champion="segment_id").join(
                    now.select("customer_id", challenger="segment_id"), on="customer_id"
                ),
                month.outcomes,
                seed=home.settings.model.seed,
            )
            for month, base, now in zip(months, reference, assigned, strict=True)
            if month.outcomes is not None
        ]
        found[name] = Figures(rates, combine_validity([one for one in snapshots if one is not None]))
    return found


def table(found: dict[str, Figures]) -> str:
    """The figures as Markdown."""
    lines = [
        "| rule | moved, mean | worst | to and fro | return | spend | return, 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (rates, (back, spend)) in found.items():
        moved = [one.moved for one in rates if one.moved is not None]
        returned = [one.to_and_fro for one in rates if one.to_and_fro is not None]
        lines.append(
            f"| {name} | {sum(moved) / len(moved):.1%} | {max(moved):.1%} | {sum(returned) / len(returned):.1%} "
            f"| {back.challenger:.4f} ({back.difference:+.4f}) | {spend.challenger:.4f} ({spend.difference:+.4f}) "
            f"| {back.low:+.4f} to {back.high:+.4f} |"
        )
    return "\n".join(lines)


def fill_with_cdnow(path: Path, folder: Path) -> Path:
    """A home filled with the purchases of CDNOW; returns it.

    Args:
        path: ``CDNOW_master.txt``: customer, day, number of CDs and their price, with spaces between.
        folder: where it is made.
    """
    rows = [line.split() for line in path.read_text().splitlines()]
    purchases = [
        (customer, f"{day[:4]}-{day[4:6]}-{day[6:]}", 1, price) for customer, day, _, price in rows if day.isdigit()
    ]
    log = folder / "cdnow.csv"
    columns = ("customer_id", "invoiced_at", "quantity", "unit_price")
    pl.DataFrame(purchases, schema=columns, orient="row").write_csv(log)
    home = folder / "home"
    command = [sys.executable, "-m", "custseg_assets.cli", "run", "--source", str(log)]
    subprocess.run(command, env={**os.environ, "CUSTSEG_HOME": str(home)}, cwd=folder, check=True, stdout=sys.stderr)
    return home


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("homes", type=Path, nargs="*", metavar="HOME")
    parser.add_argument("--cdnow", type=Path, metavar="PATH")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cdnow = [fill_with_cdnow(given.cdnow.absolute(), Path(folder))] if given.cdnow else []
        for path in (*given.homes, *cdnow):
            home = OpenHome(load_settings(home=path, environment={}))
            months = home.champions.segmented(home.calendar.snapshot_keys)
            if not months:
                raise SystemExit(f"home {path} has no snapshot with segments; fill it with 'custseg run' first")
            print(f"\n{path}: k = {home.champions.model_at(months[-1]).k}\n\n{table(measure(home))}", flush=True)


if __name__ == "__main__":
    main()
