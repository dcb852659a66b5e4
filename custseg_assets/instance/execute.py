"""Dagster in this process: the instance that lives in a home, and the jobs that run on it."""

from __future__ import annotations

import gc
import importlib.resources
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import execute_run
from dagster._core.execution.execute_in_process import merge_run_tags
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from custseg_assets.definitions import build_defs
from custseg_assets.defs.abandoned import close_abandoned
from custseg_assets.defs.automation import CODE_LOCATION, RANGE_END, cause_of, run_request
from custseg_assets.errors import RunFailedError
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.plan import Stage
from custseg_assets.instance.event_log import open_instance, stay_connected, together
from custseg_assets.stores.home import Home
from custseg_assets.stores.sources import Progress

COMMAND_TAG = "custseg/command"
_REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(CODE_LOCATION), SINGLETON_REPOSITORY_NAME)
_OF_LIBRARIES = ("Starting a new mlflow run", "[pipes] external process successfully opened")
"""How lines begin that tell whoever started a run nothing; they stay in its log."""
_SECONDS_SHOWN = 0.5
"""Of a step that took less nobody wants to know how long."""
# Dagster lists a run with a job of a code location only where this says so; its own launcher sets the same.
_LISTED = {REPOSITORY_LABEL_TAG: _REPOSITORY.get_label()}
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def prepare_instance(home: Home) -> None:
    """Make the home's Dagster instance, all of it or nothing, with the configuration the project ships."""
    if home.dagster.exists():
        return
    unfinished = home.root / f".dagster-{os.getpid()}"
    unfinished.mkdir(parents=True)
    shipped = importlib.resources.files("custseg_assets").joinpath("dagster.yaml").read_bytes()
    (unfinished / "dagster.yaml").write_bytes(shipped)
    with dg.DagsterInstance.from_config(str(unfinished)) as instance:
        instance.get_runs(limit=1)
        instance.all_asset_keys()
    unfinished.rename(home.dagster)


def is_of_command(run: dg.DagsterRun) -> bool:
    """Whether a run is executed by a command in its own process; one that the pages execute again keeps the tag."""
    return COMMAND_TAG in run.tags and run.parent_run_id is None


def give_origins(instance: dg.DagsterInstance) -> None:
    """Give failed runs an origin that commands of earlier versions left without, so that they can be executed again."""
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
    for run in instance.get_runs(failed):
        if run.remote_job_origin is None:
            instance.run_storage.replace_job_origin(run, _REPOSITORY.get_job_origin(run.job_name))


