"""``custseg replay``: history played through the sensors, the schedule and the jobs that run under ``custseg ui``.

Each period's lines are dropped into the landing zone of a home of its own, the clock is set to when that would have
been, and then what the daemon does is done here: the sensors and the schedule are asked, and what they ask for is run.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import dagster as dg
import polars as pl

from custseg_assets.definitions import build_defs
from custseg_assets.defs.automation import TickSource
from custseg_assets.defs.partitions import Layout, layout_of
from custseg_assets.domain import schemas
from custseg_assets.domain.periods import shift, start_of
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.domain.transactions.log_facts import Code
from custseg_assets.domain.transactions.presets import RowFilter
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.home.open import OpenHome
from custseg_assets.instance.event_log import temporary_instance
from custseg_assets.instance.execute import JobRunner
from custseg_assets.pace import Pace
from custseg_assets.settings import CleaningSettings, GcpSettings, LandingSettings, TrackingSettings, VersionSettings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.exclusion import EXCLUDED_BY
from custseg_assets.stores.files import replacement_for
from custseg_assets.stores.sources import Progress

_SENSORS = ("landing", "stale_partitions", "retrain_on_drift")
_SCHEDULE = "close_period"
_MAX_RUNS = 50


@dataclass(frozen=True)
class SnapshotOutcome:
    """What one snapshot brought.

    Attributes:
        snapshot: its key.
        is_open: whether its period is not over: the log ends in it.
        verdict: of the drift report.
        decision: whether a retrain was due.
        promotion: what was decided about the challenger; of the first model, or of a retrain.
        model: the model in force after it.
        n_moves: customers that changed segment since the snapshot before.
        n_phantom: those of them that only a change of model moved.
        runs: the Dagster runs it took, in order, with who asked for them.
        cpu_seconds: of this process and the trainers it started.
    """

    snapshot: str
    is_open: bool
    verdict: str
    decision: str
    promotion: str
    model: str
    n_moves: int
    n_phantom: int
    runs: tuple[str, ...]
    cpu_seconds: float


class Replay:
    """Plays a log from one snapshot to another.

    Args:
        source: the home whose data are played.
        folder: of the home it is played in; new.
        is_kept: whether the home stays, and Dagster's history, pictures and pages have to be in it; without them it
            costs half the time.
    """

    def __init__(self, source: OpenHome, folder: Path, *, is_kept: bool) -> None:
        self._source, self._is_kept = source, is_kept
        settings = source.settings.model_copy(
            update={
                "home": folder,
                # Its lines were taken in before, and numbers are written plainly.
                "source": _AS_TAKEN_IN,
                "cleaning": _as_settings(source.cleaning_rules),
                # A file dropped here is whole.
                "landing": LandingSettings(settle_seconds=0),
                # What is played stays in the home it is played in: no bucket is emptied, nothing goes out or is paid.
                "gcp": GcpSettings(),
                "tracking": TrackingSettings(),
                "versions": VersionSettings(),
            }
        )
        # A home that is gone at the end, with its history in memory, has nobody who looks at it.
        self.home = OpenHome(settings, has_viewers=is_kept)
        mapped = {name for delivery in source.calendar.deliveries for name in delivery.columns}
        if mapped & set(schemas.READ_NAMES):
            mapped.add("line_amount")
        self._columns = [name for name in schemas.MAPPED_NAMES if name in mapped]
        self._now = datetime.fromisoformat(source.calendar.period_keys[0])
        self._requested: set[str] = set()
        self._layout: Layout | None = None

    def play(self, first: str, last: str) -> Iterator[SnapshotOutcome]:
        """Every snapshot of a range, one after the other; the first one trains the first model.

        Args:
            first: key of the first snapshot.
            last: key of the last.

        Raises:
            BadInputError: the home has no such snapshots.
            RunFailedError: a run failed; the home stays as it was then.
        """
        calendar = self._source.calendar
        for key in (first, last):
            if key not in calendar.snapshot_keys:
                raise BadInputError(
                    f"snapshot {key}", f"one of {', '.join(calendar.snapshot_keys)}", "Name one with --from or --to."
                )
        self.home.paths.make()
        periods = [key for key in calendar.period_keys if calendar.window(first).keys[0] <= key <= last]
        with contextlib.nullcontext() if self._is_kept else temporary_instance() as instance:
            self._jobs = JobRunner(self.home, lambda _: None, instance)
            for key in periods:
                started = _cpu_seconds()
                self._drop(key)
                runs = [*self._sensors(), *(self._close(key) if key >= first else ())]
                if key >= first:
                    yield replace(self._outcome(key), runs=tuple(runs), cpu_seconds=_cpu_seconds() - started)
                if key == first:
                    # What is loaded by now stays; looking through it for garbage costs a tenth of a snapshot each time.
                    gc.collect()
                    gc.freeze()

    def _drop(self, key: str) -> None:
        """Put a period's lines into the landing zone at its end."""
        cadence = self.home.settings.snapshots.cadence
        end = datetime.combine(shift(start_of(key), 1, cadence), datetime.min.time())
        self._now = end
        deliveries = self._source.calendar.deliveries
        lines = self._source.deliveries.scan_periods(deliveries, [key], cadence).collect()
        path = self.home.landing_zone.folder / f"{key}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement_for(path) as unfinished:
            as_delivered(lines, self._columns).write_parquet(unfinished)

    def _close(self, key: str) -> Iterator[str]:
        """The schedule's tick at the end of a period, and what the sensors make of it."""
        after = timedelta(hours=self.home.settings.automation.grace_hours)
        self._now = max(self._now, self.home.calendar.window(key).period_end + after)
        definitions = self._loaded()
        context = dg.build_schedule_context(
            scheduled_execution_time=self._now.replace(tzinfo=UTC), repository_def=definitions.get_repository_def()
        )
        ticked = definitions.get_repository_def().get_schedule_def(_SCHEDULE).evaluate_tick(context)
        for request in ticked.run_requests or ():
            yield self._run(definitions, request, f"schedule {_SCHEDULE}")
        yield from self._sensors()

    def _sensors(self) -> Iterator[str]:
        """Ask the sensors, and run what they ask for, until all of them have nothing more to ask."""
        for _ in range(_MAX_RUNS):
            ran = next(self._one_run(), None)
            if ran is None:
                return
            yield ran
        raise RunFailedError(f"the sensors were not done after {_MAX_RUNS} runs")

    def _one_run(self) -> Iterator[str]:
        for name in _SENSORS:
            definitions = self._loaded()
            loaded = definitions.get_repository_def()
            context = dg.build_sensor_context(instance=self._jobs.instance, repository_def=loaded)
            for request in loaded.get_sensor_def(name).evaluate_tick(context).run_requests or ():
                if request.run_key not in self._requested:
                    self._requested.add(str(request.run_key))
                    yield self._run(definitions, request, f"sensor {name}")

    def _run(self, definitions: dg.Definitions, request: dg.RunRequest, asked_by: str) -> str:
        kind, _, name = asked_by.partition(" ")
        tagged = request.with_replaced_attrs(tags={**request.tags, f"dagster/{kind}_name": name})
        words = f"{request.job_name} {request.partition_key or request.tags.get('custseg/periods', '')}".strip()
        self._jobs.launch(definitions, tagged, words)
        return f"{words} ({asked_by})"

    def _loaded(self) -> dg.Definitions:
        """The definitions, loaded again when there are new periods, as a code location is."""
        calendar, settings = self.home.calendar, self.home.settings
        if self._layout is None or not self._layout.is_current(calendar):
            self._layout = layout_of(calendar, settings.snapshots)
            ticks = TickSource(lambda: self._now, self._jobs.instance)
            self._definitions = build_defs(settings=settings, home=self.home, ticks=ticks)
        return self._definitions

    def _outcome(self, key: str) -> SnapshotOutcome:
        tables, champions = self.home.tables, self.home.champions
        drift = tables.read(schemas.DRIFT_REPORT, [key])
        retrain = tables.read(schemas.RETRAIN_DECISION, [key])
        promoted = tables.read(schemas.PROMOTION_DECISION, [key])
        moves = tables.read(schemas.SEGMENT_MIGRATIONS, [key])
        champion = champions.champion_at(key)
        is_trained = key in champions.trainings
        return SnapshotOutcome(
            snapshot=key,
            is_open=self.home.calendar.window(key).is_open,
            verdict=drift["verdict"][0] if drift.height else "–",
            decision=retrain["decision"][0] if retrain.height else "–",
            promotion=promoted["decision"][0] if is_trained and promoted.height else "–",
            model=champion[1] if champion else "none",
            n_moves=moves.height,
            n_phantom=moves.filter(pl.col("cause") == "model change").height,
            runs=(),
            cpu_seconds=0.0,
        )


