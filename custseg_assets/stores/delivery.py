"""A delivery as its manifest describes it, and which deliveries are the source now. Their store is ``deliveries``."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from custseg_assets.domain.periods import Cadence, key_of, period_start
from custseg_assets.domain.transactions.quality import StrayDays, stray_days
from custseg_assets.stores.line_digests import N_SUMS, UNDATED, digest_of_sums, sums_of_digest

NO_STRAY_DAYS = "few lines to be near the others, because the log's first and last day decide what is made"
KEEP_STRAY_DAYS = "where they are right, write keep_stray_days = true under [source] in custseg.toml"
"""What errors about stray days expect, and the way out."""


@dataclass(frozen=True)
class Delivery:
    """The lines of one source file, as its manifest describes them.

    Attributes:
        id: made from the file's bytes and how they were read.
        name: of the file.
        first_date: day of the earliest line; lines without a readable date are filed under it.
        last_date: day of the latest line.
        n_rows: lines.
        days: ISO day → number of its lines and a digest of them in any order; ``""`` for undated lines.
        columns: mapped column → the file's own name for it.
        preset: name of the known export that the file is, if any.
        notes: what was decided about its lines when it was read, in sentences.
        counts_units: whether a line may be several units, so that two equal lines are not two of them.
        cursor: how far an increment of a table goes, and how to go on from there; ``None`` for what was read whole.
    """

    id: str
    name: str
    first_date: date
    last_date: date
    n_rows: int
    days: Mapping[str, tuple[int, str]]
    columns: Mapping[str, str]
    preset: str | None
    notes: tuple[str, ...] = ()
    counts_units: bool = True
    cursor: Mapping[str, Any] | None = None

    def day_of(self, day: str) -> date:
        """The date that a key of ``days`` stands for; for undated lines the file's first."""
        return date.fromisoformat(day) if day != UNDATED else self.first_date

    @property
    def dated_lines(self) -> dict[date, int]:
        """Number of lines by day, without undated ones."""
        return {date.fromisoformat(day): n_rows for day, (n_rows, _) in self.days.items() if day != UNDATED}

    def to_json(self) -> str:
        """The manifest as text of its file."""
        return json.dumps(asdict(self), default=date.isoformat, sort_keys=True, ensure_ascii=False, indent=1)


@dataclass(frozen=True)
class LandedFile:
    """The last file of its name that came through the landing zone.

    Attributes:
        delivery: its content.
        n_bytes: its size when it was read.
        replaces: ids of the source's deliveries of this name that it replaces.
    """

    delivery: Delivery
    n_bytes: int
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurrentSource:
    """What the pipeline reads now: the last file of every name, and of files with the same lines only one.

    Attributes:
        source: the source's files when it was last read.
        landed: files that came through the landing zone, one for each name.
        description: the source as the user named it; ``None`` for a home that has only its landing zone.
        doubts: what is doubtful about all of it together, in sentences.
        reading: how files are read, as ``reading_of`` says it; ``None`` where an earlier version read them.
    """

    source: tuple[Delivery, ...] = ()
    landed: tuple[LandedFile, ...] = ()
    description: str | None = None
    doubts: tuple[str, ...] = ()
    reading: str | None = None

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The deliveries that are read, in the order of names; of several with the same lines only one."""
        once = {_content_of(one): one for one in reversed(self.in_force)}
        return in_order(once.values())

    def named(self, name: str) -> Delivery | None:
        """The last delivery of a file's name, if any."""
        return next((one for one in self.in_force if one.name == name), None)

    def with_landed(self, delivery: Delivery, n_bytes: int) -> CurrentSource:
        """The source after a file came through the landing zone and replaced those of its name."""
        others = [one for one in self.landed if one.delivery.name != delivery.name]
        replaced = tuple(one.id for one in self.source if one.name == delivery.name)
        landed = sorted([*others, LandedFile(delivery, n_bytes, replaced)], key=lambda one: one.delivery.name)
        return replace(self, landed=tuple(landed))

    def with_source(self, deliveries: Iterable[Delivery], description: str | None) -> CurrentSource:
        """The source after it was read again: a file that changed there replaces the landed one of its name."""
        source = in_order(deliveries)
        newer = {(one.name, one.id) for one in source}
        newer -= {(one.delivery.name, id_) for one in self.landed for id_ in (one.delivery.id, *one.replaces)}
        names = {name for name, _ in newer}
        landed = tuple(one for one in self.landed if one.delivery.name not in names)
        return replace(self, source=source, landed=landed, description=description)

    @property
    def in_force(self) -> list[Delivery]:
        """The last delivery of every name, also where several have the same lines."""
        replaced = {(one.delivery.name, id_) for one in self.landed for id_ in one.replaces}
        return [
            *(one.delivery for one in self.landed),
            *(one for one in self.source if (one.name, one.id) not in replaced),
        ]


def new_stray_days(before: Iterable[Delivery], after: Iterable[Delivery]) -> tuple[StrayDays, ...]:
    """Days that come in at either end, far apart from the rest of the log; only manifests are read.

    Args:
        before: what was read so far; its days are not judged again.
        after: what is to be read now.
    """
    n_lines: Counter[date] = Counter()
    for one in after:
        n_lines.update(one.dated_lines)
    return stray_days(n_lines, known={day for one in before for day in one.dated_lines})


def period_content(deliveries: Iterable[Delivery], cadence: Cadence) -> dict[str, tuple[int, str]]:
    """Number of lines of each period and their digest, by period key, oldest first; only manifests are read.

    Equal lines give equal digests, in any files, formats and order.
    """
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * N_SUMS)
    for delivery in deliveries:
        for day, (n_rows, digest) in delivery.days.items():
            key = key_of(period_start(delivery.day_of(day), cadence))
            counts[key] += n_rows
            sums[key] = [total + part for total, part in zip(sums[key], sums_of_digest(digest), strict=True)]
    return {key: (counts[key], digest_of_sums(sums[key])) for key in sorted(counts)}


def keys_of(delivery: Delivery, cadence: Cadence) -> set[str]:
    """Keys of the periods that a delivery has lines of."""
    return {key_of(period_start(delivery.day_of(day), cadence)) for day in delivery.days}


def _content_of(delivery: Delivery) -> object:
    """A value that is equal for deliveries with the same lines, from any file and format.

    An increment is equal to none: the same line may come a second time because it happened a second time.
    """
    return frozenset(delivery.days.items()) if delivery.cursor is None else delivery.id


def in_order(deliveries: Iterable[Delivery]) -> tuple[Delivery, ...]:
    """Deliveries in the order of their names."""
    return tuple(sorted(deliveries, key=lambda delivery: (delivery.name, delivery.id)))
