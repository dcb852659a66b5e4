"""What campaigns with a holdout can be relied on for, on a log that nobody campaigned in.

    python benchmarks/campaigns.py online_retail.csv.gz [--splits 4000] [--home DIR]

A home is made of the log, and at its closed snapshots customers are split as ``custseg campaign start`` splits them,
with one salt after the other. Nothing was done to anybody, so every figure that says more or less is a false alarm;
beside it stands what a plain t test on spend says. Then an effect is planted into the audience's returns, and it is
counted how often the headline finds it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain import schemas
from custseg_assets.domain.campaigns.assignment import assign_holdout
from custseg_assets.domain.campaigns.estimate import (
    Stratum,
    compare_splits,
    critical_quotient,
    draw_differences,
    weigh_together,
)
from custseg_assets.domain.campaigns.outcomes import OUTCOMES, RETURN, SPEND, cap_spend
from custseg_assets.domain.campaigns.power import Prospect, foresee
from custseg_assets.domain.campaigns.report import ALL
from custseg_assets.home.campaigns import Past, outcomes_of
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings

SHARE = 0.2
REFERENCES = 40
"""Sets of drawn splits, each for one in forty of the campaigns: to draw for each takes hours, and says the same."""


@dataclass(frozen=True)
class Trial:
    """The customers of a snapshot, as a campaign over all segments would have them.

    Attributes:
        strata: outcome → segment → customers.
        held: segment → rows held out, of each split.
        spend: segment → net spend, not capped.
        prospects: outcome → the smallest uplift that would have been said.
    """

    strata: Mapping[str, Mapping[str, Stratum]]
    held: Mapping[str, NDArray[np.int64]]
    spend: Mapping[str, NDArray[np.float64]]
    prospects: Mapping[str, Prospect]


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("log")
    parser.add_argument("--preset", default="online_retail")
    parser.add_argument("--splits", type=int, default=4_000)
    parser.add_argument("--home", type=Path, help="a home that a run has filled from the log")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = open_home(arguments.home or fill_home(Path(folder), arguments.log, arguments.preset))
        print("| snapshot | days | figure | segment | customers | held out | alarms | t test |")
        print("|---|---|---|---|---|---|---|---|")
        for days, key in cases(home):
            for row in alarms(make_trial(home, key, days, arguments.splits), arguments.splits):
                print(f"| {key} | {days} | {' | '.join(row)} |", flush=True)
        print("\n| snapshot | days | planted | said before: smallest | found |\n|---|---|---|---|---|")
        for days, key in cases(home):
            trial = make_trial(home, key, days, arguments.splits)
            for words, relative, points in (("+10 %", 0.1, 0.0), ("+10 points", 0.0, 0.1)):
                found = share_found(trial, arguments.splits, relative, points)
                smallest = trial.prospects[RETURN]
                said = f"+{100 * (smallest.uplift or 0):.1f} points" if smallest.uplift else "cannot be said"
                print(f"| {key} | {days} | {words} | {said} | {found:.1%} |", flush=True)
    return 0


def fill_home(folder: Path, log: str, preset: str) -> Path:
    """A home of the log, made by ``custseg run``."""
    config = folder / "custseg.toml"
    config.write_text(f'[source]\npath = "{Path(log).absolute()}"\npreset = "{preset}"\n', encoding="utf-8")
    home = folder / "home"
    subprocess.run(
        [sys.executable, "-m", "custseg_assets.cli", "run", "--config", str(config)],
        env={**os.environ, "CUSTSEG_HOME": str(home)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return home


def open_home(folder: Path) -> OpenHome:
    """The home in a folder, with its own settings."""
    return OpenHome(load_settings(home=folder, environment={}))


def cases(home: OpenHome) -> Iterator[tuple[int, str]]:
    """Days of a campaign, and the newest snapshot that has so many after it in the log."""
    until = home.calendar.observed_until(home.calendar.period_keys[-1])
    for days in (30, 60, 90):
        ends = {one: home.calendar.window(one).as_of + timedelta(days=days) for one in home.calendar.closed_keys}
        keys = [one for one, end in ends.items() if end <= until]
        yield days, keys[-1]


def make_trial(home: OpenHome, key: str, days: int, n_splits: int) -> Trial:
    """The customers of a snapshot, split by one salt after the other."""
    as_of = home.calendar.window(key).as_of
    assigned = home.tables.read(schemas.SEGMENT_ASSIGNMENTS, [key]).sort("customer_id")
    past = Past(home, days, as_of)
    covariates, _ = past.covariates_at(key, assigned["customer_id"])
    outcomes = outcomes_of(home, assigned["customer_id"], as_of, as_of + timedelta(days=days))
    spend = outcomes[SPEND].to_numpy()
    counted = {RETURN: outcomes[RETURN].to_numpy(), SPEND: cap_spend(spend, past.cap)}
    ids, segments = assigned["customer_id"].to_list(), assigned["segment_id"].to_numpy()
    rows = {name: np.flatnonzero(segments == name) for name in np.unique(segments)}
    splits = [assign_holdout(ids, segments, f"salt {number}", SHARE) for number in range(n_splits)]
    held = {name: np.array([np.flatnonzero(split[place]) for split in splits]) for name, place in rows.items()}
    strata = {
        outcome: {
            name: Stratum(counted[outcome][place], covariates[outcome][place], held[name].shape[1])
            for name, place in rows.items()
        }
        for outcome in OUTCOMES
    }
    sizes = {name: (one.n_audience, one.n_holdout) for name, one in strata[RETURN].items()}
    prospects = {outcome: foresee(sizes, past.spreads[outcome])[0] for outcome in OUTCOMES}
    return Trial(strata, held, {name: spend[place] for name, place in rows.items()}, prospects)


def alarms(trial: Trial, n_splits: int) -> Iterator[Sequence[str]]:
    """The share of splits in which each figure says more or less."""
    for outcome in OUTCOMES:
        strata = {name: one for name, one in trial.strata[outcome].items() if one.is_comparable}
        seen = {name: compare_splits(one, trial.held[name]) for name, one in strata.items()}
        random = np.random.default_rng(1)
        sets = [{name: draw_differences(one, 1_999, random) for name, one in strata.items()} for _ in range(REFERENCES)]
        everybody = np.concatenate([trial.spend[name] for name in strata])
        together = [*strata.values()]
        overall = [weigh_together(together, [*one.values()]) for one in (seen, *sets)]
        figures = [(ALL, overall[0], overall[1:])]
        figures += [(name, seen[name], [one[name] for one in sets]) for name, one in strata.items() if one.has_figures]
        for name, found, drawn in figures:
            limits = np.array([critical_quotient(one) for one in drawn])
            of_split = limits[np.arange(n_splits) * REFERENCES // n_splits]
            share = float((np.abs(found.quotients()) > of_split).mean())
            n = len(everybody) if name == ALL else len(trial.spend[name])
            n_held = sum(one.n_holdout for one in strata.values()) if name == ALL else strata[name].n_holdout
            plain = f"{plain_t_test(trial, [*strata] if name == ALL else [name]):.1%}" if outcome == SPEND else ""
            yield outcome, name, f"{n:,}", f"{n_held:,}", f"{share:.1%}", plain


def plain_t_test(trial: Trial, names: Sequence[str]) -> float:
    """The share of splits in which Welch's t test on spend says that the groups differ."""
    spend = [trial.spend[name] for name in names]
    n_held, n = sum(trial.held[name].shape[1] for name in names), sum(map(len, spend))
    held, squares = (
        sum((values**power)[trial.held[name]].sum(axis=1) for name, values in zip(names, spend, strict=True))
        for power in (1, 2)
    )
    total, all_squares = (sum(float((values**power).sum()) for values in spend) for power in (1, 2))
    means, errors = [], 0.0
    for sums, squared, size in ((held, squares, n_held), (total - held, all_squares - squares, n - n_held)):
        means.append(sums / size)
        errors += (squared - size * means[-1] ** 2) / (size - 1) / size
    return float((np.abs(means[0] - means[1]) > 1.96 * np.sqrt(errors)).mean())


