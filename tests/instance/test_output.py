"""What a run prints: under the pages in Dagster's files alone, of a command where the command prints."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from custseg_assets.instance.event_log import open_instance


@dg.asset
def talker() -> int:
    sys.stdout.write("what was asked\n")
    sys.stderr.write("what went wrong\n")
    return 1


def printed(instance: dg.DagsterInstance) -> list[str]:
    """What is in Dagster's files of one run: of its standard output, and of its errors."""
    result = dg.materialize([talker], instance=instance)
    [entry] = [
        one.dagster_event.logs_captured_data
        for one in instance.all_logs(result.run_id)
        if one.dagster_event and one.dagster_event.event_type_value == "LOGS_CAPTURED"
    ]
    key = [result.run_id, "compute_logs", entry.file_key]
    data = instance.compute_log_manager.get_log_data(key)
    assert instance.compute_log_manager.is_capture_complete(key)
    return [(text or b"").decode() for text in (data.stdout, data.stderr)]


def folder_with(tmp_path: Path, text: str) -> Path:
    (tmp_path / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{text}", encoding="utf-8")
    return tmp_path


def test_under_the_pages_it_is_in_the_files_and_nowhere_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_instance(folder_with(tmp_path, "")) as instance:
        out, err = printed(instance)
    assert "what was asked" in out
    assert "what went wrong" in err
    there = capfd.readouterr()
    assert "what was asked" not in there.out
    assert "what went wrong" not in there.err


def test_of_a_command_it_is_where_the_command_prints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_instance(folder_with(tmp_path, ""), has_terminal=True) as instance:
        dg.materialize([talker], instance=instance)
        assert instance.compute_log_manager.get_log_data(["x"]).stdout is None
    there = capfd.readouterr()
    assert "what was asked" in there.out
    assert "what went wrong" in there.err
    assert not list(tmp_path.glob("storage/**/*.out"))


@pytest.mark.parametrize("has_terminal", [True, False])
def test_what_dagster_yaml_chooses_is_taken(tmp_path: Path, *, has_terminal: bool) -> None:
    chosen = f"""compute_logs:
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config: {{base_dir: {tmp_path / "elsewhere"}}}
"""
    with open_instance(folder_with(tmp_path, chosen), has_terminal=has_terminal) as instance:
        assert type(instance.compute_log_manager) is LocalComputeLogManager
        assert "elsewhere" in instance.compute_log_manager.get_captured_local_path(["x"], ComputeIOType.STDOUT.value)
