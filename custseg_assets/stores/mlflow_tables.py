"""MLflow's tables, made in a new SQLite file by one script: its own migrations, from the first on, cost over a second.

The script, ``mlflow_tables.sql``, is what these migrations made with the MLflow that its first line names. With any
other MLflow it is not used. After an upgrade ``make docs`` writes it anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

SCRIPT = Path(__file__).with_name("mlflow_tables.sql")
_FIRST_LINE = "-- Tables of MLflow {}, as its migrations make them in SQLite; written by `make docs`."
_MADE_BY_MLFLOW = 'INSERT INTO "experiments"'
"""How a row begins that MLflow itself adds to tables that are there: it has a time and a path in it."""


def make_tables(path: Path) -> bool:
    """Make the tables in a new SQLite file; whether the installed MLflow is the one whose tables are known.

    Args:
        path: of the file; where the answer is no, it is not made.
    """
    script = SCRIPT.read_text(encoding="utf-8")
    if script.partition("\n")[0] != _FIRST_LINE.format(metadata.version("mlflow")):
        return False
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return True


def migrate_new_file(path: Path) -> None:
    """Have MLflow make its tables in a new SQLite file, by all its migrations."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{path}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_registered_models()


def follow_folder(path: Path, experiment: str, folder: str) -> None:
    """Have MLflow look for artifacts beside its tables, where they are now: it notes whole paths, and homes are copied.

    Args:
        path: of the tables' file.
        experiment: whose artifacts they are.
        folder: where they are now.
    """
    # Closing a connection is no commit, and committing is no closing.
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        noted = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchone()
        if noted and noted[0] != folder:
            for table, column in _WHERE_ARTIFACTS_ARE:
                is_below = f"substr({column} || '/', 1, ?) = ?"
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {is_below}",  # noqa: S608  # names of ours
                    (folder, len(noted[0]) + 1, len(noted[0]) + 1, f"{noted[0]}/"),
                )


_WHERE_ARTIFACTS_ARE = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def describe_tables(path: Path) -> str:
    """The script that makes tables as they are in a SQLite file.

    Args:
        path: of a file in which MLflow's own migrations made the tables.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        statements = sorted(_statements(connection), key=_place)
        return "\n".join([_FIRST_LINE.format(metadata.version("mlflow")), *statements, ""])


def _place(statement: str) -> tuple[int, str]:
    """Place of a statement; MLflow makes indexes in an order that differs from process to process."""
    if statement.startswith(("CREATE INDEX", "CREATE UNIQUE INDEX")):
        return 1, statement
    return (2 if statement.startswith(("CREATE TRIGGER", "COMMIT")) else 0), ""


def _statements(connection: sqlite3.Connection) -> Iterator[str]:
    for statement in connection.iterdump():
        if not statement.startswith(_MADE_BY_MLFLOW):
            lines = [line.rstrip().replace("\t", "    ") for line in statement.splitlines()]
            yield "\n".join(_with_constraints_in_order(lines))


def _with_constraints_in_order(lines: list[str]) -> list[str]:
    """The lines of a statement with its named constraints in the order of their names, wherever the commas are."""
    places = [number for number, line in enumerate(lines) if line.startswith("    CONSTRAINT ")]
    ordered = sorted(lines[place].removesuffix(",") for place in places)
    commas = ["," if lines[place].endswith(",") else "" for place in places]
    for place, constraint, comma in zip(places, ordered, commas, strict=True):
        lines[place] = constraint + comma
    return lines
