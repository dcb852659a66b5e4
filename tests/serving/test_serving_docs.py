"""The examples of ``docs/serving.md`` do what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from custseg_serving.keys import KeyFile
from tests.support.files import REPOSITORY
from tests.support.releases import make_release
from tests.support.server import RunningServer, serving

ADDRESS = "http://127.0.0.1:8080"
PAGE = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8").partition("## Examples")[2]


def examples(language: str) -> list[str]:
    """The examples in a language; of the shell's, each command."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return [one for block in blocks for one in (block.split("\n\n") if language == "bash" else [block])]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with a release, and a key."""
    home: Path = tmp_path_factory.mktemp("examples")
    make_release(home / "releases")
    return home, KeyFile(home / "keys.json").create("examples", ["lookup", "score"], 500)


@pytest.fixture(scope="module")
def server(key: tuple[Path, str]) -> Iterator[RunningServer]:
    with serving(key[0], "--workers", "1") as running:
        yield running


def run(command: list[str], server: RunningServer, key: str, folder: Path) -> str:
    """Run an example that asks the running server; return what it printed."""
    own = [part.replace(ADDRESS, f"http://127.0.0.1:{server.port}") for part in command]
    assert own != command
    environment = {**os.environ, "KEY": key}
    done = subprocess.run(own, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples_in_both_languages() -> None:
    assert len(examples("bash")) == 5
    assert len(examples("python")) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("number", range(5))
def test_every_command_is_answered(server: RunningServer, key: tuple[Path, str], tmp_path: Path, number: int) -> None:
    command = examples("bash")[number]
    printed = run(["bash", "-euc", command], server, key[1], tmp_path)
    if "-OJ" in command:
        (file,) = tmp_path.iterdir()
        assert file.name == "moves_S1-Champions_2011-12-01.csv"
        assert file.read_text().splitlines()[1].startswith("12348,S2,Promising")
    else:
        assert "error" not in json.loads(printed)


def test_the_program_prints_everybody_at_risk(server: RunningServer, key: tuple[Path, str], tmp_path: Path) -> None:
    (program,) = examples("python")
    # Pages of one customer, so that it has to go on.
    program = program.replace("limit=500", "limit=1")
    printed = run([sys.executable, "-W", "error", "-c", program], server, key[1], tmp_path)
    assert [line.split()[0] for line in printed.splitlines()] == ["12348", "13777"]
