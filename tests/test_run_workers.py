"""Runs whose process is gone are found, closed, and tried again; those that are worked on are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from custseg_assets import run_workers
from custseg_assets.commands.ui import _tidy_runs
from custseg_assets.defs.abandoned import ABANDONED_TAG, close_abandoned
from custseg_assets.instance.event_log import open_instance
from custseg_assets.instance.execute import prepare_instance
from custseg_assets.run_workers import HomeRunLauncher
from custseg_assets.stores.home import Home


@dg.job(name="ingest")
def ingest() -> None:
    """Nothing."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.make()
    prepare_instance(made)
    return made


@pytest.fixture
def instance(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setattr(run_workers, "_SECONDS_WITHOUT_LOCK", 0.3)
    with open_instance(home.dagster) as opened:
        yield opened


def run_with(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    return instance.create_run_for_job(ingest, status=status, tags=tags)


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[dg.DagsterRunStatus, bool]:
    """How a run stands, and whether it is known to have ended with its process."""
    now = instance.get_run_by_id(run.run_id)
    assert now is not None
    return now.status, ABANDONED_TAG in now.tags


def health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerStatus:
    """What the launcher that the shipped configuration names tells Dagster's run monitoring."""
    assert isinstance(instance.run_launcher, HomeRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    return instance.run_launcher.check_run_worker_health(run).status


def test_a_run_that_has_the_home_is_worked_on(home: Home, instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED)
    with home.locked():
        assert health(instance, run) == WorkerStatus.RUNNING
    assert status_of(instance, run) == (dg.DagsterRunStatus.STARTED, False)


def test_a_started_run_while_nobody_has_the_home_was_killed(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED)
    assert health(instance, run) == WorkerStatus.FAILED
    assert status_of(instance, run) == (dg.DagsterRunStatus.STARTED, True)  # Dagster itself marks it as failed


def test_a_run_that_ended_meanwhile_was_not_killed(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED)
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name, message="done"), run.run_id)
    assert health(instance, run) == WorkerStatus.SUCCESS
    assert status_of(instance, run) == (dg.DagsterRunStatus.SUCCESS, False)


def test_what_a_killed_daemon_was_starting_is_closed_before_the_next_one_starts(
    home: Home, instance: dg.DagsterInstance
) -> None:
    starting = run_with(instance, dg.DagsterRunStatus.STARTING)
    asked_for = run_with(instance, dg.DagsterRunStatus.NOT_STARTED)
    of_a_command = run_with(instance, dg.DagsterRunStatus.STARTING, **{"custseg/command": "run"})
    _tidy_runs(home)
    assert status_of(instance, starting) == (dg.DagsterRunStatus.FAILURE, True)
    assert status_of(instance, asked_for) == (dg.DagsterRunStatus.NOT_STARTED, False)
    assert status_of(instance, of_a_command) == (dg.DagsterRunStatus.STARTING, False)


def test_a_closed_run_says_why_it_ended(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED)
    assert close_abandoned(instance, [run]) == [run.run_id]
    [failure] = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert failure.dagster_event is not None
    assert failure.dagster_event.message == "the process that ran it ended before it did"
