"""Who only asks whether a home is in use must never keep anybody from using it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.stores import files
from custseg_assets.stores.home import Home

PROBE = """
import pathlib, sys
from custseg_assets.stores.home import Home
home = Home(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
while True:
    home.is_locked()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    (home.root / "something").touch()
    return home


def test_no_start_is_refused_while_others_ask(home: Home) -> None:
    with home.locked():
        pass
    with subprocess.Popen([sys.executable, "-c", PROBE, str(home.root)], stdout=subprocess.PIPE) as probe:
        assert probe.stdout is not None
        probe.stdout.readline()
        try:
            for _ in range(3_000):
                with home.locked():
                    pass
        finally:
            probe.kill()


@pytest.mark.parametrize("has_queries", [True, False])
def test_a_home_is_locked_while_its_lock_is_held_and_no_longer(
    home: Home, monkeypatch: pytest.MonkeyPatch, *, has_queries: bool
) -> None:
    if not has_queries:
        # Systems whose locks cannot be asked about.
        monkeypatch.setattr(files, "_GET_LOCK", None)
    assert not home.is_locked()
    with home.locked():
        assert home.is_locked()
        assert home.is_locked()
        with pytest.raises(BadInputError, match="is in use by process"), Home(home.root).locked():
            pass
    assert not home.is_locked()
    with home.locked():
        assert home.is_locked()
