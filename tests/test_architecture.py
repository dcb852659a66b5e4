"""The layers hold, and importing something light stays light."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

PACKAGES = ("custseg_assets", "custseg_serving")
FRAMEWORKS = {"dagster", "dagster_mlflow", "flask", "google", "great_expectations", "mlflow", "pyspark"}
PIPELINE_ONLY = {
    "dagster",
    "dagster_mlflow",
    "deltalake",
    "google",
    "great_expectations",
    "mlflow",
    "pyspark",
    "sklearn",
}
SLOW_TO_IMPORT = FRAMEWORKS | {"deltalake", "matplotlib", "pandas", "polars", "pyarrow", "sklearn", "scipy"}


def test_import_contracts_hold() -> None:
    assert broken_contracts(REPOSITORY) == []


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("custseg_assets/domain/periods.py", "import dagster", "domain/ is pure"),
        ("custseg_assets/domain/periods.py", "from custseg_assets import settings", "domain/ is pure"),
        ("custseg_assets/domain/periods.py", "import os", "domain/ is pure"),
        ("custseg_assets/stores/home.py", "from custseg_assets.defs import jobs", "cli, definitions -> defs"),
        ("custseg_assets/stores/releases.py", "import mlflow", "the service needs no part"),
        ("custseg_serving/__init__.py", "import custseg_assets.stores.tables", "of the pipeline's code the service"),
        ("custseg_assets/stores/home.py", "from google.cloud import storage", "Google's libraries"),
    ],
)
def test_an_import_across_the_layers_is_found(tmp_path: Path, module: str, statement: str, contract: str) -> None:
    copy_packages(tmp_path)
    path = tmp_path / module
    path.write_text(f"{path.read_text()}\n{statement}\n")
    broken = broken_contracts(tmp_path)
    assert any(name.startswith(contract) for name in broken), broken


def test_domain_brings_in_no_framework() -> None:
    paths = (REPOSITORY / "custseg_assets/domain").rglob("[!_]*.py")
    modules = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in paths]
    assert len(modules) > 5
    assert brought_in(sorted(modules), FRAMEWORKS | {"custseg_assets.settings", "deltalake", "matplotlib"}) == {}


def test_the_service_brings_in_nothing_of_the_pipeline() -> None:
    assert brought_in(["custseg_serving.app"], PIPELINE_ONLY | {"custseg_assets.defs", "custseg_assets.settings"}) == {}


@pytest.mark.parametrize("command", ["custseg_assets.cli", "custseg_serving.cli"])
def test_a_command_says_how_it_is_used_without_importing_what_is_slow(command: str) -> None:
    assert brought_in([command], SLOW_TO_IMPORT) == {}


GOOGLE = {"google.api_core", "google.cloud.aiplatform", "google.cloud.bigquery", "google.cloud.storage", "dagster_gcp"}


def test_without_a_project_nothing_of_google_is_imported(tmp_path: Path) -> None:
    """A laptop has the locks of pipeline and service, which tests/test_project_files.py keeps free of Google."""
    modules = [
        "custseg_assets.commands.run",
        "custseg_assets.instance.execute",
        "custseg_assets.definitions",
        "custseg_serving.app",
    ]
    environment = {"CUSTSEG_HOME": str(tmp_path / "home")}
    assert brought_in(modules, GOOGLE | {"custseg_assets.gcp"}, environment) == {}


def test_with_a_project_the_graph_is_made_without_importing_google(tmp_path: Path) -> None:
    config = tmp_path / "custseg.toml"
    config.write_text('[gcp]\nproject = "shop"\n[gcp.bigquery]\ndataset = "segments"\n')
    environment = {"CUSTSEG_HOME": str(tmp_path / "home"), "CUSTSEG_CONFIG": str(config)}
    program = "from custseg_assets.definitions import build_defs; build_defs().resolve_job_def('publish')"
    for statement in (program, "import custseg_assets.defs.assets.bigquery"):
        assert modules_after(statement, GOOGLE, environment) == []


def test_what_an_import_brings_in_is_seen() -> None:
    assert brought_in(["custseg_assets.domain.schemas"], {"polars"}) == {"custseg_assets.domain.schemas": ["polars"]}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_nothing_when_they_are_imported(package: str) -> None:
    for path in (REPOSITORY / package).rglob("__init__.py"):
        eager = [node for node in ast.parse(path.read_text()).body if is_import(node)]
        assert eager == [], path


def is_import(node: ast.stmt) -> bool:
    """Whether a statement imports something when its module is imported; ``__future__`` is a directive."""
    return isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") not in {"__future__", "typing"}


def broken_contracts(folder: Path) -> list[str]:
    """Names of the import contracts that the packages in the folder break."""
    completed = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=folder,
        env={"COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    broken = re.findall(r"^(.+) BROKEN\b", completed.stdout, flags=re.MULTILINE)
    assert completed.returncode == bool(broken), completed.stdout
    return broken


def modules_after(program: str, heavy: set[str], environment: dict[str, str]) -> list[str]:
    """What of ``heavy`` a program imports, in a fresh interpreter."""
    listed = f"{program}\nimport json, sys\nprint(json.dumps(sorted(set({sorted(heavy)!r}) & set(sys.modules))))"
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", listed],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    found: list[str] = json.loads(completed.stdout.splitlines()[-1])
    return found


def brought_in(modules: list[str], heavy: set[str], environment: dict[str, str] | None = None) -> dict[str, list[str]]:
    """What of ``heavy`` the modules import, in a fresh interpreter, each by the first that does."""
    program = """
import importlib, json, sys
modules, heavy = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))
found = {}
for module in modules:
    importlib.import_module(module)
    new = sorted((heavy & set(sys.modules)).difference(*found.values()))
    if new:
        found[module] = new
print(json.dumps(found))
"""
    completed = subprocess.run(
        [sys.executable, "-c", program, json.dumps(modules), json.dumps(sorted(heavy))],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    found: dict[str, list[str]] = json.loads(completed.stdout)
    return found


def copy_packages(folder: Path) -> None:
    """The packages and their contracts, to be broken."""
    for path in [
        REPOSITORY / ".importlinter",
        *(file for name in PACKAGES for file in (REPOSITORY / name).rglob("*.py")),
    ]:
        target = folder / path.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