class JobRunner:
    """Runs the graph's jobs on the home's instance, in this process.

    Args:
        home: whose instance it is.
        say: takes each line of progress.
        instance: instead of the home's own.
    """

    def __init__(self, home: OpenHome, say: Progress, instance: dg.DagsterInstance | None = None) -> None:
        self._home, self._say = home, say
        self._definitions: tuple[LockedHome, object, dg.Definitions] | None = None
        if instance is None:
            prepare_instance(home.paths)
        self.instance = instance or open_instance(home.paths.dagster, has_terminal=True)
        # Some million objects of imported libraries never go; to look through them for garbage takes half a CPU second.
        gc.freeze()
        self._close_abandoned()

    def execute(self, stage: Stage, home: LockedHome, remaining: str = "") -> None:
        """Run one job over a range of partitions.

        Args:
            stage: which job, and which partitions.
            home: that its assets read and write.
            remaining: how long the whole run will still take, to be said.

        Raises:
            RunFailedError: a step or a blocking check failed.
        """
        self._say(f"{stage}{remaining}")
        self.launch(self._definitions_of(home), run_request(stage, {COMMAND_TAG: "run"}), f"{stage}")

    def launch(self, definitions: dg.Definitions, request: dg.RunRequest, words: str) -> None:
        """Run what was requested as the daemon would launch it, but here and now.

        Args:
            definitions: with its job.
            request: of a sensor, a schedule or the command.
            words: what it is, for an error.

        Raises:
            RunFailedError: a step or a blocking check failed.
        """
        job = definitions.resolve_job_def(request.job_name or "")
        run_id = str(uuid.uuid4())
        progress = _Progress(self._say)
        self.instance.add_event_listener(run_id, progress)
        key = request.partition_key or request.tags.get(RANGE_END)
        run_config = {**(job.get_run_config_for_partition_key(key) if key else {}), **_QUIET}
        tags = {**_LISTED, **request.tags}
        with stay_connected(self.instance):
            # As ``job.execute_in_process`` does it, but with an origin: without one, Dagster's pages show the run in no
            # overview and cannot execute it again.
            with together(self.instance):
                run = self.instance.create_run_for_job(
                    job,
                    run_id=run_id,
                    run_config=run_config,
                    tags=merge_run_tags(job, request.partition_key, tags, None, self.instance, run_config),
                    remote_job_origin=_REPOSITORY.get_job_origin(job.name),
                )
            result = execute_run(InMemoryJob(job), run, self.instance)
        if not result.success:
            raise RunFailedError(
                f"{words}: {progress.failure or 'failed'} (Dagster run {run_id})",
                step=progress.step,
                check=progress.check,
            )

    def _definitions_of(self, home: LockedHome) -> dg.Definitions:
        """Definitions for what the home holds; those of the stage before where it left the partitions as they were."""
        made_for = home.settings, home.calendar.period_keys, home.calendar.snapshot_keys
        if self._definitions is None or self._definitions[0] is not home or self._definitions[1] != made_for:
            self._definitions = home, made_for, build_defs(settings=home.settings, home=home)
        return self._definitions[2]

    def has_run(self, job: str) -> bool:
        """Whether a job has ever succeeded."""
        succeeded = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
        return bool(self.instance.get_runs(succeeded, limit=1))

    def record(self, asset: str, key: str, metadata: Mapping[str, Any]) -> None:
        """Note in an asset's history that a person changed a partition."""
        event = dg.AssetMaterialization(asset, description="A person decided.", metadata=metadata, partition=key)
        self.instance.report_runless_asset_event(event)

    def _close_abandoned(self) -> None:
        """Mark runs as failed that an earlier command started and did not live to end."""
        unfinished = dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING], tags={COMMAND_TAG: "run"}
        )
        runs = [run for run in self.instance.get_runs(unfinished) if is_of_command(run)]
        abandoned = close_abandoned(self.instance, runs)
        if abandoned:
            self._home.registry.close_abandoned(abandoned)


class _Progress:
    """Turns the events of a run into lines, and remembers why it failed."""

    def __init__(self, say: Progress) -> None:
        self._say = say
        self._started: dict[str, float] = {}
        self.failure: str | None = None
        self.step: str | None = None
        self.check: str | None = None

    def __call__(self, entry: Any) -> None:
        event = entry.dagster_event
        if event is None:
            if entry.level >= 20 and not entry.user_message.startswith(_OF_LIBRARIES):
                self._say(f"    {entry.user_message}")
        elif event.event_type_value == "STEP_START":
            self._started[event.step_key] = time.monotonic()
            self._say(f"  {event.step_key}")
        elif event.event_type_value == "STEP_SUCCESS":
            seconds = time.monotonic() - self._started.get(event.step_key, time.monotonic())
            if seconds >= _SECONDS_SHOWN:
                self._say(f"    {seconds:.1f} s")
        elif event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed:
            self._report_check(event.asset_check_evaluation_data)
        elif event.event_type_value == "STEP_FAILURE":
            if self.failure is None:
                self.failure = f"step {event.step_key} failed: {cause_of(event.step_failure_data.error)}"
                self.step = event.step_key
        elif event.event_type_value == "PIPELINE_FAILURE" and event.job_failure_data.error:
            self.failure = self.failure or cause_of(event.job_failure_data.error)

    def _report_check(self, check: Any) -> None:
        label = f"check {check.asset_key.to_user_string()}.{check.check_name}"
        said, examples = check.metadata.get("summary"), check.metadata.get("examples")
        line = f"{label} failed: {said.value if said else check.description or ''}"
        if examples and examples.value:
            line += "; for example " + ", ".join(f"{name} {value}" for name, value in examples.value[0].items())
        self._say(f"    ! {line}")
        if check.blocking and self.failure is None:
            self.failure = line
            self.check = f"{check.asset_key.to_user_string()}.{check.check_name}"
