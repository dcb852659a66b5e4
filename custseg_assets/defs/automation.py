"""What starts runs when nobody does: sensors, the schedule that closes periods, and the alert when a run fails.

Data of the next period close a period, and so do data up to its last day. Where neither comes, because a shop is shut
at the end of a month, the clock does, but only if the data come near the end: where they stop earlier, everybody would
look older than they are, and the period stays open until there are more.

Each is a shell around a question that ``home.plan``, the landing zone or a table answers. One run is requested at a
time: while one is going on, or ``custseg run`` has the home, a sensor waits for its next tick.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from custseg_assets.defs.abandoned import ABANDONED_TAG
from custseg_assets.defs.jobs import Job
from custseg_assets.defs.partitions import Layout
from custseg_assets.domain.periods import Cadence
from custseg_assets.domain.schemas import RETRAIN_DECISION
from custseg_assets.errors import BadInputError
from custseg_assets.home.campaigns import made_from, stale_days
from custseg_assets.home.model_exports import due_exports
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import (
    CAMPAIGNS,
    EXPORT,
    SEGMENTED,
    TABLES_OF_JOB,
    Stage,
    closable_key,
    digest_inputs,
    due_publication,
    due_retrain,
    next_stage,
)
from custseg_assets.settings import UI_TOKEN_HEADER
from custseg_assets.stores.alerts import AlertLog
from custseg_assets.stores.bucket_tables import in_words
from custseg_assets.stores.prediction_log import finished_files
from custseg_assets.stores.publications import Publications
from custseg_assets.stores.tables import fingerprint

CODE_LOCATION = "custseg_assets.definitions"
STATE_TAG = "custseg/state"
PERIODS_TAG = "custseg/periods"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

Answer = dg.RunRequest | dg.SkipReason

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_CLOSING = {"daily": "{minute} {hour} * * *", "weekly": "{minute} {hour} * * 1", "monthly": "{minute} {hour} 1 * *"}
_LATEST = {"daily": timedelta(days=2), "weekly": timedelta(days=9), "monthly": timedelta(days=35)}


def wall_clock() -> datetime:
    """Now, in UTC, without a zone: as the log's own instants are."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class TickSource:
    """Where the ticks of sensors and of the schedule take the time and the instance from.

    Attributes:
        clock: says what time it is, in UTC without a zone.
        instance: whose runs they look at; that of the tick without it.
    """

    clock: Callable[[], datetime] = wall_clock
    instance: dg.DagsterInstance | None = None

    def instance_of(self, context: dg.SensorEvaluationContext | dg.ScheduleEvaluationContext) -> dg.DagsterInstance:
        """The instance of a tick."""
        return self.instance or context.instance


def every_sensor(
    home: OpenHome, layout: Layout, jobs: Mapping[str, Job], ticks: TickSource
) -> list[dg.SensorDefinition]:
    """The sensors, in the order in which they come into play.

    Args:
        home: that they watch.
        layout: the partitions these definitions were loaded with.
        jobs: by name.
        ticks: the time, and Dagster's instance.
    """
    automation = home.settings.automation
    shared: dict[str, Any] = {
        "minimum_interval_seconds": automation.interval_seconds,
        "default_status": dg.DefaultSensorStatus.RUNNING if automation.enabled else dg.DefaultSensorStatus.STOPPED,
    }

    @dg.sensor(job=jobs["take_in"], description="Takes in the files that wait in the landing zone.", **shared)
    def landing(context: dg.SensorEvaluationContext) -> Answer:
        if bucket := home.open_bucket():
            bucket.fetch_landed(home.landing_zone.folder)
        landed = home.landing_zone.waiting(time.time(), home.settings.landing.settle_seconds)
        if not landed.files:
            return dg.SkipReason(f"no whole file waits in {home.landing_zone.folder}")
        instance = ticks.instance_of(context)
        return _reason_to_wait(instance, home) or _request_run(
            instance, home, "take_in", landed.digest, f"taking in {len(landed.files)} files"
        )

    @dg.sensor(
        jobs=[jobs[name] for name in TABLES_OF_JOB if name != "retrain"],
        description="Makes what is out of date, one stage after the other; the present snapshot now and then.",
        **shared,
    )
    def stale_partitions(context: dg.SensorEvaluationContext) -> Answer:
        instance, now = ticks.instance_of(context), ticks.clock()
        wait = _reason_to_wait(instance, home) or _close_by_clock(home, now)
        if wait:
            return wait
        memory = _Present(home, context.cursor, now)
        answer = _request_next(instance, home, layout, memory)
        context.update_cursor(memory.cursor)
        return answer

    @dg.sensor(
        job=jobs["retrain"],
        description="Starts a retrain when the newest drift report led to the decision that one is due.",
        **shared,
    )
    def retrain_on_drift(context: dg.SensorEvaluationContext) -> Answer:
        instance = ticks.instance_of(context)
        return _reason_to_wait(instance, home) or _request_retrain(instance, home)

    @dg.sensor(job=jobs["prediction_log"], description="Takes in what the service has logged.", **shared)
    def prediction_log(context: dg.SensorEvaluationContext) -> Answer:
        if bucket := home.open_bucket():
            bucket.fetch_predictions(home.paths.prediction_log)
        files = finished_files(home.paths.prediction_log)
        if not files:
            return dg.SkipReason(f"no finished file in {home.paths.prediction_log}")
        instance = ticks.instance_of(context)
        names = f"{fingerprint([file.name for file in files]):x}"
        return _reason_to_wait(instance, home) or _request_run(
            instance, home, "prediction_log", names, f"taking in {len(files)} files of predictions"
        )

    sensors = [landing, stale_partitions, retrain_on_drift, prediction_log, _alert_on_failure(home, shared)]
    sensors.insert(-1, _comparing(home, jobs[CAMPAIGNS], ticks, shared))
    optional = {"publish": _publishing, EXPORT: _exporting}
    return [*sensors, *(optional[name](home, jobs[name], ticks, shared) for name in optional.keys() & jobs.keys())]


