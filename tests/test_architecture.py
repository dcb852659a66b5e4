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
        # Each room may import only from the rooms below it.
        ("commands/status.py", "from custseg_assets import cli", "rooms"),
        ("instance/event_log.py", "from custseg_assets.commands import status", "rooms"),
        ("definitions.py", "from custseg_assets.instance import event_log", "rooms"),
        ("defs/jobs.py", "from custseg_assets import definitions", "rooms"),
        ("home/calendar.py", "from custseg_assets.defs import jobs", "rooms"),
        ("gcp/costs.py", "from custseg_assets.home import plan", "rooms"),
        ("defs/abandoned.py", "from custseg_assets import run_workers", "rooms"),
        ("training/steps.py", "from custseg_assets.gcp import costs", "rooms"),
        ("expectations/suites.py", "from custseg_assets.training import steps", "rooms"),
        ("pictures/look.py", "from custseg_assets.expectations import suites", "rooms"),
        ("stores/home.py", "from custseg_assets.home import fingerprints", "rooms"),
        ("stores/tables.py", "from custseg_assets.pictures import look", "rooms"),
        ("settings.py", "from custseg_assets.stores import dates", "rooms"),
        ("domain/periods.py", "from custseg_assets import settings", "rooms"),
        ("errors.py", "from custseg_assets.domain import periods", "rooms"),
        ("new_room.py", "import json", "rooms"),
        # The same within home/ and defs/.
        ("home/open.py", "from custseg_assets.home import plan", "home/:"),
        ("home/calendar.py", "from custseg_assets.home import fingerprints", "home/:"),
        ("home/new_module.py", "import json", "home/:"),
        ("defs/checks.py", "from custseg_assets.defs import materialise", "defs/:"),
        ("defs/materialise.py", "from custseg_assets.defs.assets import features", "defs/:"),
        ("stores/dates.py", "from custseg_assets.stores import sources", "no circles"),
        ("domain/drift/lapse.py", "from custseg_assets.domain.promotion import promotion", "domain rooms"),
        ("domain/segments/naming.py", "from custseg_assets.domain.drift import lapse", "domain rooms"),
        ("domain/transactions/presets.py", "from custseg_assets.domain.segments import naming", "domain rooms"),
        # What is pure stays pure, and what knows no Dagster learns of none.
        ("domain/periods.py", "import dagster", "domain/ is pure"),
        ("domain/periods.py", "import pydantic", "domain/ is pure"),
        ("domain/periods.py", "import os", "domain/ is pure"),
        ("stores/tables.py", "import dagster", "Dagster is known"),
        ("settings.py", "import dagster", "Dagster is known"),
        ("expectations/suites.py", "import dagster", "Dagster is known"),
        ("pictures/look.py", "import dagster_pipes", "Dagster is known"),
        ("home/plan.py", "import dagster", "home/ knows no Dagster"),
        ("stores/home.py", "from google.cloud import storage", "Google's libraries"),
        # The service needs little of the pipeline.
        ("stores/releases.py", "import mlflow", "the service needs no part"),
        ("../custseg_serving/app.py", "import sklearn", "the service needs no part"),
        *(
            ("../custseg_serving/app.py", f"import custseg_assets.{name}", "of the pipeline the service sees")
            for name in (
                "cli",
                "commands.run",
                "definitions",
                "defs.jobs",
                "expectations.suites",
                "gcp.costs",
                "home.open",
                "instance.execute",
                "no_telemetry",
                "pictures.look",
                "run_workers",
                "settings",
                "stores.tables",
                "trainer",
                "training.steps",
            )
        ),
    ],
)
def test_an_import_across_the_rooms_is_found(tmp_path: Path, module: str, statement: str, contract: str) -> None:
    copy_packages(tmp_path)
    path = tmp_path / "custseg_assets" / module
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}\n{statement}\n")
    broken = broken_contracts(tmp_path)
    assert any(name.startswith(contract) for name in broken), broken


def test_every_room_stands_in_the_contracts() -> None:
    contracts = (REPOSITORY / ".importlinter").read_text()
    rooms = {path.stem for path in (REPOSITORY / "custseg_assets").iterdir() if path.suffix == ".py" or path.is_dir()}
    missing = {room for room in rooms if room[0] != "_" and not re.search(rf"\b{room}\b", contracts)}
    assert missing == set()


def test_domain_brings_in_no_framework() -> None:
    files = (REPOSITORY / "custseg_assets/domain").rglob("[!_]*.py")
    modules = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files]
    assert len(modules) > 5
    assert brought_in(sorted(modules), FRAMEWORKS | {"custseg_assets.settings", "deltalake", "matplotlib"}) == {}


