"""What the customers of a home will probably do: days of the log and segments, from the tables to the domain.

The days of a large shop's customers are put into a scratch folder, a slice of customers at a time; what is learnt from
is a part of them that memory allows. How is predicted belongs in ``domain.value``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, SEGMENT_ASSIGNMENTS
from custseg_assets.domain.slices import EVERYBODY, IdRange
from custseg_assets.domain.threads import one_thread
from custseg_assets.domain.value.days import CustomerDays, count_days, day_number, known_at, learning_days, sampled
from custseg_assets.domain.value.kept_fits import KeptFits
from custseg_assets.domain.value.replay import History, ValueModel, find_segments
from custseg_assets.domain.value.tables import describe_model, predict_customers, sum_figures
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.stores.files import replace_text, scratch_folder

_SCRATCH = ".value-"
_PLACED = ("customer_id", "segment_id")
_KEPT_CUSTOMERS = 100_000


class Values:
    """The value of a home's customers at some snapshots.

    Args:
        home: whose customers they are.
        keys: of the snapshots, oldest first.
        folder: empty; for days of customers, where they are too many for memory.

    Attributes:
        days: of all customers; ``None`` where they are too many for memory.
    """

    def __init__(self, home: OpenHome, keys: Sequence[str], folder: Path) -> None:
        self._home, self._folder = home, folder
        self._ranges = home.tables.id_ranges(SEGMENT_ASSIGNMENTS, keys[-1])
        self._segmented = (*home.snapshots_before(keys[0]), *keys)
        lines = home.tables.scan(CLEAN_TRANSACTIONS, home.calendar.periods_until(keys[-1]))
        self.days = None if len(self._ranges) > 1 else CustomerDays.of(_collect(lines))
        self._kept = KeptFits(_read_fits(home.paths.value_fits))
        if self.days is not None:
            first = int(self.days.day.min())
            self._history = History(self.days, self._placed_at, first, kept_fits=self._kept)
        else:
            self._history = self._put_aside(lines)
        self._models: dict[str, ValueModel] = {}
        self._placed: dict[str, pl.DataFrame] = {}

    @property
    def is_sliced(self) -> bool:
        """Whether customers are worked on in slices."""
        return self.days is None

    def fit(self, key: str) -> ValueModel:
        """What is fitted at a snapshot."""
        if key not in self._models:
            with one_thread():
                self._models[key] = self._history.fit(self.as_of(key))
        return self._models[key]

    def describe(self, key: str) -> pl.DataFrame:
        """Rows of ``value_model`` of a snapshot."""
        model, n_customers, totals = self.fit(key), 0, dict[str, int]()
        for placed, days in self._slices(key):
            known = known_at(days, model.at)
            with one_thread():
                sums = sum_figures(model, known, find_segments(days.ids.gather(known.customers), placed))
            totals = {target: totals.get(target, 0) + total for target, total in sums.items()}
            n_customers += placed.height
        return describe_model(model, totals, n_customers)

    def predict(self, key: str) -> Iterator[pl.DataFrame]:
        """Rows of ``customer_value`` of a snapshot, a slice of customers at a time."""
        model = self.fit(key)
        for placed, days in self._slices(key):
            known = known_at(days, model.at)
            ids = days.ids.gather(known.customers)
            if not ids.equals(placed["customer_id"]):
                raise RuntimeError(f"{key}: {len(ids):,} customers have lines, and {placed.height:,} have segments")
            with one_thread():
                yield predict_customers(model, ids, known, placed["segment_id"].to_numpy())

    def keep_fits(self) -> None:
        """Keep what was fitted for later runs, which find it by what it was fitted on."""
        fits = json.dumps(self._kept.used)
        replace_text(self._home.paths.value_fits, f"{_digest_of(fits)}\n{fits}\n")

    def as_of(self, key: str) -> int:
        """First day that a snapshot does not observe, counted since 1970-01-01."""
        return day_number(self._home.calendar.window(key).as_of)

    def _slices(self, key: str) -> Iterator[tuple[pl.DataFrame, CustomerDays]]:
        """Segments of a snapshot's customers and their days, a slice at a time."""
        for place, within in enumerate(self._ranges):
            placed = self._read_placed(key, within)
            yield placed, self.days or CustomerDays.of(pl.read_parquet(self._path_of(place), glob=False))

    def _path_of(self, place: int) -> Path:
        return self._folder / f"days-{place}.parquet"

    def _placed_at(self, day: int) -> pl.DataFrame | None:
        """Segments as the newest snapshot that was there at a day had them."""
        there = [key for key in self._segmented if self.as_of(key) <= day]
        return self._read_placed(there[-1], EVERYBODY) if there else None

    def _read_placed(self, key: str, within: IdRange) -> pl.DataFrame:
        """Segments of some customers at a snapshot; those of a small shop are kept, for they are asked for often."""
        if within.is_everybody and key in self._placed:
            return self._placed[key]
        placed = self._home.tables.read(SEGMENT_ASSIGNMENTS, [key], _PLACED, within)
        if within.is_everybody and placed.height <= _KEPT_CUSTOMERS:
            self._placed[key] = placed
        return placed

    def _put_aside(self, lines: pl.LazyFrame) -> History:
        """Keep the days of each slice in a file, and those of the customers who are learnt from in memory."""
        first_days = []
        for place, within in enumerate(self._ranges):
            found = _collect(lines.filter(within.condition))
            first_days.append(CustomerDays.of(found).first_days())
            found.write_parquet(self._path_of(place))
        ordered = np.sort(np.concatenate(first_days))

        def count_known(day: int) -> int:
            return int(np.searchsorted(ordered, day))

        first = int(ordered[0])
        days = [*learning_days(first, self.as_of(self._segmented[-1])), *map(self.as_of, self._segmented)]
        learnt_from = []
        for place, starts in enumerate(first_days):
            found = pl.read_parquet(self._path_of(place), glob=False)
            ids = CustomerDays.of(found).ids
            is_wanted = np.zeros(len(ids), dtype=bool)
            for day in days:
                is_known = starts < day
                is_wanted[is_known] |= sampled(ids.filter(pl.Series(is_known)), count_known(day))
            learnt_from.append(found.join(ids.filter(pl.Series(is_wanted)).to_frame(), on="customer_id", how="semi"))
        return History(CustomerDays.of(pl.concat(learnt_from)), self._placed_at, first, count_known, self._kept)


@contextlib.contextmanager
def opened_values(home: LockedHome, keys: Sequence[str]) -> Iterator[Values]:
    """The value of a home's customers at some snapshots, with a scratch folder until the end of the block.

    Args:
        home: whose customers they are.
        keys: of the snapshots, oldest first.
    """
    with scratch_folder(home.paths.root, _SCRATCH) as folder:
        values = Values(home, keys, folder)
        yield values
        values.keep_fits()


def _read_fits(path: Path) -> Mapping[str, Any]:
    """What earlier runs fitted; nothing where the file is not as it was written, for it is fitted again then."""
    try:
        digest, _, fits = path.read_text(encoding="utf-8").removesuffix("\n").partition("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    kept: Mapping[str, Any] = json.loads(fits) if digest == _digest_of(fits) else {}
    return kept


def _digest_of(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _collect(lines: pl.LazyFrame) -> pl.DataFrame:
    return count_days(lines).collect(engine="streaming")
