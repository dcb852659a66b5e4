"""The landing zone: a folder for new source files, and how each of them is classified and moved.

A file's name is its path below the folder. The last file of every name counts, and of files with the same lines only
one: a file that comes again changes nothing, and another file of a known name corrects the earlier one. No file is
deleted: it is moved to ``taken_in/<id of its delivery>/``, or to ``unreadable/`` beside its reason.

A file is put into the store, then made current, then moved. A process that is killed between two of these steps leaves
the file where the next one finds it, with the same result. Only the process that has the home's lock may do this.
The content of files is in ``deliveries``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from custseg_assets.domain.periods import EARLIEST_DATE, Cadence
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores import formats
from custseg_assets.stores.deliveries import DeliveryStore, StillWrittenError
from custseg_assets.stores.delivery import (
    KEEP_STRAY_DAYS,
    NO_STRAY_DAYS,
    CurrentSource,
    Delivery,
    new_stray_days,
    period_content,
)
from custseg_assets.stores.machine import machine_fault
from custseg_assets.stores.sources import Stamp, stamp_of

_TAKEN_IN, _UNREADABLE, _REASON = "taken_in", "unreadable", ".reason.txt"
_LONGEST_NAME = 255 - len(_REASON)
"""Bytes of the name of a file that is set aside: as many as file systems take, less those for its reason's."""
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
# The log's clock may be ahead of this machine's by its time zone.
_AHEAD = timedelta(days=1)

_LONGEST_SUFFIX = 20

Outcome = Literal["new", "corrected", "repeated", "unreadable"]
_Kind = tuple[frozenset[str], str | None]


@dataclass(frozen=True)
class WaitingFile:
    """A file to take in.

    Attributes:
        path: where it is.
        name: its path below the landing folder, with slashes; a corrected file has it too.
        stamp: changes when the file does.
    """

    path: Path
    name: str
    stamp: Stamp


