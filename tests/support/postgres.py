"""A PostgreSQL server of the tests' own: made, started and stopped by its own programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.support.ports import free_port

USER, PASSWORD = "shop", "s3cret/p@ss word"


def server_programs() -> Path | None:
    """The folder of the newest server that is installed, if any."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return Path(named).parent if named else None


@dataclass(frozen=True)
class Postgres:
    """A server that runs.

    Attributes:
        port: on loopback.
        programs: folder of its programs.
        folder: of its data.
    """

    port: int
    programs: Path
    folder: Path

    @property
    def address(self) -> str:
        """Where it is, as ``[source] path``."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection that may write."""
        import adbc_driver_postgresql.dbapi as driver

        uri = f"postgresql://127.0.0.1:{self.port}/postgres?user={USER}&password=s3cret%2Fp%40ss%20word"
        with driver.connect(uri, autocommit=True) as connection:
            yield connection

    def do(self, *statements: str) -> None:
        """Run statements."""
        with self.connection() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def stop(self) -> None:
        """Stop it at once, with whatever it is doing."""
        control = [*_as_owner(), self.programs / "pg_ctl", "-D", self.folder, "-w", "-m", "immediate", "stop"]
        subprocess.run(control, check=False, capture_output=True)

    def fill(self, table: str, rows: pa.Table) -> None:
        """Make a table of rows."""
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(table, rows, mode="replace")


def _as_owner() -> list[str]:
    """The server refuses to run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []


@contextlib.contextmanager
def running_postgres(folder: Path) -> Iterator[Postgres]:
    """Make and start a server in an empty folder that its owner can reach; it is stopped at the end."""
    programs = server_programs()
    assert programs is not None
    data, password = folder / "data", folder / "password"
    password.write_text(PASSWORD)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        shutil.chown(password, "nobody")
    make = ["-A", "scram-sha-256", "-U", USER, f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    subprocess.run([*_as_owner(), programs / "initdb", "-D", data, *make], check=True, capture_output=True)
    port = free_port()
    control = [*_as_owner(), programs / "pg_ctl", "-D", data, "-w"]
    options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
    # Its output is not captured: the server keeps it open.
    subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield Postgres(port, programs, data)
    finally:
        Postgres(port, programs, data).stop()
