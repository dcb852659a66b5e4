"""Lines sorted in a batch of Dataproc give the tables that this machine makes; without the batch nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.gcp.costs import check_batch_cost, highest_batch_cost
from custseg_assets.settings import GcpDataprocSettings
from custseg_assets.stores.home import Home
from tests.support.homes import require_same_tables
from tests.support.shops import FilledShop, custseg, shop_log, write_log

if TYPE_CHECKING:
    from tests.support.fakes.dataproc import FakeDataproc
    from tests.support.fakes.gcs import FakeGcs

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(find_spec("pyspark") is None, reason="`make test-spark` has Spark and Google's libraries"),
    # Dagster 1.13 itself uses what it deprecates and what it previews; gone when it does not.
    pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function `PipesMessageReader.expected_writer_count`"),
]


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    from tests.support.fakes.gcs import FakeGcs

    with FakeGcs("shop-data") as fake:
        yield fake


@pytest.fixture
def dataproc(gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDataproc]:
    from custseg_assets.gcp.cloud_jobs import Patience
    from tests.support.dataproc_pieces import images
    from tests.support.fakes.dataproc import FakeDataproc
    from tests.support.gcp_pieces import hurry

    hurry(monkeypatch)
    waits = replace(Patience(), first_wait=0.5, longest_wait=1.0, message_interval=1.0)
    monkeypatch.setattr("custseg_assets.gcp.cloud_jobs.Patience", lambda **_: waits)
    with FakeDataproc("shop", "europe-west1", gcs, images()) as fake:
        yield fake


def config_of(dataproc: FakeDataproc, gcs: FakeGcs, **more: object) -> str:
    from tests.support.places import PLACE, cloud_config

    endpoints = {"storage": gcs.url, "dataproc": dataproc.url}
    return cloud_config(**PLACE, dataproc={"image": "spark:1", "min_lines": 1, **more}, endpoints=endpoints)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_log(shop_log(4), tmp_path / "log.csv")


def test_a_batch_makes_the_tables_that_this_machine_makes(
    dataproc: FakeDataproc, gcs: FakeGcs, filled_shop: FilledShop, source: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    outcome = custseg(home, "run", "--source", source, config=config_of(dataproc, gcs))
    assert outcome.status == 0, outcome.err
    require_same_tables(home, filled_shop.home)
    assert [batch.state.name for batch in dataproc.batches] == ["SUCCEEDED"]
    assert gcs.names("shop-data") == []
    assert not Home(home).staging.exists()


def test_a_batch_that_fails_is_one_line_and_changes_no_table(
    dataproc: FakeDataproc, gcs: FakeGcs, source: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    outcome = custseg(home, "run", "--source", source, config=config_of(dataproc, gcs, image="nothing:1"))
    assert outcome.status == 1
    assert "classifying lines on Dataproc: " in outcome.err
    assert "image could not be fetched" in outcome.err
    assert not (home / "tables" / "clean_transactions").exists()


def test_a_batch_that_could_cost_too_much_is_not_started(
    dataproc: FakeDataproc, gcs: FakeGcs, source: Path, tmp_path: Path
) -> None:
    outcome = custseg(tmp_path / "home", "run", "--source", source, config=config_of(dataproc, gcs, max_cost=1.0))
    assert outcome.status in {1, 2}
    assert "a batch of up to 120 minutes of a driver and 8 executors can cost 6.44 USD" in outcome.err
    assert dataproc.requests == []


def test_the_most_that_a_batch_can_cost() -> None:
    """Nine machines for two hours, each 5.6 units at 0.06 USD and 400 GB at 0.04 USD for a 730th of a month."""
    settings = GcpDataprocSettings()
    assert highest_batch_cost(settings) == pytest.approx(9 * 2 * (5.6 * 0.06 + 400 * 0.04 / 730))
    assert check_batch_cost(settings).startswith(
        "at most 6.44 USD: 120 minutes of a driver and 8 executors, list prices"
    )
    dearer = GcpDataprocSettings(price_per_dcu_hour=0.12, max_cost=10)
    with pytest.raises(BadInputError, match=r"can cost 12\.49 USD; expected at most .* max_cost = 10"):
        check_batch_cost(dearer)


@pytest.mark.parametrize(
    "properties",
    [
        {"spark.executor.cores": "16"},
        {"spark.dynamicAllocation.maxExecutors": "100"},
        {"spark.dataproc.executor.compute.tier": "premium"},
        {"executor.memory": "8g"},
    ],
)
def test_properties_that_make_a_batch_cost_more_are_refused(properties: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"max_executors|no property of Spark"):
        GcpDataprocSettings(properties=properties)