@dataclass(frozen=True)
class Waiting:
    """The files in the landing folder; none of them was read.

    Attributes:
        files: complete ones that can be read, by name.
        settling: names of files that changed less than the settle time ago.
        unfinished: names of files that are empty, or whose names say that they are incomplete.
    """

    files: tuple[WaitingFile, ...] = ()
    settling: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A digest of the files that can be read: equal until one comes, goes or changes; empty without any."""
        found = [(file.name, file.stamp) for file in self.files]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] if found else ""


@dataclass(frozen=True)
class ReadFile:
    """A waiting file after it was read.

    Attributes:
        file: as it was found.
        delivery: its content, or why it cannot be used.
    """

    file: WaitingFile
    delivery: Delivery | BadInputError


@dataclass(frozen=True)
class Arrival:
    """A file and how it was classified.

    Attributes:
        file: as it was found.
        outcome: its class.
        delivery: its content; ``None`` for an unreadable file.
        note: why it is unreadable, which file it repeats, or what it corrects.
    """

    file: WaitingFile
    outcome: Outcome
    delivery: Delivery | None
    note: str


@dataclass(frozen=True)
class TakenIn:
    """All files that were read at one time, and the source before and after them.

    Attributes:
        arrivals: by name.
        before: what the home read without these files.
        current: what it reads with them.
    """

    arrivals: tuple[Arrival, ...]
    before: CurrentSource
    current: CurrentSource

    @property
    def new(self) -> tuple[str, ...]:
        """Names of the files that have new lines."""
        return self._with("new")

    @property
    def corrected(self) -> tuple[str, ...]:
        """Names of the files that replace an earlier one of their name."""
        return self._with("corrected")

    @property
    def repeated(self) -> tuple[str, ...]:
        """Names of the files whose lines were there already."""
        return self._with("repeated")

    @property
    def unreadable(self) -> dict[str, str]:
        """Names of the files that cannot be used → why."""
        return {one.file.name: one.note for one in self.arrivals if one.outcome == "unreadable"}

    @property
    def n_rows(self) -> int:
        """Number of lines of the new and the corrected files."""
        taken = [one.delivery for one in self.arrivals if one.outcome in ("new", "corrected")]
        return sum(delivery.n_rows for delivery in taken if delivery)

    def touched(self, cadence: Cadence) -> list[str]:
        """Keys of the periods whose lines have changed."""
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
        folder: the folder; it does not have to exist.
        deliveries: the store for its files.
    """

    def __init__(self, folder: Path, deliveries: DeliveryStore) -> None:
        self.folder = folder
        self._deliveries = deliveries

    def waiting(self, now: float, settle_seconds: float) -> Waiting:
        """The files that can be read now; cheap, because none is read for it.

        Hidden files and folders and links are ignored; other folders are entered.

        Args:
            now: seconds since 1970.
            settle_seconds: how long a file must be unchanged before it is read.
        """
        files: list[WaitingFile] = []
        settling, unfinished = [], []
        for path, name in (*self._find_grown(), *self._find_dropped()):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                if not status.st_size or name.lower().endswith(_UNFINISHED):
                    unfinished.append(name)
                # Not the time of the last write, which copying programs finally set to that of the original.
                elif now - status.st_ctime < settle_seconds:
                    settling.append(name)
                else:
                    files.append(WaitingFile(path, name, stamp_of(status)))
        # The sort is stable: of one name, the file that grew in taken_in is older than the one in the folder.
        return Waiting(tuple(sorted(files, key=lambda file: file.name)), tuple(settling), tuple(unfinished))

    def taken_in(self) -> tuple[WaitingFile, ...]:
        """The files that were taken in, where they were moved to, to be read again."""
        found = []
        for delivery_id, name in self._deliveries.landed_sizes():
            path = self.folder / _TAKEN_IN / delivery_id / name
            with contextlib.suppress(FileNotFoundError):
                found.append(WaitingFile(path, name, stamp_of(path.lstat())))
        return tuple(found)

    def unreadable_files(self) -> tuple[str, ...]:
        """Names of the files in ``unreadable``."""
        folder = self.folder / _UNREADABLE
        found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_REASON)]
        return tuple(sorted(path.relative_to(folder).as_posix() for path in found))

    def read(self, files: Iterable[WaitingFile], settings: SourceSettings) -> tuple[ReadFile, ...]:
        """Read files into the store; a file that changes meanwhile is left for the next time.

        Args:
            files: that are waiting.
            settings: how to read them.

        Raises:
            MachineFaultError: this machine cannot read one now; all files stay where they are.
        """
        found = []
        with self._deliveries.reading():
            for file in files:
                delivery: Delivery | BadInputError
                try:
                    if not formats.is_accepted(file.name):
                        todo = "Export it as one of these, or correct its name."
                        raise BadInputError(file.name, formats.ACCEPTED, todo)
                    _require_access(file)
                    delivery = self._deliveries.accept(file.path, settings, progress=lambda _: None, name=file.name)
                except StillWrittenError:
                    continue
                except BadInputError as error:
                    delivery = error
                found.append(ReadFile(file, delivery))
        return tuple(found)

    def adopt(self, taken: TakenIn) -> None:
        """Set what the home reads, then move the files out of the folder."""
        if taken.current.deliveries:
            self._deliveries.set_current(taken.current)
        own = self._make_room()
        for arrival in taken.arrivals:
            if arrival.file.path in own:
                # It has another name now, under which the next look finds it.
                continue
            with contextlib.suppress(FileNotFoundError):
                self._move_away(arrival)

    def _find_dropped(self) -> Iterator[tuple[Path, str]]:
        """Path and name of every visible file in the folder, without those that were moved."""
        for folder, folders, names in os.walk(self.folder):
            below = Path(folder).relative_to(self.folder)
            own = {_TAKEN_IN, _UNREADABLE} if folder == str(self.folder) else set()
            folders[:] = [one for one in folders if not one.startswith(".") and one not in own]
            yield from ((Path(folder, name), _in_utf8(below / name)) for name in names if not name.startswith("."))

    def _find_grown(self) -> Iterator[tuple[Path, str]]:
        """Path and name of every file that grew after it had been moved.

        A program that pauses for longer than the settle time goes on writing to the file where it was moved to.
        """
        for (delivery_id, name), n_bytes in self._deliveries.landed_sizes().items():
            path = self.folder / _TAKEN_IN / delivery_id / name
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size != n_bytes:
                    yield path, name

    def _move_away(self, arrival: Arrival) -> None:
        file = arrival.file
        if arrival.delivery:
            target = self.folder / _TAKEN_IN / arrival.delivery.id / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            target = self._place_aside(file.name)
            target.with_name(f"{target.name}{_REASON}").write_text(f"{arrival.note}\n", encoding="utf-8")
        file.path.rename(target)
        if stamp_of(target.stat()) != file.stamp and not file.path.exists():
            # Another file had come in its place since it was read: that one is left for the next time.
            target.rename(file.path)

    def _place_aside(self, name: str) -> Path:
        """An unused path for a file that cannot be used, in a folder that is there."""
        folder = self.folder / _UNREADABLE
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            # A file that came before has the name of one of its folders.
            target = folder / name.replace("/", "_")
        return _unused_path(_with_room(target))

    def _make_room(self) -> tuple[Path, ...]:
        """Rename what was dropped under the names of the folders that files are moved to; returns those names."""
        own = self.folder / _TAKEN_IN, self.folder / _UNREADABLE
        for path in own:
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                path.rename(_unused_path(path))
        return own


