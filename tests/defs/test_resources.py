"""A run that waits for the home's lock says so, and who has it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from custseg_assets.definitions import build_defs
from custseg_assets.defs import resources
from custseg_assets.errors import BadInputError
from tests.support.homes import locked_by_another_process, open_quick, quick_settings
from tests.support.shops import quiet


def run_features(home: Path, instance: dg.DagsterInstance) -> tuple[bool, list[str]]:
    """Start a job as the pages do: whether it succeeded, and the lines of its log."""
    with quiet():
        job = build_defs(settings=quick_settings(home)).resolve_job_def("features")
        result = job.execute_in_process(instance=instance, partition_key="2024-04-01", raise_on_error=False)
    return result.success, [entry.user_message for entry in instance.all_logs(result.run_id)]


def test_a_run_that_waits_for_the_home_says_who_has_it(shop_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PATIENCE_SECONDS", 0.3)
    with dg.DagsterInstance.ephemeral() as instance:
        with locked_by_another_process(shop_home) as pid:
            is_done, lines = run_features(shop_home, instance)
        assert not is_done
        [said] = [line for line in lines if line.startswith("Waiting")]
        assert said.startswith(
            f"Waiting: home {shop_home} is in use by process {pid} (-c {shop_home}). This run goes on"
        )
        is_done, lines = run_features(shop_home, instance)
    assert is_done
    assert [line for line in lines if line.startswith("Waiting")] == []


def test_a_command_is_told_which_run_has_the_home(shop_home: Path) -> None:
    home = open_quick(shop_home)
    with home.locked(who="Dagster run 12345678 of segment"):
        assert home.paths.user().endswith("(Dagster run 12345678 of segment)")  # type: ignore[union-attr]
        with (
            pytest.raises(BadInputError, match=r"in use by process \d+ \(Dagster run 12345678 of segment\); expected"),
            open_quick(shop_home).locked(),
        ):
            pass
    assert home.paths.user() is None