def test_the_service_brings_in_nothing_of_the_pipeline() -> None:
    assert brought_in(["custseg_serving.app"], PIPELINE_ONLY | {"custseg_assets.defs", "custseg_assets.settings"}) == {}


@pytest.mark.parametrize("command", ["custseg_assets.cli", "custseg_serving.cli"])
def test_a_command_says_how_it_is_used_without_importing_what_is_slow(command: str) -> None:
    assert brought_in([command], SLOW_TO_IMPORT) == {}


GOOGLE = {f"google.cloud.{name}" for name in ("aiplatform", "bigquery", "bigquery_storage", "storage")}
GOOGLE |= {"google.api_core", "dagster_gcp"}


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


TENSORFLOW = {"keras", "tensorflow"}


def test_nothing_imports_tensorflow_even_where_it_is_installed(tmp_path: Path) -> None:
    for name in TENSORFLOW:
        (tmp_path / f"{name}.py").write_text("")
    environment = {"PYTHONPATH": str(tmp_path), "CUSTSEG_HOME": str(tmp_path / "home")}
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for package in PACKAGES
        for path in sorted((REPOSITORY / package).rglob("[!_]*.py"))
        # Google's libraries, and what a process starts with, are not in every environment or not to be started.
        if "gcp" not in path.parts and path.stem not in {"bigquery", "preloaded", "spark_engine", "spark_session"}
    ]
    assert "custseg_assets.training.networks" in modules
    assert brought_in(modules, TENSORFLOW, environment) == {}
    # Only a training asks for it, and gets it where it is there; the stand-in has nothing in it.
    asked = "from custseg_assets.training import networks\ntry: networks._load_keras()\nexcept AttributeError: pass"
    assert modules_after(asked, TENSORFLOW, environment) == sorted(TENSORFLOW)


def test_a_validation_executes_no_library_that_great_expectations_hardly_ever_needs() -> None:
    program = """
import polars as pl
from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.expectations.validation import validate
from custseg_assets.settings import load_settings
assert validate(pl.DataFrame(schema=CUSTOMER_FEATURES.schema), "customer_features", load_settings(environment={}))
"""
    of_altair = {"altair.vegalite"}
    assert modules_after(program, of_altair | {"great_expectations"}, {}) == ["great_expectations"]
    assert modules_after("import great_expectations", of_altair, {}) == ["altair.vegalite"]


def test_what_an_import_brings_in_is_seen() -> None:
    assert brought_in(["custseg_assets.domain.schemas"], {"polars"}) == {"custseg_assets.domain.schemas": ["polars"]}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_nothing_when_they_are_imported(package: str) -> None:
    for path in (REPOSITORY / package).rglob("__init__.py"):
        eager = [node for node in ast.parse(path.read_text()).body if is_import(node)]
        assert eager == [], path


def test_tests_and_benchmarks_import_only_from_the_packages_and_from_their_helpers() -> None:
    """A test that imports from another one, or from a conftest.py, fails with it and cannot be moved without it."""
    modules = [path for room in ("tests", "benchmarks") for path in (REPOSITORY / room).rglob("*.py")]
    found = {str(path.relative_to(REPOSITORY)): strange_imports(path.read_text()) for path in modules}
    # What a benchmark itself promises is tested as what it is.
    assert found.pop("tests/test_bench.py") == ["benchmarks", "benchmarks.bench"]
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("from tests.conftest import RealTables", "tests.conftest"),
        ("from tests.stores.test_tables import rows", "tests.stores.test_tables"),
        ("import tests.gcp.conftest", "tests.gcp.conftest"),
        ("from tests import conftest", "tests"),
        ("def test_it():\n    from benchmarks import load", "benchmarks"),
        ('SCRIPT = """\nfrom tests.stores.test_tables import rows\n"""', "tests.stores.test_tables"),
    ],
)
def test_an_import_from_another_test_is_found(statement: str, name: str) -> None:
    assert strange_imports(statement) == [name]
    assert strange_imports("from tests.support import homes\nfrom tests.support.homes import take_in") == []


def strange_imports(program: str) -> list[str]:
    """What of tests and benchmarks a program, or a program in one of its strings, imports beside the helpers."""
    found = re.findall(r"^ *(?:from|import) ((?:tests|benchmarks)\b[\w.]*)", program, flags=re.MULTILINE)
    return sorted({name for name in found if not re.match(r"tests\.support\b", name)})


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