def _require_access(file: WaitingFile) -> None:
    """Raise where this user may not read a file, which is no fault of the file."""
    try:
        file.path.open("rb").close()
    except FileNotFoundError:
        raise StillWrittenError(file.name) from None
    except OSError as error:
        raise machine_fault(error, f"reading {file.name}") or error from None


def _in_utf8(name: Path) -> str:
    """A file's name with slashes; bytes that are no UTF-8 are written as numbers, so that every program can show it."""
    return os.fsencode(name.as_posix()).decode("utf-8", "backslashreplace")


def _with_room(path: Path, number: str = "") -> Path:
    """The path with a number before its suffix, and so much shorter that a reason's name fits on file systems, too."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    ending = os.fsencode(f"{number}{suffix}")
    stem = os.fsencode(path.name.removesuffix(suffix))[: _LONGEST_NAME - len(ending)]
    return path.with_name((stem + ending).decode("utf-8", "ignore"))


def classify_files(
    read: Sequence[ReadFile], current: CurrentSource, now: float, *, keep_stray_days: bool = False
) -> TakenIn:
    """Classify the files that were read, and work out what the home reads with them.

    Args:
        read: the files, by name.
        current: what the home reads now.
        now: seconds since 1970; later lines are impossible.
        keep_stray_days: whether files may have days that lie far apart from the rest of the log.
    """
    taken = _classify(read, current, now)
    # All files are judged together, so that it does not matter which comes first. A copy of a refused one is new then.
    while not keep_stray_days and (refused := _with_stray_days(taken)):
        read = [replace(one, delivery=refused.get(one.file, one.delivery)) for one in read]
        taken = _classify(read, current, now)
    return taken


def _with_stray_days(taken: TakenIn) -> dict[WaitingFile, BadInputError]:
    """The files that would bring days far apart from the rest, and why each is refused."""
    refused = {}
    for stray in new_stray_days(taken.before.deliveries, taken.current.deliveries):
        for one in taken.arrivals:
            if one.outcome in ("new", "corrected") and one.delivery and stray.n_lines.keys() & one.delivery.dated_lines:
                refused[one.file] = BadInputError(
                    f"{one.file.name} has {stray.of(one.delivery.dated_lines)}",
                    NO_STRAY_DAYS,
                    f"Correct those dates, or, {KEEP_STRAY_DAYS}, and put the file into the landing folder again.",
                )
    return refused


def _classify(read: Sequence[ReadFile], current: CurrentSource, now: float) -> TakenIn:
    names = {one.file.name for one in read}
    staying = Counter(_kind_of(one) for one in current.deliveries if one.name not in names)
    brought = Counter(_kind_of(one.delivery) for one in read if isinstance(one.delivery, Delivery))
    # Of a home's first files the most frequent kind counts: a single other file must not decide for all.
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
        return _compare_with_current(read.file, read.delivery, current)
    except BadInputError as error:
        return Arrival(read.file, "unreadable", None, str(error))


def _compare_with_current(file: WaitingFile, delivery: Delivery, current: CurrentSource) -> Arrival:
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
    """Refuse a file of a known name without a common day: it is the next export, and must not replace the last."""
    has_days_in_common = bool(before.days.keys() & delivery.days.keys() - {""})
    is_elsewhere = any(one.name != before.name and one.days == before.days for one in current.in_force)
    if not has_days_in_common and not is_elsewhere:
        raise BadInputError(
            f"{delivery.name} has lines of {_days(delivery)}, the earlier file of that name of {_days(before)}",
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
    is_early = delivery.first_date < EARLIEST_DATE
    if is_early or delivery.last_date > latest:
        early, late = f"{delivery.first_date}, before {EARLIEST_DATE}", f"{delivery.last_date}, after {latest}"
        raise BadInputError(
            f"{delivery.name} has lines of {early if is_early else late}",
            f"lines from {EARLIEST_DATE} to today",
            "Correct those dates, or [source] date_format, and put the file into the landing folder again.",
        )


def _kind_of(delivery: Delivery) -> _Kind:
    return frozenset(delivery.columns), delivery.preset


def _export(preset: str | None) -> str:
    return f"an {preset} export" if preset else "an export with own columns"


def _days(delivery: Delivery) -> str:
    first, last = delivery.first_date, delivery.last_date
    return f"{first}" if first == last else f"{first} to {last}"


def _unused_path(path: Path) -> Path:
    """The path itself, or where that exists the first one with a number that does not."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = _with_room(path, f" ({number})")
    return free
