"""Which engine works on so many lines, and whether it can be used here.

BigQuery as an engine needs a project, and is opened by ``gcp.bigquery_engine``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from custseg_assets.engines.engine import Engine
from custseg_assets.errors import BadInputError
from custseg_assets.settings import EngineSettings

DUCKDB_FROM_LINES = 10_000_000
"""From how many lines on ``auto`` takes DuckDB; see docs/scale.md."""


def choose_engine(settings: EngineSettings, n_lines: int, *, is_local: bool = True) -> str:
    """The name of the engine for so many lines.

    Args:
        settings: what is configured.
        n_lines: lines that are to be worked on.
        is_local: whether the tables are on this machine's disk.
    """
    if settings.name != "auto":
        return settings.name
    takes_duckdb = is_local and n_lines >= DUCKDB_FROM_LINES and not _missing("duckdb")
    return "duckdb" if takes_duckdb else "polars"


def require_engine(settings: EngineSettings, *, is_local: bool = True, is_tried: bool = True) -> None:
    """Refuse an engine that cannot be used here, before anything is done.

    Args:
        settings: what is configured.
        is_local: whether the tables are on this machine's disk.
        is_tried: whether a server or a cluster is connected to.

    Raises:
        BadInputError: its packages are not installed, or it cannot read the tables where they are.
    """
    if missing := _missing(settings.name):
        raise BadInputError(
            f"[engine] name = {settings.name!r}, and {', '.join(missing)} is not installed",
            "an engine whose packages are installed",
            f"Install them with: pip install 'custseg[{settings.name}]'; or take engine polars, which needs nothing.",
        )
    if settings.name == "spark" and is_tried:
        from custseg_assets.engines.spark_session import require_spark

        require_spark(settings)
    if settings.name == "duckdb" and not is_local:
        raise BadInputError(
            "[engine] name = 'duckdb', and the tables are in a bucket",
            "tables on this machine's disk",
            "Take engine polars or spark, or leave [gcp.storage] tables out.",
        )


@contextlib.contextmanager
def open_engine(settings: EngineSettings, n_lines: int, scratch: Path, *, is_local: bool = True) -> Iterator[Engine]:
    """The engine for so many lines; what it holds is freed at the end.

    Args:
        settings: what is configured.
        n_lines: lines that are to be worked on.
        scratch: an empty folder for what the engine keeps on the disk meanwhile.
        is_local: whether the tables are on this machine's disk.

    Raises:
        BadInputError: it cannot be used here.
    """
    require_engine(settings, is_local=is_local, is_tried=False)
    name = choose_engine(settings, n_lines, is_local=is_local)
    if name == "duckdb":
        from custseg_assets.engines.duckdb_engine import DuckDBEngine

        with DuckDBEngine.opened(scratch, settings.memory_limit) as duckdb:
            yield duckdb
        return
    if name == "bigquery":
        raise ValueError("BigQuery as an engine is opened with a project, by gcp.bigquery_engine")
    if name == "spark":
        from custseg_assets.engines.spark_engine import SparkEngine

        with SparkEngine.opened(settings, is_local=is_local) as spark:
            yield spark
        return
    from custseg_assets.engines.polars_engine import PolarsEngine

    yield PolarsEngine()


_PACKAGES = {
    "duckdb": ("duckdb",),
    "spark": ("pyspark",),
    "bigquery": ("google.cloud.bigquery", "duckdb", "sqlglot"),
}
"""What must be importable for each engine; the extra is called like the engine."""


def _missing(name: str) -> list[str]:
    return [package for package in _PACKAGES.get(name, ()) if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