def share_found(trial: Trial, n_splits: int, relative: float, points: float) -> float:
    """The share of splits in which the headline says more, with an effect planted into the audience.

    Customers of the audience who did not order do so by chance, all of them with the same, so that the share who order
    grows by a part of what it is, or by so many points. Each split has customers of its own who do.
    """
    random, n_found, strata = np.random.default_rng(2), 0, trial.strata[RETURN]
    usable = {name: one for name, one in strata.items() if one.is_comparable}
    rate = float(np.concatenate([one.outcome for one in usable.values()]).mean())
    chance = (relative * rate + points) / (1 - rate)
    # What is drawn hangs little on the few who are changed: one set for each hundred splits.
    for first in range(0, n_splits, max(1, n_splits // REFERENCES)):
        last = min(first + max(1, n_splits // REFERENCES), n_splits)
        limit: float | None = None
        for split in range(first, last):
            changed, own = [], []
            for name, one in usable.items():
                held = trial.held[name][split]
                outcome, is_held = one.outcome.copy(), np.zeros(len(one.outcome), np.bool_)
                is_held[held] = True
                outcome[~is_held & (outcome == 0) & (random.random(len(outcome)) < chance)] = 1.0
                changed.append(Stratum(outcome, one.covariate, one.n_holdout))
                own.append(compare_splits(changed[-1], held[None, :]))
            if limit is None:
                drawn = [draw_differences(one, 1_999, random) for one in changed]
                limit = critical_quotient(weigh_together(changed, drawn))
            n_found += float(weigh_together(changed, own).quotients()[0]) > limit
    return n_found / n_splits


if __name__ == "__main__":
    sys.exit(main())