def replay(source: OpenHome, first: str | None, last: str | None, keep: Path | None, say: Progress) -> Iterator[str]:
    """The timeline of a replay, line by line.

    Args:
        source: the home whose data are played.
        first: key of the first snapshot.
        last: key of the last.
        keep: a new home to play in and leave; a temporary one without it.
        say: takes each line of progress.

    Raises:
        BadInputError: the home has no such snapshots, or ``keep`` is there already.
        RunFailedError: a run failed.
    """
    keys = source.calendar.snapshot_keys
    if not keys:
        raise BadInputError(
            f"home {source.paths.root}, which has no snapshot",
            "a home with data for at least one full window",
            "Run 'custseg run' first.",
        )
    if keep and keep.exists():
        raise BadInputError(f"--keep {keep}, which is there already", "a folder that is not there", "Name another.")
    with contextlib.ExitStack() as stack:
        home = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="custseg-replay-"))) / "home"
        outcomes = []
        first, last = first or keys[0], last or keys[-1]
        played = Replay(source, home.absolute(), is_kept=keep is not None).play(first, last)
        to_play = sum(first <= key <= last for key in keys)
        yield _HEADINGS
        for number, outcome in enumerate(played, start=1):
            if number == 1:
                # What it takes to load everything and to train the first model, no later snapshot takes again.
                pace = Pace(to_play - 1)
            outcomes.append(outcome)
            yield _line(outcome)
            if left := pace.left(number - 1):
                say(f"{number:,} of {to_play:,} snapshots{left}")
        yield ""
        yield from (f"{outcome.snapshot}: {', '.join(outcome.runs)}" for outcome in outcomes)