def every_schedule(
    home: OpenHome, layout: Layout, jobs: Mapping[str, Job], ticks: TickSource
) -> list[dg.ScheduleDefinition]:
    """The schedule that closes each period."""
    settings = home.settings
    after, cadence = settings.automation.grace_hours, settings.snapshots.cadence

    @dg.schedule(
        cron_schedule=_CLOSING[cadence].format(hour=after, minute=0),
        job=jobs["snapshot"],
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING
        if settings.automation.enabled
        else dg.DefaultScheduleStatus.STOPPED,
        description=f"Closes each period {after} hours after its end, where no data have, and takes its snapshot.",
    )
    def close_period(context: dg.ScheduleEvaluationContext) -> Answer:
        now = context.scheduled_execution_time.astimezone(UTC).replace(tzinfo=None)
        wait = _reason_to_wait(ticks.instance_of(context), home) or _close_by_clock(home, now)
        if wait:
            return wait
        request = _request_next(ticks.instance_of(context), home, layout)
        if isinstance(request, dg.RunRequest) and request.job_name != "snapshot":
            return dg.SkipReason(f"{request.job_name} comes first; the sensor stale_partitions starts it")
        return request

    return [close_period]


def latest_arrival(cadence: Cadence) -> dg.FreshnessPolicy:
    """How old the newest materialisation may become before Dagster says that something has stopped coming."""
    window = _LATEST[cadence]
    return dg.FreshnessPolicy.time_window(fail_window=window, warn_window=window - timedelta(days=1))


def _publishing(home: OpenHome, job: Job, ticks: TickSource, shared: Mapping[str, Any]) -> dg.SensorDefinition:
    @dg.sensor(job=job, description="Publishes what BigQuery has otherwise than the tables.", **shared)
    def publishing(context: dg.SensorEvaluationContext) -> Answer:
        record = Publications.in_bigquery(home.paths, home.settings)
        due = due_publication(home, record)
        if not due:
            return dg.SkipReason(f"{record.destination} is up to date")
        instance = ticks.instance_of(context)
        return _reason_to_wait(instance, home) or _request_run(
            instance, home, "publish", f"{fingerprint(due):x}", f"publishing {', '.join(due)}"
        )

    return publishing


def _comparing(home: OpenHome, job: Job, ticks: TickSource, shared: Mapping[str, Any]) -> dg.SensorDefinition:
    @dg.sensor(job=job, description="Compares campaigns anew when there are more data of their days.", **shared)
    def campaigns(context: dg.SensorEvaluationContext) -> Answer:
        if not any(stale_days(home).values()):
            return dg.SkipReason("the tables of campaigns are up to date, or there is no campaign")
        instance, state = ticks.instance_of(context), f"{fingerprint(made_from(home)):x}"
        return _reason_to_wait(instance, home) or _request_run(instance, home, CAMPAIGNS, state, "comparing campaigns")

    return campaigns


