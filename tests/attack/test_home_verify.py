"""A home in which something is damaged says so in one sentence, and is as it was after ``verify --mend`` and a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.schemas import PREDICTION_LOG, tables
from custseg_assets.settings import Settings
from custseg_assets.stores.customer_lists import PREDICTION_FILES
from custseg_assets.stores.home import Home
from custseg_assets.stores.releases import MANIFEST, canonical_json, current, point_to, release_id_of
from custseg_assets.stores.tables import TableStore
from tests.support.homes import require_same_tables
from tests.support.shops import FilledShop, custseg


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
    """

    place: str
    do: Break
    part: str

    def __str__(self) -> str:
        return f"{self.do.__name__} {self.place}"


CASES = (
    Case("home.json", garble, "format"),
    Case("shape.json", empty, "settings"),
    Case("shape.json", remove, "settings"),
    Case("deliveries/current.json", cut, "deliveries"),
    Case("deliveries/current.json", remove, "deliveries"),
    Case("deliveries/[0-9a-f]*.json", cut, "deliveries"),
    Case("deliveries/*.parquet", change_a_byte, "deliveries"),
    Case("deliveries/*.parquet", remove, "deliveries"),
    Case("tables/clean_transactions/_delta_log/*.json", empty, "tables"),
    Case("tables/promotion_decision/_delta_log/*.json", cut, "tables"),
    Case("tables/raw_transactions/*/*.parquet", remove, "tables"),
    Case("tables/clean_transactions/*/*.parquet", cut, "tables"),
    Case("tables/customer_features/*/*.parquet", garble, "tables"),
    Case("tables/segment_assignments", remove, "fingerprints"),
    Case("tables/segmentation_model/*/*.parquet", garble, "tables"),
    Case("releases/CURRENT", garble, "release"),
    Case("releases/CURRENT", remove, "release"),
    Case("releases/r-*/customers.lmdb", change_a_byte, "release"),
    Case("releases/r-*/manifest.json", empty, "release"),
    Case("releases/r-*", remove, "release"),
    Case("mlflow/mlflow.db", garble, "models"),
    Case("dagster/history/runs.db", garble, "history"),
    Case("dagster/history/runs/index.db", empty, "history"),
    Case("dagster/schedules/schedules.db", cut, "history"),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_damaged_is_said_and_mended(filled_shop: FilledShop, shop_home: Path, case: Case) -> None:
    case.do(max(shop_home.glob(case.place)))
    found = custseg(shop_home, "verify")
    assert (found.status, f"\n{case.part:<14}! " in found.out) == (1, True), found.out
    mended = custseg(shop_home, "verify", "--mend")
    assert (mended.status, mended.out.startswith("mended ")) == (0, True), mended.out
    assert custseg(shop_home, "status").status == 0
    ran = custseg(shop_home, "run")
    assert ran.status == 0, ran.err
    assert custseg(shop_home, "verify").status == 0
    state = custseg(shop_home, "status").out
    assert "stale       nothing" in state
    assert "to be made again" not in state
    require_same_tables(shop_home, filled_shop.home)


def test_a_sound_home_is_sound_and_nothing_in_it_is_changed(filled_shop: FilledShop) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled_shop.home.rglob("*") if path.name != "lock"}
    outcome = custseg(filled_shop.home, "verify", "--mend", "--json")
    state = json.loads(outcome.out)
    assert (outcome.status, state["is_sound"], state["mended"]) == (0, True, [])
    parts = ["rights", "format", "settings", "state", "campaigns", "deliveries", "tables", "calendar", "fingerprints"]
    assert [part["part"] for part in state["parts"]] == [*parts, "models", "release", "history"]
    files = {path: path.stat().st_mtime_ns for path in filled_shop.home.rglob("*") if path.name != "lock"}
    assert {path for path in files if path.is_file() and files[path] != before.get(path)} == set()


LATER = ("segment_products", "value_model", "customer_value")
"""Tables that earlier versions did not make."""


def test_a_home_of_an_earlier_version_is_sound_and_its_release_stays(shop_home: Path) -> None:
    root = shop_home / "releases"
    newest = current(root) or ""
    fields = json.loads((root / newest / MANIFEST).read_text())
    fields["data_versions"] = {name: at for name, at in fields["data_versions"].items() if name not in LATER}
    fields["files"] = {name: entry for name, entry in fields["files"].items() if name not in PREDICTION_FILES}
    older = release_id_of(fields)
    fields["release_id"] = older
    (root / newest / MANIFEST).write_text(canonical_json(fields))
    for name in PREDICTION_FILES:
        (root / newest / name).unlink()
    (root / newest).rename(root / older)
    point_to(root, older)
    for name in LATER:
        shutil.rmtree(shop_home / "tables" / name)

    outcome = custseg(shop_home, "verify", "--mend")

    assert (outcome.status, current(root)) == (0, older), outcome.out
    assert "are to be made by 'custseg run'" in outcome.out
    assert custseg(shop_home, "run").status == 0
    assert custseg(shop_home, "verify").status == 0


