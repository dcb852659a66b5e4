"""The landing zone: a folder into which files are dropped, and what becomes of each of them.

A file's name is its path below the folder. The last file of every name counts, and of files with the same lines only
one: a file that comes again brings nothing, and another file of a known name corrects the earlier one. Nothing is
deleted: a file ends up in ``taken_in/<id of its delivery>/``, or in ``unreadable/`` beside its reason.

Effects have one order, accepted into the store, made current, moved, so that a process killed between any two of them
leaves files that the next one takes in to the same end. One process takes in at a time: the caller holds the home's
lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from custseg_assets.domain.periods import EARLIEST_DATE, Cadence
from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores import formats
from custseg_assets.stores.deliveries import (
    CurrentSource,
    Delivery,
    DeliveryStore,
    StillWrittenError,
    period_content,
)
from custseg_assets.stores.sources import Stamp, stamp_of

_TAKEN_IN, _UNREADABLE, _REASON = "taken_in", "unreadable", ".reason.txt"
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
# The log's clock may be ahead of ours by its time zone.
_AHEAD = timedelta(days=1)

Outcome = Literal["new", "corrected", "repeated", "unreadable"]
_Kind = tuple[frozenset[str], str | None]


@dataclass(frozen=True)
class WaitingFile:
    """A file to take in.

    Attributes:
        path: where it is.
        name: its path below the landing folder, with slashes; a corrected file has it too.
        stamp: by which a change of it shows.
    """

    path: Path
    name: str
    stamp: Stamp


@dataclass(frozen=True)
class Waiting:
    """What is in the landing folder, seen without reading any of it.

    Attributes:
        files: whole and to be taken in, by name.
        settling: names of files that changed a moment ago.
        unfinished: names of files that are empty or say themselves that they are not whole.
    """

    files: tuple[WaitingFile, ...] = ()
    settling: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Stands for the files to be taken in: the same until one comes, goes or changes; empty without any."""
        found = [(file.name, file.stamp) for file in self.files]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] if found else ""


@dataclass(frozen=True)
class ReadFile:
    """A waiting file after it was read.

    Attributes:
        file: as it was found.
        delivery: what it brings, or why it cannot be used.
    """

    file: WaitingFile
    delivery: Delivery | BadInputError


@dataclass(frozen=True)
class Arrival:
    """What becomes of a file.

    Attributes:
        file: as it was found.
        outcome: in a word.
        delivery: what it brings; ``None`` for an unreadable one.
        note: the reason of an unreadable one; which file a repeated one is like, or what a corrected one changes.
    """

    file: WaitingFile
    outcome: Outcome
    delivery: Delivery | None
    note: str


@dataclass(frozen=True)
class TakenIn:
    """What becomes of all of them.

    Attributes:
        arrivals: by name.
        before: what the home read without them.
        current: what it reads with them.
    """

    arrivals: tuple[Arrival, ...]
    before: CurrentSource
    current: CurrentSource

    @property
    def new(self) -> tuple[str, ...]:
        """Names of the files that bring lines."""
        return self._with("new")

    @property
    def corrected(self) -> tuple[str, ...]:
        """Names of the files that take the place of an earlier one of their name."""
        return self._with("corrected")

    @property
    def repeated(self) -> tuple[str, ...]:
        """Names of the files that bring nothing, because their lines are there."""
        return self._with("repeated")

    @property
    def unreadable(self) -> dict[str, str]:
        """Names of the files that are moved aside → why."""
        return {one.file.name: one.note for one in self.arrivals if one.outcome == "unreadable"}

    @property
    def n_rows(self) -> int:
        """Lines of the new and the corrected files."""
        taken = [one.delivery for one in self.arrivals if one.outcome in ("new", "corrected")]
        return sum(delivery.n_rows for delivery in taken if delivery)

    def touched(self, cadence: Cadence) -> list[str]:
        """Keys of the periods whose lines are others than before."""
        before = period_content(self.before.deliveries, cadence)
        after = period_content(self.current.deliveries, cadence)
        return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))

    def __str__(self) -> str:
        counts = Counter(one.outcome for one in self.arrivals)
        words = [f"{counts[outcome]} {outcome}" for outcome in ("new", "corrected", "repeated", "unreadable")]
        return f"{', '.join(words)}; {self.n_rows:,} lines"

    def _with(self, outcome: Outcome) -> tuple[str, ...]:
        return tuple(one.file.name for one in self.arrivals if one.outcome == outcome)