def _exporting(home: OpenHome, job: Job, ticks: TickSource, shared: Mapping[str, Any]) -> dg.SensorDefinition:
    @dg.sensor(job=job, description="Exports promoted models that the repository does not have.", **shared)
    def exporting(context: dg.SensorEvaluationContext) -> Answer:
        due = due_exports(home)
        if not due:
            return dg.SkipReason(f"every promoted model is in {home.settings.versions.repository}")
        instance = ticks.instance_of(context)
        state = f"{fingerprint(due, str(home.settings.versions.repository)):x}"
        return _reason_to_wait(instance, home) or _request_run(
            instance, home, EXPORT, state, f"exporting {', '.join(due)}"
        )

    return exporting


def _reason_to_wait(instance: dg.DagsterInstance, home: OpenHome) -> dg.SkipReason | None:
    """Why nothing can be started now, if so."""
    unfinished = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED), limit=1)
    if unfinished:
        return dg.SkipReason(f"run {unfinished[0].run_id} of {unfinished[0].job_name} is not over yet")
    if user := home.paths.user():
        return dg.SkipReason(f"home {home.paths.root} is in use by {user}")
    return None


def _close_by_clock(home: OpenHome, now: datetime) -> dg.SkipReason | None:
    """Close the last period where it is over and the data come near its end; why that cannot be done now, if so."""
    key = closable_key(home)
    if key is None or now < _closing_time(home, key):
        return None
    try:
        with home.locked() as locked:
            locked.close_period(key)
    except BadInputError as error:
        return dg.SkipReason(str(error))
    return None


def _closing_time(home: OpenHome, key: str) -> datetime:
    return home.calendar.window(key).period_end + timedelta(hours=home.settings.automation.grace_hours)


class _Present:
    """How often the present snapshot is made: what the sensor remembers of it between two looks.

    It is made again at once for anything but other data of its own period: another model, a late file, other settings.

    Args:
        home: as it stands now.
        cursor: what was remembered last.
        now: by the clock of the tick.
    """

    def __init__(self, home: OpenHome, cursor: str | None, now: datetime) -> None:
        self.cursor = cursor or ""
        self._home, self._now, self._last = home, now, json.loads(cursor) if cursor else {}

    def why_not_yet(self) -> str | None:
        """Why the present snapshot has to wait; ``None`` where it is due, which then is remembered."""
        key, home = str(self._home.calendar.open_key), self._home
        over = home.calendar.window(key).period_end
        if closable_key(home) and over <= self._now < _closing_time(home, key):
            return f"the period {key} is over and is closed at {_closing_time(home, key):%Y-%m-%d %H:%M} UTC"
        own = str(home.calendar.contents.get(key))
        before = [home.fingerprints.expected(name, one) for one in home.calendar.closed_keys[-1:] for name in SEGMENTED]
        others = f"{fingerprint(key, home.champions.champion_at(key), before):x}"
        if (own, others) == (self._last.get("own"), self._last.get("others")):
            return None
        if others == self._last.get("others"):
            hours = home.settings.automation.present_hours
            due_at = datetime.fromisoformat(self._last["at"]) + timedelta(hours=hours)
            if self._now < due_at:
                return f"the present snapshot, {key}, is made again from {due_at:%Y-%m-%d %H:%M} UTC on"
        self.cursor = json.dumps({"own": own, "others": others, "at": self._now.isoformat()})
        return None


def _request_next(
    instance: dg.DagsterInstance, home: OpenHome, layout: Layout, present: _Present | None = None
) -> Answer:
    """The next stage; the present snapshot is left for later where it has to wait."""
    calendar = home.calendar
    if not calendar.period_keys:
        return dg.SkipReason(f"the home has no data yet: drop files into {home.landing_zone.folder}")
    newest, waits = calendar.snapshot_keys[-1], None
    stage = next_stage(home, calendar.period_keys[-1], newest)
    if stage and present and calendar.open_key in (stage.first_key, stage.last_key) and stage.job != "ingest":
        waits = present.why_not_yet()
        if waits:
            newest = calendar.closed_keys[-1] if calendar.closed_keys else ""
            stage = next_stage(home, calendar.period_keys[-1], newest)
    if stage is None:
        return dg.SkipReason(waits or f"everything is up to date, snapshots up to {_named(home, newest)}")
    if not layout.is_current(calendar):
        return _reload(home)
    return _request_stage(instance, home, stage)


