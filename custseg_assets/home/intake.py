"""What the home reads: its source and what landed, taken in together.

``custseg run`` and the asset ``landed_files`` take in here, so that both keep to the same rules.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path

import polars as pl

from custseg_assets.domain.demo import DEFAULT_SEED, generate_demo
from custseg_assets.domain.periods import key_of, keys_between, period_start
from custseg_assets.errors import BadInputError
from custseg_assets.home.fixed_settings import (
    ON_DISK,
    PLACE,
    fix_settings,
    read_fixed_settings,
    require_same_settings,
    settings_to_fix,
)
from custseg_assets.home.log_doubts import require_no_doubt
from custseg_assets.home.open import LockedHome
from custseg_assets.pace import Pace
from custseg_assets.settings import DEMO, Settings
from custseg_assets.stores.bucket_tables import forgetting
from custseg_assets.stores.columns import MissingColumnsError
from custseg_assets.stores.deliveries import DeliveryStore, reading_of
from custseg_assets.stores.delivery import KEEP_STRAY_DAYS, NO_STRAY_DAYS, CurrentSource, Delivery, new_stray_days
from custseg_assets.stores.files import remove_folder
from custseg_assets.stores.landing_zone import ReadFile, TakenIn, Waiting, WaitingFile, classify_files
from custseg_assets.stores.sources import Progress, keys_of, list_source_files
from custseg_assets.stores.sql_addresses import is_address

LANDING = "landing"
"""Stands for the source of a home that has none but its landing folder."""
BIGQUERY = "bq://"
STAGE_MARKER = "stage.json"
_DEMO_VERSION = 2
"""Raise it when the generator makes other lines for the same seed."""
_N_EXAMPLES = 3


class Intake:
    """Takes files into one home.

    Args:
        home: that they are taken into.
        say: takes each line of progress.
    """

    def __init__(self, home: LockedHome, say: Progress) -> None:
        self._home, self._say = home, say
        self._settings, self._paths = home.settings, home.paths
        self._deliveries, self._zone = home.deliveries, home.landing_zone

    def take_in(self, through: date | None = None) -> str:
        """Read the source, unless its content is known already, and what has landed, and make it the home's.

        Returns:
            Key of the last period to make.

        Raises:
            BadInputError: the source, the home or ``through`` cannot be used; nothing was changed.
        """
        current = self._deliveries.current()
        waiting, now = self._waiting(), time.time()
        source = self._source(current, waiting)
        is_first = current is None or current.description == DEMO != source
        before = CurrentSource() if current is None or is_first else current
        with self._deliveries.unchanged_if_refused(), self._deliveries.reading():
            read = self._zone.read(self._to_be_read(waiting, before), self._settings.source)
            accepted = take_in_source(self._deliveries, source, self._settings, self._say) if source else []
            refreshed = before.with_source(accepted, source)
            if is_first:
                self._require_place_of_its_own()
            else:
                require_same_settings(self._settings)
                self._refuse_loss(source, before, refreshed)
            refuse_stray_days(self._deliveries, source, before, refreshed, self._settings)
            taken = self._classify(read, refreshed, now)
            self._require_something(taken, waiting)
            taken = self._without_doubt(taken)
            last_key = self._last_key(taken.current.deliveries, through)
        if current and is_first:
            self._say("the home held the demo; it starts afresh for your data")
            self._start_afresh()
        self._adopt(taken, before)
        return last_key

    def take_in_landed(self) -> TakenIn:
        """Take in what has landed, and leave the source as it was last read.

        Raises:
            BadInputError: the home is the demo's, or was made with other settings; nothing was changed.
        """
        self._fetch_landed()
        current = self._deliveries.current() or CurrentSource()
        waiting = self._zone.waiting(time.time(), self._settings.landing.settle_seconds)
        if waiting.files and current.description == DEMO:
            raise BadInputError(
                f"home {self._paths.root} holds the demo and {waiting.files[0].name} landed in it",
                "a home for your own data",
                "Do 'custseg run' once, which starts it afresh, or use another home with CUSTSEG_HOME.",
            )
        if current.deliveries:
            require_same_settings(self._settings)
        else:
            self._require_place_of_its_own()
        read = self._zone.read(self._to_be_read(waiting, current), self._settings.source)
        taken = self._classify(read, current, time.time())
        if taken.arrivals:
            if taken.current.deliveries:
                taken = self._without_doubt(taken)
            self._adopt(taken, current)
        return taken

    def _to_be_read(self, waiting: Waiting, current: CurrentSource) -> Sequence[WaitingFile]:
        """What waits, and where files would now be read otherwise, what was taken in before, too."""
        if not current.landed or current.reading == self._reading:
            return waiting.files
        dropped = {file.name for file in waiting.files}
        again = [file for file in self._zone.taken_in() if file.name not in dropped]
        if again:
            self._say(f"landing: reading {len(again):,} files again, because settings or versions have changed")
        return sorted([*waiting.files, *again], key=lambda file: file.name)

    @cached_property
    def _reading(self) -> str:
        return reading_of(self._settings.source)

    def _without_doubt(self, taken: TakenIn) -> TakenIn:
        """The same, with what is doubtful about the log as a whole but no reason to stop."""
        deliveries = taken.current.deliveries
        doubts = require_no_doubt(self._deliveries, deliveries, self._settings)
        for doubt in doubts:
            self._say(f"! {doubt}")
        return replace(taken, current=replace(taken.current, doubts=doubts, reading=self._reading))

    def _classify(self, read: Sequence[ReadFile], current: CurrentSource, now: float) -> TakenIn:
        return classify_files(read, current, now, keep_stray_days=self._settings.source.keep_stray_days)

    def _fetch_landed(self) -> None:
        """Bring here what has landed in the bucket, where one is configured."""
        bucket = self._home.open_bucket()
        if bucket and (names := bucket.fetch_landed(self._zone.folder)):
            self._say(f"landing: {', '.join(names)} came from {bucket.uri}")

    def _waiting(self) -> Waiting:
        """What waits in the landing folder, with files that were dropped a moment ago."""
        self._fetch_landed()
        seconds = self._settings.landing.settle_seconds
        waiting = self._zone.waiting(time.time(), seconds)
        if waiting.settling:
            self._say(f"landing: waiting {seconds:g} s for {', '.join(waiting.settling)} to be whole")
            time.sleep(seconds)
            waiting = self._zone.waiting(time.time(), seconds)
        for name in (*waiting.settling, *waiting.unfinished):
            self._say(f"landing: {name} is still being written, and left for the next run")
        return waiting

    def _source(self, current: CurrentSource | None, waiting: Waiting) -> str | None:
        """The source to read; ``None`` where the home lives on its landing folder."""
        has_own = waiting != Waiting()
        source = self._settings.source.path
        if source == DEMO and (has_own or (current and current.landed)):
            raise BadInputError(
                f"source {DEMO} for a home whose landing folder {self._zone.folder} has files",
                "a home without files of your own",
                "Leave --source out, or use another home with CUSTSEG_HOME.",
            )
        if source and not is_address(source) and Path(source).resolve() == self._zone.folder.resolve():
            raise BadInputError(
                f"source {source} is the landing folder",
                "another folder",
                "Leave --source out: what lands is taken in.",
            )
        if source is None and current and not (has_own and current.description == DEMO):
            source = current.description
        elif source is None and not has_own:
            source = DEMO
        return source

    def _require_something(self, taken: TakenIn, waiting: Waiting) -> None:
        """A home that has no source, and nothing that landed can be used: the files are moved aside all the same."""
        if taken.current.deliveries:
            return
        self._tell(taken)
        self._zone.adopt(taken)
        found = [f"{name}: {reason}" for name, reason in taken.unreadable.items()]
        raise BadInputError(
            f"nothing in {self._zone.folder} could be taken in: {(*found, *waiting.settling, *waiting.unfinished)[0]}",
            "at least one whole file that can be read",
            "Put one there, or name a source with --source.",
        )

    def _adopt(self, taken: TakenIn, before: CurrentSource) -> None:
        self._tell(taken)
        self._home.forget_lost(*map(self._home.calendar_of, (before.deliveries, taken.current.deliveries)))
        fix_settings(self._settings)
        self._zone.adopt(taken)

    def _tell(self, taken: TakenIn) -> None:
        if taken.arrivals:
            self._say(f"landing: {taken}")
        for arrival in taken.arrivals:
            if arrival.outcome != "new":
                self._say(f"  {arrival.file.name} {arrival.outcome}: {arrival.note}")

    def _last_key(self, deliveries: Sequence[Delivery], through: date | None) -> str:
        first, last = _days_of(deliveries)
        cadence = self._settings.snapshots.cadence
        key = key_of(period_start(through or last, cadence))
        if key not in keys_between(first, last, cadence):
            raise BadInputError(
                f"--through {through}",
                f"a day the data cover, {first} to {last}",
                "Name one of those, or leave it out.",
            )
        return key

    def _start_afresh(self) -> None:
        """Remove what was made of the demo; what was just taken in stays."""
        paths = self._paths
        place = read_fixed_settings(paths).get(PLACE, ON_DISK)
        if place != ON_DISK:
            with forgetting(paths.notes):
                if bucket := self._home.open_bucket(place.rpartition("/")[0]):
                    bucket.remove_tables()
        for folder in (paths.tables, paths.releases, paths.data_docs, paths.mlflow, paths.dagster):
            if folder.exists():
                remove_folder(folder)
        (paths.root / STAGE_MARKER).unlink(missing_ok=True)
        paths.failure.unlink(missing_ok=True)
        paths.closed.unlink(missing_ok=True)
        # The last, because it says where the tables are that have to be removed.
        paths.fixed_settings.unlink(missing_ok=True)
        self._home.forget_tables()

    def _require_place_of_its_own(self) -> None:
        """A new home does not begin on the tables of another, which would be mixed with its own."""
        place = settings_to_fix(self._settings)[PLACE]
        if place in (ON_DISK, read_fixed_settings(self._paths).get(PLACE)):
            return
        bucket = self._home.open_bucket()
        if bucket and bucket.has_tables():
            raise BadInputError(
                f"{place} holds tables, and home {self._paths.root} has not made them",
                "a place without tables for a new home",
                "Give it another [gcp.storage] uri, use the home that made them, or remove them.",
            )

    def _refuse_loss(self, source: str | None, before: CurrentSource, now: CurrentSource) -> None:
        """A source that lacks periods the home has is another shop's, or a part of this one's."""
        was, is_now = (self._home.calendar_of(one.deliveries).period_keys for one in (before, now))
        lost = sorted(set(was) - set(is_now))
        if lost:
            first, last = _days_of(now.deliveries)
            raise BadInputError(
                f"source {source} covers {first} to {last}, but home {self._paths.root} holds "
                f"{len(lost)} periods outside that, from {lost[0]}",
                "a source with every period the home has",
                "Put all files into one folder and give that, or use another home with CUSTSEG_HOME.",
            )


def refuse_stray_days(
    store: DeliveryStore, source: str | None, before: CurrentSource, now: CurrentSource, settings: Settings
) -> None:
    """Refuse few lines far apart from the rest: slips of a date, which would move the log's first or last day.

    Args:
        store: with the deliveries.
        source: as the user named it, for the message.
        before: what was read until now.
        now: what is to be read.
        settings: whether such lines are right.

    Raises:
        BadInputError: there are some.
    """
    stray = () if settings.source.keep_stray_days else new_stray_days(before.deliveries, now.deliveries)
    if stray:
        days = {day for one in stray for day in one.n_lines}
        files = [one for one in now.deliveries if days & one.dated_lines.keys()]
        lines = store.scan(files).filter(pl.col("invoiced_at").dt.date().is_in(days))
        examples = lines.select("source_file", "source_row").head(_N_EXAMPLES).collect().rows()
        rows = ", ".join(f"row {row:,} of {name}" for name, row in examples)
        raise BadInputError(
            f"source {source} has {' and '.join(map(str, stray))}, such as {rows}",
            NO_STRAY_DAYS,
            f"Correct those dates or remove the lines; {KEEP_STRAY_DAYS}.",
        )


def take_in_source(deliveries: DeliveryStore, source: str, settings: Settings, say: Progress) -> list[Delivery]:
    """Read a source into the store of deliveries.

    Args:
        deliveries: where it goes.
        source: path of a file or folder, ``bq://project.dataset.table``, address of a database, or ``demo``.
        settings: how it is read.
        say: takes each line of progress.

    Raises:
        BadInputError: it cannot be read.
    """
    if source == DEMO:
        return [deliveries.accept_frame(DEMO, f"{_DEMO_VERSION} {DEFAULT_SEED}", generate_demo, preset="online_retail")]
    _refuse_keys_of_databases(source, settings)
    if source.startswith(BIGQUERY):
        from custseg_assets.gcp.bigquery_source import accept_table as accept_bigquery_table

        return [accept_bigquery_table(deliveries, source, settings, say)]
    if is_address(source):
        from custseg_assets.stores.sql_source import accept_table

        return accept_table(deliveries, source, settings, say)
    if settings.source.query is not None:
        from custseg_assets.stores.several_tables import accept_query

        return [accept_query(deliveries, Path(source), settings.source, say)]
    return _accept_files(deliveries, Path(source), settings, say)


def _accept_files(deliveries: DeliveryStore, source: Path, settings: Settings, say: Progress) -> list[Delivery]:
    """Read a file, or the files of a folder, which must all be the log."""
    accepted: list[Delivery] = []
    foreign: dict[str, MissingColumnsError] = {}
    paths = list_source_files(source, say)
    sizes = [path.stat().st_size for path in paths]
    pace = Pace(sum(sizes))
    with deliveries.reading():
        for number, path in enumerate(paths):
            if left := pace.left(sum(sizes[:number])):
                say(f"{number:,} of {len(paths):,} files{left}")
            name = path.name if path == source else path.relative_to(source).as_posix()
            try:
                keys = keys_of(path, source)
                accepted.append(deliveries.accept(path, settings.source, progress=say, name=name, keys=keys))
            except MissingColumnsError as error:
                foreign[name] = error
    if foreign and accepted:
        names = ", ".join(foreign)
        raise BadInputError(
            f"folder {source} has the required columns in {len(accepted)} of {len(accepted) + len(foreign)} files, but"
            f" not in {names}: {next(iter(foreign.values())).got}",
            "only files of the log in it",
            f"Move {names} elsewhere, or give the path of the log's file if it is only one.",
        )
    if foreign:
        raise next(iter(foreign.values()))
    return accepted


def _refuse_keys_of_databases(source: str, settings: Settings) -> None:
    """What a database is asked for means nothing for another source, and would be left out without a word."""
    if is_address(source):
        return
    keys = ["table", "cursor", *(["query"] if source.startswith(BIGQUERY) else [])]
    given = [key for key in keys if getattr(settings.source, key) is not None]
    if given:
        raise BadInputError(
            f"[source] {given[0]} for source {source}",
            "the address of a database, such as postgresql://user@host/database",
            f"Take {given[0]} out, or correct [source] path.",
        )


def _days_of(deliveries: Iterable[Delivery]) -> tuple[date, date]:
    """The first and the last day that deliveries cover."""
    days = [day for one in deliveries for day in (one.first_date, one.last_date)]
    return min(days), max(days)
