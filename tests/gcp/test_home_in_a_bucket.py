"""Whole runs of a home whose tables are in a bucket, with Google's, Delta's and Polars' real clients."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.commands.replay import Replay
from custseg_assets.domain.demo import generate_demo
from custseg_assets.domain.schemas import Table, tables
from custseg_assets.errors import BadInputError
from custseg_assets.gcp.bucket import BucketError
from custseg_assets.home import intake
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import GcpSettings, Settings, load_settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores import bucket_tables
from custseg_assets.stores.tables import TableStore
from tests.support import homes
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import Request
from tests.support.files import REPOSITORY
from tests.support.places import URI, cloud_config
from tests.support.shops import custseg, shop_log, write_log

pytestmark = pytest.mark.gcp

# Names that MLflow and the clock give.
ITS_OWN = {"model_version", "mlflow_run_id", "trained_at", "decided_at", "champion_before"}


@pytest.fixture
def source(filled_home: Path) -> Path:
    """The log that ``filled_home``, whose tables are on the disk, was made from."""
    return filled_home.with_name("log.csv")


@pytest.fixture
def config(gcs: FakeGcs, tmp_path: Path) -> Path:
    return write_config(tmp_path / "bucket.toml", gcs)


def write_config(path: Path, gcs: FakeGcs, uri: str = URI, *, tables: bool = True) -> Path:
    path.write_text(cloud_config(storage={"uri": uri, "tables": tables}, endpoints={"storage": gcs.url}))
    return path


def settings_of(home: Path, config: Path) -> Settings:
    return load_settings(config, home=home, environment={})


def content(store: TableStore, table: Table) -> pl.DataFrame:
    frame = store.read(table).drop(ITS_OWN, strict=False)
    hidden = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    # A model's version stands in reasons, too.
    return frame.with_columns(pl.col(hidden).str.replace_all(r"m-[0-9a-f-]+|[0-9a-f]{32}", "…"))


def assert_same_tables(left: TableStore, right: TableStore) -> None:
    for table in tables(("recency_days", "frequency_orders", "monetary_net")).values():
        assert_frame_equal(content(left, table), content(right, table), check_row_order=False)
        assert (left.version_of(table.name) is None) == (right.version_of(table.name) is None)


def test_tables_in_a_bucket_are_those_of_a_run_on_disk(
    gcs: FakeGcs, config: Path, source: Path, filled_home: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    outcome = custseg(home, "run", "--source", source, config=config)
    assert outcome.status == 0, outcome.err
    assert not (home / "tables").exists()
    assert_same_tables(OpenHome(settings_of(home, config)).tables, TableStore(filled_home / "tables"))

    gcs.requests.clear()
    outcome = custseg(home, "run", config=config)
    assert (outcome.status, "Nothing has changed" in outcome.out) == (0, True)
    assert [request for request in gcs.requests if not request.startswith("GET")] == []
    assert len(gcs.requests) < 200

    assert (
        custseg(home, "export", "segment_profiles", "--all", "--out", tmp_path / "x.parquet", config=config).status == 0
    )
    assert (
        pl.read_parquet(tmp_path / "x.parquet").height
        == TableStore(filled_home / "tables").read(tables(("recency_days",))["segment_profiles"]).height
    )
    assert re.search(r"stale +nothing", custseg(home, "status", config=config).out)


def test_a_run_killed_between_commits_is_finished_by_the_next(
    gcs: FakeGcs, config: Path, source: Path, filled_home: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "CUSTSEG_HOME": str(home)}
    command = [sys.executable, "-W", "ignore", "-m", "custseg_assets.cli", "run", "--source", str(source)]
    run = subprocess.Popen([*command, "--config", str(config)], env=environment, stderr=subprocess.DEVNULL)
    kill_at_commit(gcs, run, 2)
    assert run.wait(timeout=120) == -signal.SIGKILL
    gcs.on_request = lambda _: None
    # Every table that is there can be read.
    store = OpenHome(settings_of(home, config)).tables
    made = {table.name for table in tables(("recency_days",)).values() if store.read(table).height}
    assert made == {"raw_transactions", "clean_transactions"}
    outcome = custseg(home, "run", "--source", source, config=config)
    assert outcome.status == 0, outcome.err
    assert_same_tables(OpenHome(settings_of(home, config)).tables, TableStore(filled_home / "tables"))


def kill_at_commit(gcs: FakeGcs, process: subprocess.Popen[bytes], n_commits: int) -> None:
    left = n_commits

    def on_request(request: Request) -> None:
        nonlocal left
        is_commit = request.method == "PUT" and "%5Fdelta%5Flog" in request.path
        left -= is_commit
        if is_commit and left == 0:
            process.send_signal(signal.SIGKILL)
            process.wait()

    gcs.on_request = on_request


def test_a_bucket_that_fails_under_a_run_is_told_and_the_release_that_is_served_stays(
    gcs: FakeGcs, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_tables, "_PATIENCE", {"max_retries": "0"})
    home, inbox = tmp_path / "home", tmp_path / "inbox"
    inbox.mkdir()
    write_log(shop_log(3), inbox / "first.csv")
    assert custseg(home, "run", "--source", inbox, config=config).status == 0
    served = gcs.buckets["shop-data"]["home/releases/CURRENT"].generation

    write_log(shop_log(1, date(2024, 4, 1)), inbox / "fourth.csv")

    def fail(request: Request) -> None:
        if "home%2Ftables" in request.path and request.method == "PUT":
            gcs.denied = {"storage.objects.create"}

    gcs.on_request = fail
    outcome = custseg(home, "run", config=config)
    assert outcome.status == 1
    last = outcome.err.splitlines()[-1]
    assert re.search(r"storage\.objects\.create.*Grant the account the role that docs/gcp\.md names", last), last
    assert gcs.buckets["shop-data"]["home/releases/CURRENT"].generation == served

    gcs.on_request, gcs.denied = (lambda _: None), set()
    outcome = custseg(home, "run", config=config)
    assert outcome.status == 0, outcome.err
    assert re.search(r"stale +nothing", custseg(home, "status", config=config).out)


# Where the tables are is a matter of the home, not of the day.


@pytest.mark.parametrize("command", [("run",), ("status",), ("export", "raw_transactions", "--out", "x.csv")])
def test_a_home_on_disk_does_not_go_on_in_a_bucket(
    gcs: FakeGcs, config: Path, filled_home: Path, command: tuple[str, ...]
) -> None:
    outcome = custseg(filled_home, *command, config=config)
    assert outcome.status == 2
    assert "[gcp.storage] tables = 'gs://shop-data/home/tables'; expected \"the home's own folder\"" in outcome.err
    assert gcs.names("shop-data") == []


def test_a_home_in_a_bucket_does_not_go_on_elsewhere(gcs: FakeGcs, config: Path, source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    homes.take_in(settings_of(home, config).model_copy(update={"source": SourceSettings(path=str(source))}))
    for other in (
        write_config(tmp_path / "disk.toml", gcs, tables=False),
        write_config(tmp_path / "other.toml", gcs, uri="gs://shop-data/other"),
    ):
        for command in ("run", "status"):
            outcome = custseg(home, command, config=other)
            assert (outcome.status, "with which home" in outcome.err) == (2, True), outcome.err
    assert not (home / "tables").exists()


def test_a_new_home_does_not_begin_on_the_tables_of_another(
    gcs: FakeGcs, config: Path, source: Path, tmp_path: Path
) -> None:
    gcs.put("shop-data", "home/tables/raw_transactions/_delta_log/00000000000000000000.json", b"{}")
    settings = settings_of(tmp_path / "home", config).model_copy(update={"source": SourceSettings(path=str(source))})
    with pytest.raises(BadInputError, match=r"gs://shop-data/home/tables holds tables.*remove them"):
        homes.take_in(settings)
    (tmp_path / "home" / "landing").mkdir(parents=True)
    os.link(source, tmp_path / "home" / "landing" / "log.csv")
    with pytest.raises(BadInputError, match="holds tables"):
        homes.take_in_landed(settings)
    gcs.buckets["shop-data"].clear()
    assert homes.take_in(settings) == "2024-04-01"


@pytest.mark.parametrize("n_deleted", [0, 1, 3, None])
def test_own_data_after_the_demo_start_in_an_empty_bucket_even_if_that_was_cut_off(
    gcs: FakeGcs, config: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_deleted: int | None
) -> None:
    monkeypatch.setattr(intake, "generate_demo", lambda: generate_demo(n_customers=40, n_months=4))
    home = tmp_path / "home"
    settings = settings_of(home, config)
    with_own = settings.model_copy(update={"source": SourceSettings(path=str(source))})
    homes.take_in(settings.model_copy(update={"source": SourceSettings(path="demo")}))
    table = tables(settings.model.features)["clean_transactions"]
    with OpenHome(settings).locked() as locked:
        for n in (1, 2):
            row = pl.DataFrame([{"period": "2024-01-01", "line_amount": float(n)}], schema=table.schema)
            locked.tables.write(table, row, {"2024-01-01": n})
    gcs.put("shop-data", "home/releases/CURRENT", b"r-1")

    if n_deleted is not None:
        refuse_deleting_after(gcs, n_deleted)
        with pytest.raises(BucketError, match=r"storage.objects.delete.*docs/gcp.md"):
            homes.take_in(with_own)
        gcs.on_request, gcs.denied = (lambda _: None), set()
        # What is left of a table can be read.
        assert OpenHome(settings).tables.read(table)["line_amount"].to_list() in ([2.0], [1.0], [])

    homes.take_in(with_own)
    assert gcs.names("shop-data") == ["home/releases/CURRENT"]
    assert OpenHome(settings).tables.version_of(table.name) is None
    assert OpenHome(settings).tables.fingerprint_of(table.name, "2024-01-01") is None


def test_own_data_after_a_demo_on_disk_may_begin_in_a_bucket(
    config: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "generate_demo", lambda: generate_demo(n_customers=40, n_months=4))
    settings = settings_of(tmp_path / "home", config)
    disk = settings.model_copy(update={"source": SourceSettings(path="demo"), "gcp": GcpSettings()})
    homes.take_in(disk)
    table = tables(settings.model.features)["clean_transactions"]
    with OpenHome(disk).locked() as locked:
        locked.tables.write(table, pl.DataFrame(schema=table.schema), {"2024-01-01": 1})
    with pytest.raises(BadInputError, match="Use another home"):
        OpenHome(settings).tables.version_of(table.name)
    with_own = settings.model_copy(update={"source": SourceSettings(path=str(source))})
    homes.take_in(with_own)
    assert not (tmp_path / "home" / "tables").exists()
    assert OpenHome(settings).tables.version_of(table.name) is None
    with pytest.raises(BadInputError, match="'gs://shop-data/home/tables', with which home"):
        OpenHome(disk).tables.version_of(table.name)


def refuse_deleting_after(gcs: FakeGcs, n_deleted: int) -> None:
    left = n_deleted

    def on_request(request: Request) -> None:
        nonlocal left
        if request.method == "DELETE" and left == 0:
            gcs.denied = {"storage.objects.delete"}
        left -= request.method == "DELETE"

    gcs.on_request = on_request


def test_a_replay_stays_out_of_the_bucket(config: Path, source: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", config).model_copy(update={"source": SourceSettings(path=str(source))})
    homes.take_in(settings)
    played = Replay(OpenHome(settings), tmp_path / "replayed", is_kept=False)
    assert played.home.open_bucket() is None
    assert played.home.tables.root == tmp_path / "replayed" / "tables"