_WIDTHS = (20, 17, 9, 10, 24, 7, 9, 6)
_HEADINGS = "".join(
    f"{word:<{width}}"
    for word, width in zip(
        ("snapshot", "verdict", "retrain", "gate", "model in force", "moves", "phantom", "CPU s"), _WIDTHS, strict=True
    )
).rstrip()


def _line(outcome: SnapshotOutcome) -> str:
    cells = (
        f"{outcome.snapshot}{' so far' * outcome.is_open}",
        outcome.verdict,
        outcome.decision,
        outcome.promotion,
        outcome.model,
        f"{outcome.n_moves:,}",
        f"{outcome.n_phantom:,}",
        f"{outcome.cpu_seconds:.1f}",
    )
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def as_delivered(lines: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Lines of ``raw_transactions`` as a file that reads back to the same, values that could not be read included.

    A column with such values is text, as it must have been in the file they came from; a customer's id that lost digits
    stays out, because it would be somebody's.

    Args:
        lines: of one period.
        names: the columns that the shop's files have.
    """
    unread = [json.loads(text) for text in lines["unreadable_values"].drop_nulls()]
    raw = pl.col("unreadable_values").str.json_path_match
    return lines.select(
        *(
            pl.coalesce(raw(f"$.{name}"), pl.col(name).cast(pl.String)).alias(name)
            if name != "customer_id" and _is_in(name, unread)
            else pl.col(name)
            for name in names
        ),
        EXCLUDED_BY,
    )


_AS_TAKEN_IN = SourceSettings(
    decimal=".",
    preset="none",
    filter={EXCLUDED_BY: RowFilter(only=("",))},
    customer_id_case="keep",
    customer_id_form="text",
    accepted_doubts=get_args(Code),
    keep_stray_days=True,
    max_unreadable_share=1.0,
)
"""How lines are read again that a home took in before: nothing is recognised, and nothing is doubted."""


def _as_settings(rules: CleaningRules) -> CleaningSettings:
    return CleaningSettings(
        # Nought switches a rule off, and so does what no description and no invoice is.
        service_code_max_digits=rules.service_code_max_digits or 0,
        service_descriptions=rules.service_descriptions,
        cancellation_prefix=rules.cancellation_prefix,
        duplicates="keep" if rules.keeps_equal_lines else "drop",
        negative_prices="keep" if rules.keeps_negative_prices else "reject",
    )


def _is_in(name: str, unread: list[dict[str, str]]) -> bool:
    return any(name in values for values in unread)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
