"""Whole runs on Spark: the same tables, whatever is lost in their middle; and errors that say what to do."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from custseg_assets.engines import choice, spark_session
from custseg_assets.stores.home import Home
from tests.support.comparison import flaws, missing_or_extra
from tests.support.homes import require_same_tables
from tests.support.killed_runs import environment_of, kill_run
from tests.support.shops import QUICK, FilledShop, Outcome, custseg, shop_log, write_log
from tests.support.spark_servers import Cluster, running_cluster, shared_sail

pytestmark = pytest.mark.spark


def on_spark(url: str) -> str:
    """Text of a configuration with Spark as the engine, whose executors fit into the workers of the tests."""
    return f'{QUICK}\n[engine]\nname = "spark"\nurl = "{url}"\nmemory_limit = "600MB"\n'


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(shop_log(4), tmp_path_factory.mktemp("source") / "log.csv")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster") as running:
        yield running


def run(home: Path, source: Path, url: str) -> Outcome:
    return custseg(home, "run", "--source", source, config=on_spark(url))


def run_in_a_process(home: Path, source: Path, url: str) -> Outcome:
    """A run in a process of its own: one process has one driver of Spark."""
    config = home.with_name("custseg.toml")
    config.write_text(on_spark(url), encoding="utf-8")
    command = [sys.executable, "-m", "custseg_assets.cli", "run", "--source", str(source), "--config", str(config)]
    # A session of Spark Connect leaves its address in the environment of this process.
    environment = {name: value for name, value in environment_of(home).items() if not name.startswith("SPARK_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_cluster_makes_the_same_tables_although_an_executor_is_lost(
    cluster: Cluster, filled_shop: FilledShop, source: Path, tmp_path: Path
) -> None:
    """A home in a folder that addresses take for something else."""
    home, killed, is_over = tmp_path / "home ü", list[int](), threading.Event()

    def kill_executors() -> None:
        """Kill one executor while lines are worked on, and another one later."""
        while len(killed) < 2 and not is_over.is_set():
            if Home(home).staging.exists() and cluster.executors() and not is_over.wait(1):
                killed.extend(cluster.kill_executor())
            time.sleep(0.05)

    killer = threading.Thread(target=kill_executors)
    killer.start()
    outcome = run_in_a_process(home, source, cluster.url)
    is_over.set()
    killer.join()
    assert outcome.status == 0, outcome.err
    assert len(killed) == 2
    require_same_tables(home, filled_shop.home)
    assert not Home(home).staging.exists()


def test_a_home_that_goes_from_engine_to_engine_finds_nothing_stale(shop_home: Path, tmp_path: Path) -> None:
    configured = tmp_path / "spark.toml"
    configured.write_text(on_spark(shared_sail()), encoding="utf-8")
    outcome = custseg(shop_home, "run", "--config", configured)
    assert outcome.status == 0, outcome.err
    assert "Nothing has changed" in outcome.out
    for engine in ("duckdb", "spark", "polars"):
        outcome = custseg(shop_home, "run", "--engine", engine)
        assert outcome.status == 0, outcome.err
        assert "Nothing has changed" in outcome.out
        assert json.loads(custseg(shop_home, "status", "--json").out)["stale"] == {}


def test_sail_makes_the_same_tables_however_often_the_run_is_killed(
    filled_shop: FilledShop, source: Path, tmp_path: Path
) -> None:
    home, config = tmp_path / "home", tmp_path / "custseg.toml"
    config.write_text(on_spark(shared_sail()), encoding="utf-8")
    command = [sys.executable, "-m", "custseg_assets.cli", "run", "--source", str(source), "--config", str(config)]
    for until in ("raw_transactions:", "clean_transactions:", "customer_features:"):
        kill_run(command, home, 600, until)
        assert Home(home).unfinished_stage.exists(), f"it was over, or never said {until!r}"
        assert flaws(home, filled_shop.home) == []
    outcome = custseg(home, "run", "--source", source, config=config)
    assert outcome.status == 0, outcome.err
    assert flaws(home, filled_shop.home) + missing_or_extra(home, filled_shop.home) == []
    require_same_tables(home, filled_shop.home)
    assert not Home(home).staging.exists()


# What cannot be used is said in one sentence, and nothing is changed.


def refused(home: Path, source: Path, url: str) -> str:
    outcome = run(home, source, url)
    assert outcome.status == 2, outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert not home.exists()
    return outcome.err


def unused_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("scheme", "what"), [("sc", "a server of Spark Connect"), ("spark", "the master of a cluster")]
)
def test_an_address_that_nobody_listens_at(scheme: str, what: str, home: Path, source: Path) -> None:
    said = refused(home, source, f"{scheme}://127.0.0.1:{unused_port()}")
    assert f"cannot be reached (Connection refused); expected the address of {what}" in said


def test_an_address_that_somebody_else_listens_at(home: Path, source: Path) -> None:
    """A server that closes every connection."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def close_connections() -> None:
            while True:
                listening.accept()[0].close()

        threading.Thread(target=close_connections, daemon=True).start()
        said = refused(home, source, f"sc://127.0.0.1:{listening.getsockname()[1]}")
    assert "it is no server of Spark Connect" in said


def test_a_server_of_another_version(home: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyspark.__version__", "3.5.1")
    said = refused(home, source, shared_sail())
    assert "has Spark 4.2.1, and this is a client of 3.5.1; expected client and server of one major version" in said


@pytest.mark.parametrize(
    ("missing", "url", "said"),
    [
        ("grpc", "sc://127.0.0.1", "grpcio is not installed; expected the packages of Spark Connect"),
        ("py4j", "local[1]", "only the client of Spark Connect is installed; expected the whole of PySpark"),
    ],
)
def test_packages_that_are_missing(
    missing: str, url: str, said: str, home: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_session, "_is_there", lambda module: module != missing)
    assert said in refused(home, source, url)


def test_no_pyspark(home: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_is_installed", lambda module: module != "pyspark")
    assert "pyspark is not installed; expected an engine whose packages" in refused(home, source, "local[1]")


def test_no_java(home: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "there is no Java here; expected Java 17 or newer" in refused(home, source, "local[1]")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "there is no Java here" in refused(home, source, "local[1]")


def test_a_cluster_without_workers(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_cluster(tmp_path / "cluster", n_workers=0) as cluster:
        outcome = run_in_a_process(home, source, cluster.url)
    assert outcome.status == 2, outcome.err
    assert "has given no executor within 60 s" in outcome.err
    assert not home.exists()
