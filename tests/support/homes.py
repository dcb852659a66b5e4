"""Homes opened for tests."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from custseg_assets.domain.schemas import tables
from custseg_assets.home.intake import Intake
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings, load_settings
from custseg_assets.stores.landing_zone import TakenIn
from custseg_assets.stores.tables import TableStore
from tests.support.files import REPOSITORY
from tests.support.shops import QUICK, custseg, shop_log, write_log

_LOCKS = """
import sys
from pathlib import Path
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings
with OpenHome(Settings(home=Path(sys.argv[1]))).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def locked_by_another_process(folder: Path) -> Iterator[int]:
    """A home is locked by another process, whose id this is, until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _LOCKS, folder],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield other.pid
        other.communicate()


def take_in(settings: Settings, say: Callable[[str], None] = lambda _: None) -> str:
    """Take the source and what landed in, as ``custseg run`` does; the key of the last period to make."""
    with OpenHome(settings).locked() as home:
        return Intake(home, say).take_in()


def take_in_landed(settings: Settings) -> TakenIn:
    """Take in what landed, as the asset ``landed_files`` does."""
    with OpenHome(settings).locked() as home:
        return Intake(home, lambda _: None).take_in_landed()


def forget_databases() -> None:
    """Have MLflow open its databases anew, as the next command's process does, after a home was started afresh."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

    for store in (RegistryStore, TrackingStore):
        for engine in store._engine_map.values():
            # Stays in the map, from where it is found again: stores are cached by MLflow, and keep theirs.
            engine.dispose()


def quick_settings(home: Path, more: str = "") -> Settings:
    """Settings of a small shop's home, and more sections; they stand in ``custseg.toml`` beside it."""
    config = home.with_name("custseg.toml")
    config.write_text(QUICK + more, encoding="utf-8")
    return load_settings(config, home=home, environment={})


def open_quick(home: Path, more: str = "") -> OpenHome:
    """A small shop's home, opened anew."""
    return OpenHome(quick_settings(home, more))


def take_late_lines(home: Path, since: datetime) -> None:
    """Have a file that comes late change a snapshot of ``filled_shop``'s home, so that its tables are written again."""
    late = shop_log(4).filter(pl.col("invoiced_at") >= since).head(40)
    late = late.with_columns(invoice_id=pl.format("9{}", "invoice_id"), quantity=pl.col("quantity") + 50)
    (home / "landing").mkdir(exist_ok=True)
    write_log(late, home / "landing" / "late.csv")
    ran = custseg(home, "run", "--reconfigure", config=QUICK + "[landing]\nsettle_seconds = 0\n")
    assert ran.status == 0, ran.err


def require_same_tables(home: Path, other: Path) -> None:
    """Fail where a table of two homes differs."""
    for table in tables(Settings().model.features).values():
        here, there = (TableStore(one / "tables").read(table) for one in (home, other))
        assert_frame_equal(here, there)
