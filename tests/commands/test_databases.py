"""Whole runs on a database: what a second one takes, what a fault leaves, and that no password is ever seen."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import narwhals as nw
import polars as pl
import pytest

from custseg_assets.domain.transactions.cleaning import CleaningRules, classify, clean_lines, rejected_lines
from custseg_assets.errors import BadInputError
from custseg_assets.stores.sql_addresses import parse_address
from custseg_assets.stores.sql_servers import Postgres as Connection
from tests.support.databases import SourceReader, duckdb_in, postgres_on
from tests.support.killed_runs import kill_run
from tests.support.postgres import PASSWORD, Postgres, running_postgres
from tests.support.shops import HEADERS, QUICK, Outcome, custseg, shop_log

SECRETS = (PASSWORD, "s3cret", "s3cret%2Fp%40ss%20word")
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'custseg'"
RUN = (sys.executable, "-m", "custseg_assets.cli", "run")


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTSEG_SOURCE_PASSWORD", PASSWORD)


def fill(server: Postgres, n_months: int, first_month: int = 0) -> None:
    """Put months of a small shop into its table."""
    log = shop_log(n_months)[len(shop_log(first_month)) if first_month else 0 :]
    columns = [pl.col(name).alias(header) for name, header in HEADERS.items()]
    with server.connection() as connection, connection.cursor() as cursor:
        rows = log.select(columns).to_arrow(compat_level=pl.CompatLevel.oldest())
        cursor.adbc_ingest("log", rows, mode="append" if first_month else "replace")


def config_for(server: Postgres, more: str = "") -> str:
    return f'[source]\npath = "{server.address}"\ntable = "log"\ncursor = "InvoiceDate"\n{more}{QUICK}'


def run(home: Path, config: str) -> Outcome:
    outcome = custseg(home, "run", "--reconfigure", config=config)
    require_no_secret(home, outcome)
    return outcome


def require_no_secret(home: Path, outcome: Outcome) -> None:
    for text in (outcome.out, outcome.err):
        assert not [secret for secret in SECRETS if secret in text]
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret.encode() in content], path


def everything_in(folder: Path) -> dict[str, bytes]:
    """Files of a home that say what it is; the lock's content is who has it."""
    kept = ("deliveries", "tables", "releases")
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] in kept
    }