class LandingZone:
    """The landing folder of a home.

    Args:
        folder: the folder; it need not be there.
        deliveries: the store that its files go into.
    """

    def __init__(self, folder: Path, deliveries: DeliveryStore) -> None:
        self.folder = folder
        self._deliveries = deliveries

    def waiting(self, now: float, settle_seconds: float) -> Waiting:
        """What there is to take in; cheap, because no file is read.

        Hidden files and folders and links are not seen; other folders are entered.

        Args:
            now: seconds since 1970.
            settle_seconds: how long a file must not have changed.
        """
        files: list[WaitingFile] = []
        settling, unfinished = [], []
        for path, name in (*self._grown(), *self._dropped()):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                if not status.st_size or name.lower().endswith(_UNFINISHED):
                    unfinished.append(name)
                # Not the time of the last write: copying programs set that back to the original's at their end.
                elif now - status.st_ctime < settle_seconds:
                    settling.append(name)
                else:
                    files.append(WaitingFile(path, name, stamp_of(status)))
        # Stable: of one name, the file that grew where it was taken in is older than the one in the folder.
        return Waiting(tuple(sorted(files, key=lambda file: file.name)), tuple(settling), tuple(unfinished))

    def aside(self) -> tuple[str, ...]:
        """Names of the files that were moved aside and still are there."""
        folder = self.folder / _UNREADABLE
        found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_REASON)]
        return tuple(sorted(path.relative_to(folder).as_posix() for path in found))

    def read(self, files: Iterable[WaitingFile], settings: SourceSettings) -> tuple[ReadFile, ...]:
        """Read files into the store; a file that was still written to is left for the next time.

        Args:
            files: which.
            settings: how they are read.
        """
        found = []
        for file in files:
            delivery: Delivery | BadInputError
            try:
                if not formats.is_accepted(file.name):
                    raise BadInputError(file.name, formats.ACCEPTED, "Export it as one of these, or correct its name.")
                delivery = self._deliveries.accept(file.path, settings, progress=lambda _: None, name=file.name)
            except StillWrittenError:
                continue
            except BadInputError as error:
                delivery = error
            found.append(ReadFile(file, delivery))
        return tuple(found)

    def adopt(self, taken: TakenIn) -> None:
        """Make what the home reads current, and put the files away."""
        if taken.current.deliveries:
            self._deliveries.set_current(taken.current)
        for arrival in taken.arrivals:
            with contextlib.suppress(FileNotFoundError):
                self._put_away(arrival)

    def _dropped(self) -> Iterator[tuple[Path, str]]:
        """Path and name of every visible file in the folder that has not been put away."""
        for folder, folders, names in os.walk(self.folder):
            below = Path(folder).relative_to(self.folder)
            own = {_TAKEN_IN, _UNREADABLE} if folder == str(self.folder) else set()
            folders[:] = [one for one in folders if not one.startswith(".") and one not in own]
            yield from ((Path(folder, name), (below / name).as_posix()) for name in names if not name.startswith("."))

    def _grown(self) -> Iterator[tuple[Path, str]]:
        """The same for files that someone went on writing after they had been taken in.

        A copy that stalls for longer than files are given to settle goes on wherever the file has been moved to.
        """
        for (delivery_id, name), n_bytes in self._deliveries.landed_sizes().items():
            path = self.folder / _TAKEN_IN / delivery_id / name
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size != n_bytes:
                    yield path, name

    def _put_away(self, arrival: Arrival) -> None:
        file = arrival.file
        if arrival.delivery:
            target = self.folder / _TAKEN_IN / arrival.delivery.id / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            target = _free(self.folder / _UNREADABLE / file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(f"{target.name}{_REASON}").write_text(f"{arrival.note}\n", encoding="utf-8")
        file.path.rename(target)
        if stamp_of(target.stat()) != file.stamp and not file.path.exists():
            # Another file had come in its place since it was read: that one is still to be taken in.
            target.rename(file.path)


def sort_out(read: Sequence[ReadFile], current: CurrentSource, now: float) -> TakenIn:
    """What becomes of each file, and what the home then reads.

    Args:
        read: the files, by name.
        current: what the home reads now.
        now: seconds since 1970, against which a line is in the future.
    """
    names = {one.file.name for one in read}
    staying = Counter(_kind_of(one) for one in current.deliveries if one.name not in names)
    brought = Counter(_kind_of(one.delivery) for one in read if isinstance(one.delivery, Delivery))
    # The first files of a home show what its files are like; one that is not must not decide it for all.
    kinds = dict.fromkeys(staying) or dict.fromkeys(kind for kind, _ in brought.most_common(1))
    latest = datetime.fromtimestamp(now, UTC).date() + _AHEAD
    before, arrivals = current, []
    for one in read:
        arrival = _arrival(one, current, tuple(kinds), latest)
        if arrival.delivery:
            current = current.with_landed(arrival.delivery, one.file.stamp[1])
        arrivals.append(arrival)
    return TakenIn(tuple(arrivals), before, current)


def _arrival(read: ReadFile, current: CurrentSource, kinds: Sequence[_Kind], latest: date) -> Arrival:
    try:
        if isinstance(read.delivery, BadInputError):
            raise read.delivery
        _refuse_other_kind(read.delivery, kinds)
        _refuse_impossible_dates(read.delivery, latest)
        return _sorted_in(read.file, read.delivery, current)
    except BadInputError as error:
        return Arrival(read.file, "unreadable", None, str(error))


def _sorted_in(file: WaitingFile, delivery: Delivery, current: CurrentSource) -> Arrival:
    before = current.named(file.name)
    if before is None:
        if same := next((one.name for one in current.deliveries if one.days == delivery.days), None):
            return Arrival(file, "repeated", delivery, f"the lines of {same}")
        return Arrival(file, "new", delivery, "")
    if before.days == delivery.days:
        return Arrival(file, "repeated", delivery, f"the lines of {file.name} as they are")
    _refuse_other_days(delivery, before, current)
    gone = sorted(day for day in before.days.keys() - delivery.days.keys() if day)
    lost = f", none any more of {', '.join(gone[:3])}{' …' if len(gone) > 3 else ''}" if gone else ""
    return Arrival(file, "corrected", delivery, f"{before.n_rows:,} lines before, {delivery.n_rows:,} now{lost}")


def _refuse_other_days(delivery: Delivery, before: Delivery, current: CurrentSource) -> None:
    """An export that has the same name every day would, taken for a correction, push out the day before."""
    has_days_in_common = bool(before.days.keys() & delivery.days.keys() - {""})
    is_elsewhere = any(one.name != before.name and one.days == before.days for one in current.in_force)
    if not has_days_in_common and not is_elsewhere:
        raise BadInputError(
            f"{delivery.name} has lines of {_span(delivery)}, the earlier file of that name of {_span(before)}",
            "a file that corrects the earlier one to have days in common with it, and any other file its own name",
            "Give it another name and put it into the landing folder again.",
        )


def _refuse_other_kind(delivery: Delivery, kinds: Sequence[_Kind]) -> None:
    columns, preset = _kind_of(delivery)
    if (columns, preset) in kinds:
        return
    known, known_preset = kinds[0]
    if preset != known_preset:
        raise BadInputError(
            f"{delivery.name} is {_export(preset)}",
            f"{_export(known_preset)}, as the home's other files are",
            "Use another home for it with CUSTSEG_HOME.",
        )
    lacks, adds = sorted(known - columns), sorted(columns - known)
    parts = [f"lacks {', '.join(lacks)}"] if lacks else []
    parts += [f"has {', '.join(adds)}"] if adds else []
    raise BadInputError(
        f"{delivery.name} {' and '.join(parts)}",
        "the columns of the home's other files",
        "Export it like those, or use another home for it with CUSTSEG_HOME.",
    )


def _refuse_impossible_dates(delivery: Delivery, latest: date) -> None:
    for day, words in ((delivery.first_date, "before"), (delivery.last_date, "after")):
        bound = EARLIEST_DATE if words == "before" else latest
        if (day < bound) if words == "before" else (day > bound):
            raise BadInputError(
                f"{delivery.name} has lines of {day}, {words} {bound}",
                f"lines from {EARLIEST_DATE} to today",
                "Correct those dates, or [source] date_format, and put the file into the landing folder again.",
            )


def _kind_of(delivery: Delivery) -> _Kind:
    return frozenset(delivery.columns), delivery.preset


def _export(preset: str | None) -> str:
    return f"an {preset} export" if preset else "an export with own columns"


def _span(delivery: Delivery) -> str:
    first, last = delivery.first_date, delivery.last_date
    return f"{first}" if first == last else f"{first} to {last}"


def _free(path: Path) -> Path:
    """The path itself, or one beside it with a number, where nothing is yet."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return free
