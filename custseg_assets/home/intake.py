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
from custseg_assets.domain.schemas import SEGMENTATION_MODEL
from custseg_assets.domain.transactions.quality import count_of
from custseg_assets.errors import BadInputError
from custseg_assets.home.campaigns import running
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
from custseg_assets.home.own_settings import absolute_source, keep_settings
from custseg_assets.pace import Pace
from custseg_assets.settings import BIGQUERY, DEMO, Settings
from custseg_assets.stores.bucket_tables import forgetting
from custseg_assets.stores.columns import MissingColumnsError
from custseg_assets.stores.deliveries import DeliveryStore, reading_of
from custseg_assets.stores.delivery import (
    KEEP_STRAY_DAYS,
    NO_STRAY_DAYS,
    CurrentSource,
    Delivery,
    new_stray_days,
    period_content,
)
from custseg_assets.stores.files import remove_folder
from custseg_assets.stores.landing_zone import ReadFile, TakenIn, Waiting, WaitingFile, classify_files
from custseg_assets.stores.sources import Progress, keys_of, list_source_files
from custseg_assets.stores.sql_addresses import is_address

LANDING = "landing"
"""Stands for the source of a home that has none but its landing folder."""
_DEMO_VERSION = 2
"""Raise it when the generator makes other lines for the same seed."""
_N_EXAMPLES = 3
_MIN_SAME_DAYS = 0.5
"""Share of a home's days whose lines a source that continues it has; late lines and corrections change some."""


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

    def take_in(self, through: date | None = None, *, replaces: bool = False) -> str:
        """Read the source, unless its content is known already, and what has landed, and make it the home's.

        Args:
            through: the day up to whose period is made; the source's last without it.
            replaces: whether a source that does not continue the home's own data may take their place.

        Returns:
            Key of the last period to make.

        Raises:
            BadInputError: the source, the home or ``through`` cannot be used; nothing was changed.
        """
        current = self._deliveries.current()
        waiting, now = self._waiting(), time.time()
        source = self._source(current, waiting)
        was_demo, starts_afresh = current is not None and current.description == DEMO, False
        if current and was_demo != (source == DEMO):
            starts_afresh = was_demo or self._require_replacing(current, source, replaces=replaces)
        with self._deliveries.unchanged_if_refused(), self._deliveries.reading():
            accepted = take_in_source(self._deliveries, source, self._settings, self._say) if source else []
            if current and not starts_afresh and (why := self._why_no_continuation(source, current, accepted)):
                if not replaces:
                    # Slips of a date say more about a file than that its lines are others.
                    refreshed = current.with_source(accepted, source)
                    refuse_stray_days(self._deliveries, source, current, refreshed, self._settings)
                starts_afresh = self._require_replacing(current, source, why, replaces=replaces)
            before = CurrentSource() if current is None or starts_afresh else current
            read = self._zone.read(self._to_be_read(waiting, before), self._settings.source)
            refreshed = before.with_source(accepted, source)
            if before is current:
                require_same_settings(self._settings)
            else:
                self._require_place_of_its_own()
            refuse_stray_days(self._deliveries, source, before, refreshed, self._settings)
            taken = self._classify(read, refreshed, now)
            self._require_something(taken, waiting)
            taken = self._without_doubt(taken)
            last_key = self._last_key(taken.current.deliveries, through)
        if starts_afresh:
            what = "the demo" if was_demo else "other data"
            self._say(f"the home held {what}; it starts afresh for {'the demo' if source == DEMO else 'your data'}")
            self._keep_campaigns(is_another_shop=was_demo or source == DEMO)
            self._start_afresh()
        self._adopt(taken, before)
        return last_key

    def has_anything(self) -> bool:
        """Whether a source is configured or a file waits, so that there is something to take in but the demo."""
        self._fetch_landed()
        return self._settings.source.path is not None or self._zone.waiting(time.time(), 0) != Waiting()

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
        named = self._settings.source.path
        source = absolute_source(named) if named else None
        if source == DEMO and has_own:
            raise BadInputError(
                f"source {DEMO} for a home in whose landing folder {self._zone.folder} files wait",
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
        keep_settings(self._settings, taken.current.description)
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

    def _keep_campaigns(self, *, is_another_shop: bool) -> None:
        """Set campaigns aside that were about another shop's customers, and say of others that they go on.

        The first that is done: from then on nobody of the new shop can be taken for one of the old one's holdout.
        """
        if is_another_shop:
            if kept := self._paths.keep_earlier_campaigns():
                self._say(
                    f"its campaigns were about other customers; their records are in {kept} and nobody is held out"
                )
        elif names := [one.name for one in running(self._home)]:
            go_on = f"campaign {names[0]} goes on" if len(names) == 1 else f"campaigns {', '.join(names)} go on"
            self._say(f"{go_on} with the customers of the new log who have their ids; 'custseg campaign end' ends one")

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
        paths.unfinished_stage.unlink(missing_ok=True)
        paths.settings_before.unlink(missing_ok=True)
        paths.failure.unlink(missing_ok=True)
        paths.closed.unlink(missing_ok=True)
        paths.kept_models.unlink(missing_ok=True)
        paths.exported_models.unlink(missing_ok=True)
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

    def _why_no_continuation(
        self, source: str | None, current: CurrentSource, accepted: Sequence[Delivery]
    ) -> str | None:
        """Why a source is another shop's, or only a part of this one's; ``None`` where it continues the home's."""
        now = current.with_source(accepted, source)
        was, is_now = (self._home.calendar_of(one.deliveries).period_keys for one in (current, now))
        if lost := sorted(set(was) - set(is_now)):
            first, last = _days_of(now.deliveries) if now.deliveries else ("nothing", "nothing")
            return f"covers {first} to {last}, and lacks {count_of(len(lost), 'period')} of the home, from {lost[0]}"
        if not current.source or source is None or _is_same_place(source, current.description):
            return None
        before, after = (period_content(one, "daily") for one in (current.source, accepted))
        # Where files are read otherwise now, no line is as it was; the numbers of lines are.
        part = slice(None) if current.reading == self._reading else slice(1)
        n_same = sum(content[part] == after.get(day, (0, ""))[part] for day, content in before.items())
        if n_same >= _MIN_SAME_DAYS * len(before):
            return None
        return f"has the same lines as the home on {n_same:,} of its {len(before):,} days"

    def _require_replacing(
        self, current: CurrentSource, source: str | None, why: str | None = None, *, replaces: bool
    ) -> bool:
        """Have own data replaced only where that was asked for, and say what is lost."""
        tables, root = self._home.tables, self._paths.root
        counts = {
            "row": sum(one.n_rows for one in current.deliveries),
            "period": len(self._home.calendar_of(current.deliveries).period_keys),
            "model": tables.whole(SEGMENTATION_MODEL).height,
        }
        n_rows, n_periods, n_models = (count_of(n, noun) for noun, n in counts.items())
        lost = f"{n_rows}, {n_periods} and {n_models} of {current.description or LANDING}"
        if not replaces:
            go_on = "Leave --source out" if source == DEMO else "Put all files into one folder and give that"
            raise BadInputError(
                f"source {source}{f' {why}' if why else ''}; home {root} holds {lost}",
                "a source with every period and most of the lines that the home has",
                f"{go_on}, or use another home with CUSTSEG_HOME; --replace gives up what this one holds, with its "
                "models and history.",
            )
        self._say(f"--replace: {lost} are given up")
        return True


def _is_same_place(source: str, description: str | None) -> bool:
    """Whether a source is the one that the home was last read from, and so continues it, however much has changed."""
    if description is None or "://" in source or "://" in description:
        return source == description
    return Path(source).absolute() == Path(description).absolute()


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
