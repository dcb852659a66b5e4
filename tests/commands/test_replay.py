"""``custseg replay``: every run is started by a sensor or the schedule, and a replay makes what a run makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from polars.testing import assert_frame_equal

from custseg_assets.commands.replay import Replay
from custseg_assets.domain import schemas
from custseg_assets.expectations import data_docs
from custseg_assets.home.plan import TABLES_OF_JOB
from custseg_assets.settings import Settings
from tests.support.comparison import partitions
from tests.support.dagster_history import newest_metadata
from tests.support.homes import open_quick, quick_settings
from tests.support.shops import QUICK, FilledShop, Outcome, custseg

SNAPSHOTS = ["2024-02-01", "2024-03-01", "2024-04-01"]


@pytest.fixture(scope="module")
def replayed(filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome, Path, Path]:
    """Two replays of the same home, and the homes they were played in."""
    folder = tmp_path_factory.mktemp("replayed")
    kept, kept_again = folder / "kept", folder / "kept_again"
    first = custseg(filled_shop.home, "replay", "--keep", kept, config=QUICK)
    return first, custseg(filled_shop.home, "replay", "--keep", kept_again, config=QUICK), kept, kept_again


def test_every_run_of_a_replay_is_started_by_a_sensor_or_the_schedule(replayed: Any) -> None:
    first, *_ = replayed
    assert first.status == 0, first.err
    runs = {line[:10]: line[12:].split(", ") for line in first.out.splitlines() if " (sensor " in line}
    assert list(runs) == SNAPSHOTS
    assert runs[SNAPSHOTS[0]] == [
        "take_in (sensor landing)",
        "ingest 2024-02-01 (sensor stale_partitions)",
        "features 2024-02-01 (sensor stale_partitions)",
        "train 2024-02-01 (sensor stale_partitions)",
        "segment 2024-02-01 (sensor stale_partitions)",
    ]
    assert runs[SNAPSHOTS[1]] == [
        "take_in (sensor landing)",
        "ingest 2024-03-01 (sensor stale_partitions)",
        "snapshot 2024-03-01 (sensor stale_partitions)",
    ]


def test_a_second_replay_is_the_same(replayed: Any) -> None:
    first, second, kept, kept_again = replayed
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert without_seconds(first) == without_seconds(second)
    tables = sorted(folder.name for folder in (kept / "tables").iterdir())
    assert set(TABLES_OF_JOB["snapshot"]) <= set(tables)
    for name in tables:
        left, right = partitions(kept / "tables" / name), partitions(kept_again / "tables" / name)
        assert list(left) == list(right), name
        assert [key for key, rows in left.items() if not rows.equals(right[key])] == [], name


def test_a_replay_that_is_not_kept_goes_the_same_way_without_drawing_what_nobody_sees(
    replayed: Any, filled_shop: FilledShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, kept, _ = replayed

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setattr(FigureCanvasAgg, "draw", refuse)
    monkeypatch.setattr(data_docs, "write_page", refuse)
    alone = custseg(filled_shop.home, "replay", "--to", SNAPSHOTS[0], config=QUICK)
    assert alone.status == 0, alone.err
    assert [row[0] for row in without_seconds(alone)[:2]] == ["snapshot", SNAPSHOTS[0]]
    assert without_seconds(alone)[:2] == without_seconds(first)[:2]
    assert "data:image/png;base64,iVBOR" in newest_metadata(kept, "drift_report")["scores"].value
    assert (kept / "data_docs" / "index.html").exists()


def test_a_replay_makes_the_tables_that_a_run_makes(replayed: Any, filled_shop: FilledShop) -> None:
    _, _, kept, _ = replayed
    played, ran = open_quick(kept), open_quick(filled_shop.home)
    for table in (
        schemas.CUSTOMER_FEATURES,
        schemas.SEGMENT_ASSIGNMENTS,
        schemas.DRIFT_REPORT,
        schemas.CLEAN_TRANSACTIONS,
    ):
        left, right = played.tables.read(table), ran.tables.read(table)
        assert ran.tables.sizes(table), table.name
        columns = [name for name in table.schema.names() if name not in ("source_file", "source_row")]
        assert_frame_equal(
            left.select(columns), right.select(columns), check_row_order=table.name != "clean_transactions"
        )


def test_a_replay_reaches_no_cloud_and_no_tracking_server(filled_shop: FilledShop, tmp_path: Path) -> None:
    more = """
[tracking]
uri = "http://127.0.0.1:9"
[gcp]
project = "shop"
location = "europe-west1"
bucket = "shop-data"
[gcp.storage]
uri = "gs://shop-data/home"
[gcp.bigquery]
dataset = "segments"
[gcp.training]
image = "trainer:1"
"""
    played = Replay(open_quick(filled_shop.home, more), tmp_path / "home", is_kept=False).home.settings
    assert (played.gcp, played.tracking) == (Settings().gcp, Settings().tracking)
    assert (played.model, played.retrain) == (
        quick_settings(filled_shop.home).model,
        quick_settings(filled_shop.home).retrain,
    )


def test_a_replay_of_what_is_not_there_is_refused(filled_shop: FilledShop) -> None:
    outcome = custseg(filled_shop.home, "replay", "--from", "2023-01-01", config=QUICK)
    assert outcome.status == 2
    assert "snapshot 2023-01-01; expected one of 2024-02-01" in outcome.err


def without_seconds(outcome: Outcome) -> list[list[str]]:
    rows = [line.split() for line in outcome.out.splitlines()]
    return [row[:-1] if row and row[0] in SNAPSHOTS else row for row in rows]
