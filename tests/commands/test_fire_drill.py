"""``custseg fire-drill`` on homes that cannot be drilled; test_run.py drills one that can."""

from __future__ import annotations

from pathlib import Path

import pytest

from custseg_assets.cli import main


def test_an_empty_home_has_nothing_to_drill(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fire-drill", "--repetitions", "1"]) == 2
    assert "custseg run" in capsys.readouterr().err
    assert not home.exists()
