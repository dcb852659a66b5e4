"""What the project ships beside its code: locks, and the configuration that Dagster reads."""

from __future__ import annotations

import importlib.resources
import re
import socket
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import dagster as dg
import pytest
import yaml

from tests.support.files import REPOSITORY

LOCKS = sorted(path for path in (REPOSITORY / "requirements").glob("*.txt") if path.stem != "constraints")

APART = ("audit", "dvc")
"""Locks of commands that are never imported, each in an environment of its own."""


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock.read_text(), flags=re.MULTILINE))


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    return pins(REPOSITORY / "requirements" / "constraints.txt")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_names_one_version_with_hashes_and_no_index(lock: Path, constraints: dict[str, str]) -> None:
    text = lock.read_text()
    # What is in an environment of its own has packages of its own; a package of both has one version.
    bounded = {name: version for name, version in pins(lock).items() if lock.stem not in APART or name in constraints}
    assert bounded.items() <= constraints.items()
    assert len(pins(lock)) > {"build": 3, "install": 0}.get(lock.stem, 10)
    for requirement in re.split(
        r"^(?=[a-z0-9])", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    ):
        assert not requirement or "--hash=sha256:" in requirement, requirement
    assert "://" not in text
    assert not re.search(r"^-", text, flags=re.MULTILINE)


def test_each_lock_has_what_its_extras_ask_for() -> None:
    """`make lock` makes all of them; a dependency that was added to one by hand is missing from another."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    made_of = dict(re.findall(r"^EXTRAS_(\S+) := (\S+)$", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    locks = [lock for lock in LOCKS if lock.stem not in (*APART, "build", "install")]  # of groups, not of extras
    assert set(made_of) == {lock.stem for lock in locks}
    for lock in locks:
        asked = {re.split(r"[^\w.-]", wanted)[0] for extra in made_of[lock.stem].split(",") for wanted in extras[extra]}
        assert asked - pins(lock).keys() == set(), lock.stem


@pytest.mark.parametrize("name", ["pipeline", "serving", "dev"])
def test_the_locks_of_a_laptop_hold_no_cloud_library(name: str) -> None:
    """MLflow and Great Expectations import them when they find them, which costs every run seconds."""
    found = {name for name in pins(REPOSITORY / f"requirements/{name}.txt") if name.startswith("google-")}
    # The one is of databricks-sdk, which MLflow needs; the other computes checksums for a fake.
    assert found <= {"google-auth", *(["google-crc32c"] if name == "dev" else [])}


def test_dagster_takes_the_configuration_that_the_package_ships(tmp_path: Path) -> None:
    shipped = importlib.resources.files("custseg_assets").joinpath("dagster.yaml")
    (tmp_path / "dagster.yaml").write_bytes(shipped.read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        run_queue = instance.get_concurrency_config().run_queue_config
        assert run_queue is not None
        assert run_queue.max_concurrent_runs == 1
        assert instance.get_runs_count() == 0
    assert (tmp_path / "history" / "runs.db").exists()


def test_a_wheel_holds_every_file_and_the_configuration_that_an_editable_install_reads(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.read("custseg_assets/dagster.yaml") == (REPOSITORY / "dagster.yaml").read_bytes()
    tracked = subprocess.run(
        ["git", "ls-files", "custseg_assets", "custseg_serving"],  # noqa: S607
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    assert names == set(tracked.stdout.splitlines())


def test_dagster_finds_the_graph_where_the_workspace_says() -> None:
    (location,) = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]
    assert location == {"python_module": "custseg_assets.definitions"}
    assert importlib.resources.files("custseg_assets").joinpath("definitions.py").is_file()


def test_make_help_lists_every_target_that_people_call() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)$", makefile, flags=re.MULTILINE))
    assert phony == set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))


def test_a_test_cannot_leave_this_machine() -> None:
    with socket.socket() as client, pytest.raises(AssertionError, match=r"tried to reach 192\.0\.2\.1"):
        client.connect(("192.0.2.1", 80))


def test_a_test_can_talk_to_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
