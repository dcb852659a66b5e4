"""Runs that the daemon starts are forks of a process that has imported everything; their ends are noticed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from custseg_assets.instance.event_log import open_instance
from custseg_assets.instance.execute import prepare_instance
from custseg_assets.run_workers import END_OF_RUN
from custseg_assets.stores.home import Home
from tests.support.launched_runs import IMPORTED, launch, telling, waiting
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs are forks on Linux only")

PATIENCE_SECONDS = 300
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = Home(tmp_path / "home")
    home.make()
    prepare_instance(home)
    return home.dagster


@pytest.fixture
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(folder) as opened:
        yield opened
        (folder / "go").touch()
        for thread in threading.enumerate():
            if thread.name == END_OF_RUN:
                thread.join(PATIENCE_SECONDS)


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def end_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """How a run ended."""
    wait_until(lambda: status_of(instance, run_id) in ENDED, PATIENCE_SECONDS)
    return status_of(instance, run_id)


def messages(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.message for entry in instance.all_logs(run_id)]


def waiting_process(folder: Path) -> tuple[int, int]:
    """Ids of the process of a run that waits, and of the one that it is a fork of."""
    wait_until((folder / "waits").exists, PATIENCE_SECONDS)
    process, parent = (folder / "waits").read_text(encoding="utf-8").split()
    return int(process), int(parent)


def test_a_run_is_a_fork_of_a_process_that_has_imported_everything_and_computed_nothing(
    instance: dg.DagsterInstance,
) -> None:
    run_id = launch(instance, telling)
    assert end_of(instance, run_id) == dg.DagsterRunStatus.SUCCESS
    told = json.loads(next(line for line in messages(instance, run_id) if line.startswith("{")))
    assert told["imported"] == [*IMPORTED]
    # A fork of a process whose pool of threads Polars has started would wait for these threads for ever.
    assert [name for name in told["threads_of_parent"] if name.startswith(("polars-0", "polars-1", "rayon"))] == []


def test_a_run_that_is_killed_fails_and_says_so(folder: Path, instance: dg.DagsterInstance) -> None:
    run_id = launch(instance, waiting)
    process, _ = waiting_process(folder)
    os.kill(process, signal.SIGKILL)
    assert end_of(instance, run_id) == dg.DagsterRunStatus.FAILURE
    assert any("was terminated by signal 9 (SIGKILL)" in line for line in messages(instance, run_id))


def test_a_run_is_canceled(folder: Path, instance: dg.DagsterInstance) -> None:
    run_id = launch(instance, waiting)
    waiting_process(folder)
    assert instance.run_launcher.terminate(run_id)
    assert end_of(instance, run_id) == dg.DagsterRunStatus.CANCELED
    assert not instance.run_launcher.terminate(run_id)


def test_a_run_outlives_the_process_that_it_is_a_fork_of_and_the_next_has_a_new_one(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    run_id = launch(instance, waiting)
    _, parent = waiting_process(folder)
    os.kill(parent, signal.SIGKILL)
    # It may still be going.
    later = launch(instance, telling)
    assert end_of(instance, later) == dg.DagsterRunStatus.SUCCESS
    assert status_of(instance, run_id) == dg.DagsterRunStatus.STARTED
    (folder / "go").touch()
    assert end_of(instance, run_id) == dg.DagsterRunStatus.SUCCESS


def test_a_run_outlives_the_daemon_and_then_nothing_is_left(folder: Path, instance: dg.DagsterInstance) -> None:
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from custseg_assets.instance.event_log import open_instance
        from tests.support.launched_runs import launch, waiting
        with open_instance(Path(sys.argv[1])) as instance:
            print(launch(instance, waiting), flush=True)
            time.sleep(600)
        """)
    daemon = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with daemon:
        assert daemon.stdout is not None
        run_id = daemon.stdout.readline().strip()
        waiting_process(folder)
        daemon.kill()
        daemon.wait()
        assert has_processes(daemon.pid)
        assert status_of(instance, run_id) == dg.DagsterRunStatus.STARTED
        (folder / "go").touch()
        assert end_of(instance, run_id) == dg.DagsterRunStatus.SUCCESS
        wait_until(lambda: not has_processes(daemon.pid), PATIENCE_SECONDS)


def has_processes(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False