def test_a_table_that_the_release_was_made_from_is_gone_where_it_is_gone(shop_home: Path) -> None:
    shutil.rmtree(shop_home / "tables" / "customer_value")

    outcome = custseg(shop_home, "verify")

    assert outcome.status == 1
    assert "customer_value: it is gone" in outcome.out


def test_what_is_lost_for_ever_is_set_aside_and_said(filled_shop: FilledShop, shop_home: Path, tmp_path: Path) -> None:
    """The lines of a delivery, whose file is not where it was any more."""
    current = shop_home / "deliveries" / "current.json"
    moved = json.loads(current.read_text()) | {"description": str(tmp_path / "elsewhere.csv")}
    current.write_text(json.dumps(moved))
    lines = next((shop_home / "deliveries").glob("*.parquet"))
    content = lines.read_bytes()
    cut(lines)
    mended = custseg(shop_home, "verify", "--mend")
    assert mended.status == 1
    assert "log.csv could not be read again" in mended.out
    assert "put it back, unchanged, where it was" in mended.out
    aside = shop_home / "damaged" / "deliveries" / lines.name
    assert aside.read_bytes() == content[: len(content) * 2 // 3]
    assert aside.with_name(f"{aside.name}.reason.txt").read_text().startswith("it cannot be read")
    # What was made of it stays, and its file mends it.
    assert "stale       nothing" in custseg(shop_home, "status").out
    shutil.copy(filled_shop.source, tmp_path / "elsewhere.csv")
    again = custseg(shop_home, "verify", "--mend")
    assert again.status in (0, 1)
    assert custseg(shop_home, "run", "--source", filled_shop.source).status == 0
    require_same_tables(shop_home, filled_shop.home)


def test_what_the_service_was_asked_is_kept_but_for_the_file_that_is_damaged(shop_home: Path) -> None:
    store = TableStore(shop_home / "tables")
    row = dict.fromkeys(PREDICTION_LOG.schema.names()) | {"period": "2024-05-01"}
    for request in ("first", "second"):
        asked = pl.DataFrame([row | {"request_id": request}], schema=PREDICTION_LOG.schema)
        store.append(PREDICTION_LOG, asked)
    files = sorted(
        (shop_home / "tables" / "prediction_log").rglob("*.parquet"), key=lambda path: path.stat().st_mtime_ns
    )
    garble(files[-1])
    mended = custseg(shop_home, "verify", "--mend")
    assert (mended.status, "recorded nowhere else: lost" in mended.out) == (0, True), mended.out
    assert TableStore(shop_home / "tables").read(PREDICTION_LOG)["request_id"].to_list() == ["first"]


def test_a_period_that_lost_lines_unnoticed_is_found_by_counting(filled_shop: FilledShop, shop_home: Path) -> None:
    """A commit without the file that it was to add still says what its partitions were made from."""
    table = tables(Settings().model.features)["clean_transactions"]
    store = TableStore(shop_home / "tables")
    key, made_from = "2024-03-01", store.fingerprint_of(table.name, "2024-03-01")
    store.write(table, store.read(table, [key]).head(5), {key: made_from or 0})
    found = custseg(shop_home, "verify")
    assert (found.status, f"! lines of {key}: " in found.out) == (1, True), found.out
    assert custseg(shop_home, "verify", "--mend").status == 0
    assert custseg(shop_home, "run").status == 0
    require_same_tables(shop_home, filled_shop.home)


def test_a_model_that_is_lost_takes_its_decision_along(filled_shop: FilledShop, shop_home: Path) -> None:
    store, table = TableStore(shop_home / "tables"), tables(Settings().model.features)["segmentation_model"]
    store.write(table, table.schema.to_frame(), {"2024-02-01": 0})
    found = custseg(shop_home, "verify")
    assert (found.status, "models        ! model m-2024-02-01-" in found.out) == (1, True), found.out
    mended = custseg(shop_home, "verify", "--mend")
    assert (mended.status, "challengers and what was decided about them are lost" in mended.out) == (0, True)
    assert (shop_home / "damaged" / "promotion_decision of 2024-02-01.parquet").is_file()
    assert custseg(shop_home, "run").status == 0
    require_same_tables(shop_home, filled_shop.home)


def test_a_home_that_is_not_there_or_in_use_is_refused(shop_home: Path, tmp_path: Path) -> None:
    missing = custseg(tmp_path / "none", "verify")
    assert (missing.status, "which is not there" in missing.err) == (2, True)
    assert not (tmp_path / "none").exists()
    with Home(shop_home).locked():
        used = custseg(shop_home, "verify")
    assert (used.status, "is in use by process" in used.err) == (2, True)