def test_a_second_run_takes_what_is_new_and_a_fault_changes_nothing(postgres: Postgres, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fill(postgres, 3)
    first = run(home, config_for(postgres))
    assert first.status == 0, first.err
    n_before = len(shop_log(3))
    fill(postgres, 4, first_month=3)
    second = run(home, config_for(postgres))
    assert second.status == 0, second.err
    n_new = len(shop_log(4)) - n_before
    assert f"{n_new:,} new rows from InvoiceDate 2024-03-" in second.err
    again = run(home, config_for(postgres))
    assert "Nothing has changed" in again.out
    state = json.loads(custseg(home, "status", "--json", config=config_for(postgres)).out)
    assert (state["source"], state["rows"]["raw"]) == (postgres.address, len(shop_log(4)))

    before = everything_in(home)
    for name, config, message in [
        ("password", config_for(postgres), "password authentication failed"),
        ("table", config_for(postgres).replace('"log"', '"lag"'), 'relation "lag" does not exist'),
        ("column", config_for(postgres, '[source.columns]\ncountry = "Land"\n'), "has no column 'Land'"),
        ("server", config_for(postgres).replace(f":{postgres.port}", ":1"), "Connection refused"),
        ("address", config_for(postgres).replace("shop@", "shop:s3cret/p@ss word@"), "has a password in it"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            if name == "password":
                patch.setenv("CUSTSEG_SOURCE_PASSWORD", "s3cret-but-wrong")
            refused = run(home, config)
        assert refused.status == 2, name
        (line,) = [line for line in refused.err.splitlines() if "; expected" in line]
        assert message in line
        assert "Traceback" not in refused.err
        assert everything_in(home) == before, name


def test_a_connection_that_is_lost_while_rows_come_is_one_sentence(postgres: Postgres) -> None:
    connection = Connection(parse_address(postgres.address), PASSWORD)
    rows = connection.read("SELECT repeat('x', 200) AS a FROM generate_series(1, 1000000)")
    next(rows)
    postgres.do(END)
    with pytest.raises(
        BadInputError, match=r"a connection that lasts until every row is read\. Nothing was changed"
    ) as lost:
        list(rows)
    assert "\n" not in str(lost.value)
    connection.close()


@pytest.mark.parametrize("ends", ["backend", "server"])
def test_a_connection_that_is_lost_while_the_query_runs_changes_nothing(
    ends: str, postgres: Postgres, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        server = postgres
        if ends == "server":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="custseg-postgres-"))
            server = stack.enter_context(running_postgres(Path(folder)))
        database = postgres_on(server)
        database.make_table()
        database.insert(*(("C1", "2024-01-31 23:30:00", 2, 1.5, str(n), n) for n in range(20)))
        reader = SourceReader(tmp_path / "deliveries")
        reader.read(database)
        before = {path: path.read_bytes() for path in reader.root.rglob("*")}

        def end() -> None:
            time.sleep(1)
            if ends == "server":
                server.stop()
            else:
                server.do(END)

        ending = threading.Thread(target=end)
        ending.start()
        query = "select orders.*, pg_sleep(0.5)::text as s from orders"
        with pytest.raises(BadInputError, match="expected a connection that lasts until every row is read"):
            reader.read(database, query=query, columns={"description": "s"})
        ending.join()
        assert {path: path.read_bytes() for path in reader.root.rglob("*")} == before


def test_a_run_that_is_killed_while_it_reads_leaves_a_home_that_the_next_run_fills(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    fill(postgres, 3)
    config = tmp_path / "custseg.toml"
    slow = config_for(postgres).replace('table = "log"', 'query = "select log.*, pg_sleep(0.005) from log"')
    config.write_text(slow)
    monkeypatch.setenv("CUSTSEG_CONFIG", str(config))
    kill_run(RUN, home, 8)
    assert not (home / "deliveries" / "current.json").exists()
    outcome = run(home, config_for(postgres))
    assert outcome.status == 0, outcome.err
    assert not [path.name for path in (home / "deliveries").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", ["postgresql", "duckdb"])
def test_the_real_log_from_a_database_is_the_same_shop(
    kind: str, real_log: Path, postgres: Postgres, tmp_path: Path
) -> None:
    log = pl.read_csv(real_log, schema_overrides={"InvoiceNo": pl.String, "CustomerID": pl.String})
    log = log.with_columns(pl.col("InvoiceDate").str.to_datetime("%Y-%m-%d %H:%M:%S"))
    if kind == "postgresql":
        postgres.fill("retail", log.to_arrow(compat_level=pl.CompatLevel.oldest()))
        database = postgres_on(postgres)
    else:
        database = duckdb_in(tmp_path)
        with duckdb.connect(database.address.removeprefix("duckdb://")) as connection:
            connection.register("rows", log.to_arrow())
            connection.execute("CREATE TABLE retail AS FROM rows")
    from_csv, from_database = SourceReader(tmp_path / "csv"), SourceReader(tmp_path / "database")
    from_csv.read_file(real_log)
    (delivery,) = from_database.read(database, table="retail", cursor="InvoiceDate")
    tables = [cleaned(reader.lines()) for reader in (from_csv, from_database)]
    for name, n_rows in {"raw": 541_909, "clean": 399_573, "rejected": 541_909 - 399_573}.items():
        csv, same = (without_place(table[name]) for table in tables)
        assert csv.height == n_rows
        assert csv.equals(same), name
    assert from_database.read(database, table="retail", cursor="InvoiceDate") == (delivery,)
    assert "0 new rows from InvoiceDate 2011-12-09 12:50:00" in from_database.said[0]


def cleaned(lines: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The lines, those that count and those that are rejected."""
    raw = lines.with_columns(period=pl.col("invoiced_at").dt.strftime("%Y-%m-01"))
    rules = CleaningRules(1, ("Next Day Carriage", "High Resolution Image"), "C")
    classified = classify(nw.from_native(raw.lazy()), rules).collect().lazy()
    clean, rejected = clean_lines(classified, rules), rejected_lines(classified)
    return {"raw": lines, "clean": clean.collect().to_native(), "rejected": rejected.collect().to_native()}


def without_place(lines: pl.DataFrame) -> pl.DataFrame:
    """Lines without where they stood, in an order of their own."""
    content = lines.drop("source_file", "source_row", strict=False)
    return content.sort(content.columns)
