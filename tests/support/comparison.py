"""Comparison of a home with one that a whole run filled: is anything half-written, missing, or other than there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import mlflow
import polars as pl
from deltalake import DeltaTable

from custseg_assets.settings import TrackingSettings
from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from custseg_assets.stores.registry import ModelRegistry

_NAMES_FILES = ("source_file", "source_row", "model_card")


def partitions(folder: Path) -> dict[str, pl.DataFrame]:
    """The partitions of a Delta table, the rows of each in one order."""
    parts = pl.read_delta(str(folder)).partition_by("period", as_dict=True)
    return {str(key): part.sort(part.columns) for (key,), part in parts.items()}


def flaws(home: Path, truth: Path) -> list[str]:
    """What in a home is half-written, damaged or not as a whole run makes it; a home may lack what is not made yet."""
    found = [flaw for table in _tables(home) for flaw in _table_flaws(table, truth / "tables" / table.name)]
    root = home / "releases"
    try:
        serving = releases.current(root)
        if serving:
            releases.verify(root, serving)
    except releases.DamagedReleaseError as error:
        found.append(str(error))
    return found + _registry_flaws(home)


def missing_or_extra(home: Path, truth: Path) -> list[str]:
    """What a finished home lacks of, or has beside, what a whole run makes."""
    tables = {folder.name: set(partitions(folder)) for folder in _tables(home)}
    expected = {folder.name: set(partitions(folder)) for folder in _tables(truth)}
    found = [f"table {name} has other partitions" for name in expected if tables.get(name) != expected[name]]
    released = releases.current(home / "releases"), releases.current(truth / "releases")
    return found if released[0] == released[1] else [*found, f"release {released[0]}, not {released[1]}"]


def differing_partitions(
    home: Path, truth: Path, tables: Sequence[str], keys: Collection[str] | None = None
) -> list[str]:
    """Partitions that two homes do not have alike, but for the files and rows that lines came from.

    Args:
        home: one home.
        truth: the other.
        tables: names of the tables to compare.
        keys: of the partitions to compare; all without it.
    """
    found = []
    for name in tables:
        left, right = (_content(one / "tables" / name, keys) for one in (home, truth))
        found += [f"table {name}: partition {key} is not in both" for key in sorted(left.keys() ^ right.keys())]
        common = sorted(left.keys() & right.keys())
        found += [f"table {name}: partition {key} differs" for key in common if not left[key].equals(right[key])]
    return found


def _content(folder: Path, keys: Collection[str] | None) -> dict[str, pl.DataFrame]:
    if not DeltaTable.is_deltatable(str(folder)):
        return {}
    wanted = {key: part for key, part in partitions(folder).items() if keys is None or key in keys}
    parts = {key: part.drop(_NAMES_FILES, strict=False) for key, part in wanted.items()}
    return {key: part.sort(part.columns) for key, part in parts.items()}


def _tables(home: Path) -> list[Path]:
    folders = sorted((home / "tables").glob("*"))
    return [folder for folder in folders if DeltaTable.is_deltatable(str(folder))]


def _table_flaws(folder: Path, truth: Path) -> list[str]:
    try:
        found = partitions(folder)
    except (OSError, pl.exceptions.PolarsError) as error:
        return [f"table {folder.name} cannot be read: {error}"]
    expected = partitions(truth)
    wrong = [key for key, rows in found.items() if key not in expected or not rows.equals(expected[key])]
    return [f"table {folder.name}: partition {key} is not as a whole run makes it" for key in wrong]


def _registry_flaws(home: Path) -> list[str]:
    if not (home / "mlflow" / "mlflow.db").exists():
        return []
    registry = ModelRegistry(TrackingSettings(), Home(home).mlflow)
    mlflow.set_tracking_uri(registry.uri)
    mlflow.set_registry_uri(registry.uri)
    found = []
    for model in registry.client().search_registered_models():
        for alias in model.aliases:
            try:
                mlflow.pyfunc.load_model(f"models:/{model.name}@{alias}")
            except (mlflow.exceptions.MlflowException, OSError, ValueError) as error:
                found.append(f"model {model.name}@{alias} does not load: {error}")
    return found
