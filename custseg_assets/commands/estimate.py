"""How long a run will still take: what its stages cost on one machine, corrected by what this one took so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import Stage
from custseg_assets.pace import to_go

_ORDER = ("ingest", "features", "train", "scale", "hold", "segment")
_ROUTINE = ("ingest", "snapshot")
_MIN_SECONDS = 10
"""What takes less needs no estimate."""


@dataclass(frozen=True)
class Amount:
    """What a run has to do.

    Attributes:
        n_lines: of the log, to be ingested.
        n_snapshots: to be made.
        n_window_lines: of the log, in an average window.
        is_routine: whether a model is in force, and snapshots are made in one stage.
    """

    n_lines: int
    n_snapshots: int
    n_window_lines: float
    is_routine: bool

    def seconds(self) -> Mapping[str, float]:
        """Stage → seconds it takes on a machine of two cores: measured on Online Retail, once and five times over."""
        million, window = self.n_lines / 1e6, self.n_window_lines / 1e6
        seen = self.n_snapshots * window
        stages = {
            "ingest": 1.0 + 5.0 * million,
            "features": 0.2 + 0.24 * seen,
            "train": 4.0 + 2.0 * window,
            "scale": 0.5,
            "hold": 0.5,
            "segment": 2.5 + 0.95 * seen,
        }
        stages["snapshot"] = stages["features"] + stages["segment"] + 1.0
        return {name: stages[name] for name in (_ROUTINE if self.is_routine else _ORDER)}


class RunEstimate:
    """Says before each stage of a run how long it and those after it will take.

    Args:
        amount: what the run has to do.
        clock: seconds that only grow.
    """

    def __init__(self, amount: Amount, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._began = amount.seconds(), clock, clock()
        self._begun: list[str] = []

    def before(self, job: str) -> str:
        """``, about 40 s to go``; empty where that is not worth saying, or nothing is known of the stage."""
        stages = list(self._seconds)
        if job not in stages:
            return ""
        taken, expected = self._clock() - self._began, sum(self._seconds[name] for name in self._begun)
        self._begun.append(job)
        pace = taken / expected if expected else 1.0
        left = pace * sum(self._seconds[name] for name in stages[stages.index(job) :])
        return to_go(left) if left >= _MIN_SECONDS else ""


def estimate_run(home: OpenHome, first: Stage, last_key: str) -> RunEstimate:
    """The estimate of a run that begins with a stage and ends with the snapshot of a period.

    Args:
        home: whose log it is about.
        first: the stage.
        last_key: of the last period.
    """
    calendar, begins = home.calendar, first.first_key or ""
    rows = calendar.rows_of(calendar.periods_until(last_key))
    is_routine = home.champions.champion_at(last_key) is not None
    keys = [key for key in calendar.snapshot_keys if key <= last_key and (key >= begins or not is_routine)]
    n_seen = sum(rows.get(period, 0) for key in keys for period in calendar.window(key).keys)
    n_lines = sum(n for key, n in rows.items() if begins <= key <= (first.last_key or ""))
    amount = Amount(n_lines if first.job == "ingest" else 0, len(keys), n_seen / max(len(keys), 1), is_routine)
    return RunEstimate(amount)
