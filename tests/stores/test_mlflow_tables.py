"""MLflow's tables, made by one script, are those that its own migrations make."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from importlib import metadata
from pathlib import Path

import pytest

from custseg_assets.settings import TrackingSettings
from custseg_assets.stores import mlflow_tables
from custseg_assets.stores.mlflow_tables import describe_tables, make_tables, migrate_new_file
from custseg_assets.stores.registry import ModelRegistry

pytestmark = [
    # MLflow 3.17 asks SQLAlchemy for what its version 2.1 deprecates; gone when it does not.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


def schema_of(path: Path) -> list[list[str]]:
    """What makes the tables and indexes of a database, each in parts.

    Versions of SQLite quote and space it differently, and MLflow's migrations leave constraints in any order.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return sorted(sorted(re.sub(r"[\s\"'`()]+", " ", part).strip() for part in sql.split(",")) for (sql,) in made)


def rows_of(path: Path, table: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    migrate_new_file(path)
    return path


def test_the_script_makes_what_the_migrations_make(tmp_path: Path, migrated: Path) -> None:
    made = tmp_path / "mlflow.db"
    assert make_tables(made), "MLflow was upgraded: `make docs` writes its tables anew"
    assert schema_of(made) == schema_of(migrated)
    assert len(schema_of(made)) > 60
    for table in ("alembic_version", "workspaces"):
        assert rows_of(made, table) == rows_of(migrated, table) != []
    # MLflow adds the rest when it opens the file.
    assert rows_of(made, "experiments") == []


def test_the_script_can_be_written_anew(migrated: Path) -> None:
    written, anew = (
        sorted(line.rstrip(",") for line in script.splitlines())
        for script in (mlflow_tables.SCRIPT.read_text(), describe_tables(migrated))
    )
    assert anew == written


def test_another_version_of_mlflow_makes_its_tables_itself(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "3.99.0")
    path = tmp_path / "none.db"
    assert not make_tables(path)
    assert not path.exists()
    registry = ModelRegistry(TrackingSettings(), tmp_path / "mlflow")
    registry.prepare()
    assert schema_of(tmp_path / "mlflow" / "mlflow.db") == schema_of(migrated)


def test_mlflow_takes_the_tables_as_its_own(tmp_path: Path) -> None:
    registry = ModelRegistry(TrackingSettings(), tmp_path / "mlflow")
    registry.prepare()
    client = registry.client()
    experiment = client.get_experiment_by_name(registry.experiment)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id)
    client.log_param(run.info.run_id, "k", 4)
    assert client.get_run(run.info.run_id).data.params == {"k": "4"}
    assert client.search_registered_models() == []


def test_a_copied_home_writes_artifacts_beside_its_own_tables(tmp_path: Path) -> None:
    """A folder whose name begins with that of the other one is somebody else's."""
    first, other, copied = tmp_path / "home", tmp_path / "home_2", tmp_path / "copy of home"
    registry = ModelRegistry(TrackingSettings(), first)
    registry.prepare()
    run_id = log_text(registry, "before")
    shutil.copytree(first, copied)
    with contextlib.closing(sqlite3.connect(copied / "mlflow.db")) as connection, connection:
        connection.execute("INSERT INTO runs (run_uuid, artifact_uri) VALUES ('foreign', ?)", (f"{other}/artifacts",))
    before = sorted(first.rglob("*"))
    of_copy = ModelRegistry(TrackingSettings(), copied)
    of_copy.prepare()
    log_text(of_copy, "after")
    assert sorted(path for path in first.rglob("*") if not path.name.startswith("mlflow.db")) == [
        path for path in before if not path.name.startswith("mlflow.db")
    ]
    assert len([*copied.rglob("note.txt")]) == 2
    shutil.rmtree(first)
    assert of_copy.client().list_artifacts(run_id)[0].path == "note.txt"
    with contextlib.closing(sqlite3.connect(copied / "mlflow.db")) as connection:
        [(foreign,)] = connection.execute("SELECT artifact_uri FROM runs WHERE run_uuid = 'foreign'").fetchall()
    assert foreign == f"{other}/artifacts"


def log_text(registry: ModelRegistry, text: str) -> str:
    """The id of a new run that keeps a text."""
    client = registry.client()
    experiment = client.get_experiment_by_name(registry.experiment)
    assert experiment is not None
    run_id: str = client.create_run(experiment.experiment_id).info.run_id
    client.log_text(run_id, text, "note.txt")
    return run_id
