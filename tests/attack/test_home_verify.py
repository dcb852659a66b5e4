"""A home in which something is damaged says so in one sentence, and is as it was after ``verify --mend`` and a run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from custseg_assets.domain.schemas import PREDICTION_LOG, tables
from custseg_assets.settings import Settings
from custseg_assets.stores.tables import TableStore
from tests.support.shops import QUICK, FilledShop, Outcome, custseg, shop_log, write_log

FEATURES = Settings().model.features


def state_of(home: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(custseg(home, "verify", "--json").out)
    return found


def require_same_tables(home: Path, other: Path) -> None:
    for name, table in tables(FEATURES).items():
        here, there = (TableStore(one / "tables").read(table) for one in (home, other))
        assert_frame_equal(here, there), name


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def garble(path: Path) -> None:
    path.write_bytes(b"\xff{garbled" * 20)


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


Break = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """Something that is done to a part of the home.

    Attributes:
        place: the files, as a pattern below the home; the last one that fits.
        do: what is done to it.
        part: that says so.
        stops: whether ``custseg run`` and ``custseg status`` cannot go on with it.
    """

    place: str
    do: Break
    part: str
    stops: str = ""

    def __str__(self) -> str:
        return f"{self.do.__name__} {self.place}"


BOTH, RUN = "run status", "run"
CASES = (
    Case("home.json", empty, "format", BOTH),
    Case("home.json", garble, "format", BOTH),
    Case("shape.json", empty, "settings", BOTH),
    Case("shape.json", remove, "settings"),
    Case("deliveries/current.json", empty, "deliveries", BOTH),
    Case("deliveries/current.json", cut, "deliveries", BOTH),
    Case("deliveries/current.json", remove, "deliveries", BOTH),
    Case("deliveries/[0-9a-f]*.json", cut, "deliveries", BOTH),
    Case("deliveries/[0-9a-f]*.json", remove, "deliveries", BOTH),
    Case("deliveries/*.parquet", change_a_byte, "deliveries"),
    Case("deliveries/*.parquet", cut, "deliveries", RUN),
    Case("deliveries/*.parquet", remove, "deliveries", RUN),
    Case("tables/clean_transactions/_delta_log/*.json", empty, "tables", BOTH),
    Case("tables/segment_profiles/_delta_log/*.json", cut, "tables", BOTH),
    Case("tables/promotion_decision/_delta_log/*.json", cut, "tables", BOTH),
    Case("tables/raw_transactions/*/*.parquet", remove, "tables"),
    Case("tables/clean_transactions/*/*.parquet", cut, "tables", "status"),
    Case("tables/customer_features/*/*.parquet", garble, "tables"),
    Case("tables/segment_assignments", remove, "fingerprints"),
    Case("tables/segmentation_model/*/*.parquet", garble, "tables", BOTH),
    Case("releases/CURRENT", garble, "release"),
    Case("releases/CURRENT", remove, "release"),
    Case("releases/r-*/customers.lmdb", change_a_byte, "release"),
    Case("releases/r-*/manifest.json", empty, "release"),
    Case("releases/r-*", remove, "release"),
    Case("mlflow/mlflow.db", garble, "models"),
    Case("dagster/history/runs.db", garble, "history", RUN),
    Case("dagster/history/runs/index.db", empty, "history"),
    Case("dagster/schedules/schedules.db", cut, "history"),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_damaged_is_said_and_mended(filled_shop: FilledShop, shop_home: Path, case: Case) -> None:
    place = sorted(shop_home.glob(case.place))[-1]
    case.do(place)
    for command in ("run", "status"):
        copy = shutil.copytree(shop_home, shop_home.with_name(f"{command}-home"))
        outcome = custseg(copy, command)
        print(case, command, outcome.status, outcome.err[-300:])
    found = custseg(shop_home, "verify")
    print(found.out, found.err)
    assert found.status == 1
    mended = custseg(shop_home, "verify", "--mend")
    print(mended.out, mended.err)
    assert mended.status == 0, mended.out
    ran = custseg(shop_home, "run")
    assert ran.status == 0, ran.err
    assert state_of(shop_home)["is_sound"]
    assert "stale       nothing" in custseg(shop_home, "status").out
    require_same_tables(shop_home, filled_shop.home)
