"""What every test gets: no network, no telemetry, no settings of who runs it; and the shared real data and homes."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl
import pytest

from custseg_assets import no_telemetry as telemetry
from custseg_assets.domain.schemas import RAW_TRANSACTIONS
from custseg_assets.domain.transactions.cleaning import CleaningRules, classify, clean_lines, rejected_lines
from custseg_assets.settings import ReadingSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.reading import Reader
from tests.support.files import REPOSITORY
from tests.support.mariadb import MariaDb, has_server, running_mariadb
from tests.support.postgres import Postgres, running_postgres, server_programs
from tests.support.real_tables import RealTables
from tests.support.shops import FilledShop, fill_shop, shop_log

telemetry.switch_off()


def _has_google() -> bool:
    """Whether Google's client libraries are installed; other packages bring a bare ``google`` too."""
    try:
        return find_spec("google.cloud.aiplatform_v1") is not None
    except ModuleNotFoundError:
        return False


# Nothing in support is a test, and looking there for examples in docstrings would import all of it, also the file that
# makes waits shorter. What is in gcp imports what only `make test-gcp` installs.
collect_ignore = ["support"] if _has_google() else ["support", "gcp"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("pyspark") is None:
        skip = pytest.mark.skip(reason="PySpark is not installed here; `make test-spark` runs this")
        for item in items:
            if item.get_closest_marker("spark"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("CUSTSEG_", "AIP_", "DAGSTER_HOME", "MLFLOW_TRACKING_", "GOOGLE_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _one_reader() -> Iterator[None]:
    """One process reads the files of all tests that set no limits; to start one for each costs a third of a second."""
    shared, own = Reader(ReadingSettings()), DeliveryStore.reading

    @contextlib.contextmanager
    def reading(store: DeliveryStore) -> Iterator[Reader]:
        if store._limits == ReadingSettings():
            yield shared
        else:
            with own(store) as reader:
                yield reader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeliveryStore, "reading", reading)
        yield
    shared.close()


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex"):
            patch.setattr(socket.socket, method, _refusing(getattr(socket.socket, method)))
        yield


def _refusing(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a test tried to reach {address[0]}; tests stay on this machine")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, not made yet; ``CUSTSEG_HOME`` names it."""
    path = tmp_path / "home"
    monkeypatch.setenv("CUSTSEG_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def filled_shop(tmp_path_factory: pytest.TempPathFactory) -> FilledShop:
    """A small shop's home after one run from nothing: four months, three snapshots, a model. Nobody changes it."""
    return fill_shop(tmp_path_factory.mktemp("filled"), shop_log(4))


@pytest.fixture
def shop_home(filled_shop: FilledShop, tmp_path: Path) -> Path:
    """A copy of the home of ``filled_shop``, to be changed."""
    return shutil.copytree(filled_shop.home, tmp_path / "home")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; skips where its programs are not installed."""
    if server_programs() is None:
        pytest.skip("PostgreSQL's server is not installed here: install the package postgresql")
    # Not in pytest's folder, which only its owner may enter: the server runs as somebody else.
    with tempfile.TemporaryDirectory(prefix="custseg-postgres-") as folder, running_postgres(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A MariaDB server; skips where its programs are not installed."""
    if not has_server():
        pytest.skip("MariaDB's server is not installed here: install the package mariadb-server")
    with tempfile.TemporaryDirectory(prefix="custseg-mariadb-") as folder, running_mariadb(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and right answers that lies beside the repository."""
    # Read here, before the environment is cleared for the test.
    folder = Path(_SHARED or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set CUSTSEG_SHARED to where the real data are")
    return folder


_SHARED = os.environ.get("CUSTSEG_SHARED")


@pytest.fixture(scope="session")
def real_log(shared: Path) -> Path:
    """The Online Retail log, 541,909 rows."""
    path = shared / "data" / "online_retail.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="session")
def real_tables(real_log: Path) -> RealTables:
    """The real log's raw, clean and rejected lines."""
    raw = (
        pl.read_csv(real_log, infer_schema=False)
        .select(
            pl.lit(None, pl.String).alias("unreadable_values"),
            pl.lit(None, pl.String).alias("excluded_by"),
            pl.lit("log").alias("source_file"),
            pl.int_range(1, pl.len() + 1).alias("source_row"),
            pl.col("InvoiceDate").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us").alias("invoiced_at"),
            pl.col("CustomerID").str.strip_suffix(".0").alias("customer_id"),
            pl.col("Quantity").cast(pl.Float64).alias("quantity"),
            pl.col("UnitPrice").cast(pl.Float64).alias("unit_price"),
            pl.lit(None, pl.Float64).alias("line_amount"),
            invoice_id="InvoiceNo",
            product_id="StockCode",
            description="Description",
            country="Country",
        )
        .with_columns(period=pl.col("invoiced_at").dt.strftime("%Y-%m-01"))
        .select(RAW_TRANSACTIONS.schema.names())
    )
    rules = CleaningRules(1, ("Next Day Carriage", "High Resolution Image"), "C")
    classified = classify(nw.from_native(raw.lazy()), rules).collect().lazy()
    return RealTables(
        raw,
        clean_lines(classified, rules).collect().to_native(),
        rejected_lines(classified).collect().to_native(),
    )