def _named(home: OpenHome, key: str) -> str:
    window = home.calendar.window(key)
    return f"{key} so far, as of {window.as_of:%Y-%m-%d}" if window.is_open else key


def _request_retrain(instance: dg.DagsterInstance, home: OpenHome) -> Answer:
    """The retrain that the newest decision asks for, when nothing is left to be done before."""
    if home.landing_zone.waiting(time.time(), home.settings.landing.settle_seconds).files:
        return dg.SkipReason("files wait in the landing zone; they are taken in before anything is trained")
    due = due_retrain(home, home.tables.read(RETRAIN_DECISION))
    return dg.SkipReason(due) if isinstance(due, str) else _request_stage(instance, home, due)


def _request_stage(instance: dg.DagsterInstance, home: OpenHome, stage: Stage) -> Answer:
    request = _request_run(instance, home, stage.job, digest_inputs(stage, home), str(stage))
    return request if isinstance(request, dg.SkipReason) else run_request(stage, request.tags, request.run_key)


def run_request(stage: Stage, tags: Mapping[str, str], run_key: str | None = None) -> dg.RunRequest:
    """A stage as Dagster is asked for it."""
    if stage.first_key == stage.last_key:
        return dg.RunRequest(run_key=run_key, job_name=stage.job, partition_key=stage.first_key, tags=tags)
    span = {
        RANGE_START: stage.first_key,
        RANGE_END: stage.last_key,
        PERIODS_TAG: f"{stage.first_key} … {stage.last_key}",
    }
    return dg.RunRequest(run_key=run_key, job_name=stage.job, tags={**tags, **span})


def _request_run(instance: dg.DagsterInstance, home: OpenHome, job: str, state: str, words: str) -> Answer:
    """A run, unless as many as may be have failed on the very same state of the home.

    One that ended because its process was killed says nothing about the data.
    """
    tried = instance.get_runs(dg.RunsFilter(job_name=job, tags={STATE_TAG: state}))
    failed = [run for run in tried if run.status in _FAILED and ABANDONED_TAG not in run.tags]
    if len(failed) >= home.settings.automation.max_attempts:
        return dg.SkipReason(
            f"{words} failed {len(failed)} times, last in run {failed[0].run_id}, and nothing has changed since. "
            f"Mend what it names, then launch the job {job} by hand."
        )
    return dg.RunRequest(run_key=f"{job} {state} {len(tried)}", job_name=job, tags={STATE_TAG: state})


def _reload(home: OpenHome) -> dg.SkipReason:
    """Have the pages and the daemon load the code location again: its partitions are fixed when it is loaded."""
    port = home.settings.ui_port
    if port is None:
        return dg.SkipReason(f"there are new periods: reload the code location {CODE_LOCATION} to see them")
    from dagster_graphql import DagsterGraphQLClient

    token = home.settings.ui_token
    headers = {UI_TOKEN_HEADER: token.get_secret_value()} if token else None
    client = DagsterGraphQLClient("127.0.0.1", port_number=port, timeout=120, headers=headers)
    client.reload_repository_location(CODE_LOCATION)
    return dg.SkipReason("there are new periods: the code location was loaded again")


def _alert_on_failure(home: OpenHome, shared: Mapping[str, Any]) -> dg.SensorDefinition:
    @dg.run_failure_sensor(description="Writes an alert when a run fails, and posts it where configured.", **shared)
    def alert_on_failure(context: dg.RunFailureSensorContext) -> None:
        run, port = context.dagster_run, home.settings.ui_port
        periods = run.tags.get(PERIODS_TAG) or run.tags.get("dagster/partition") or ""
        failures = [(event.step_key, event.step_failure_data.error) for event in context.get_step_failure_events()]
        steps = [f"{step}: {cause_of(error)}" for step, error in failures if error]
        where = f" See http://127.0.0.1:{port}/runs/{run.run_id}" if port else ""
        what = "; ".join(steps) or context.failure_event.message
        alerts = AlertLog(home.paths.alerts, home.settings.alert_webhook)
        context.log.info(
            alerts.add(wall_clock(), f"run {run.run_id} of {run.job_name} {periods} failed: {what}.{where}")
        )

    return alert_on_failure


def cause_of(error: Any) -> str:
    """What went wrong, in one line, without what Dagster wraps around it."""
    said = " ".join((error.cause or error).message.split())
    # Rows are read where they are needed, not where the table is known.
    found = re.search(r"object-store error.*\(path: (gs://[^)]+)\)", said)
    return in_words(said, found[1]) if found else said
