"""A MariaDB server of the tests' own, which speaks MySQL's protocol."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.waiting import wait_until

USER, PASSWORD = "shop", "s3cret/p@ss word"


def has_server() -> bool:
    """Whether the server is installed."""
    return shutil.which("mariadbd") is not None and shutil.which("mariadb-install-db") is not None


@dataclass(frozen=True)
class MariaDb:
    """A server that runs.

    Attributes:
        port: on loopback.
        socket: that its owner connects through.
    """

    port: int
    socket: Path

    @property
    def address(self) -> str:
        """Where it is, as ``[source] path``."""
        return f"mysql://{USER}@127.0.0.1:{self.port}/shop"

    def do(self, *statements: str) -> None:
        """Run statements."""
        import pymysql

        with contextlib.closing(
            pymysql.connect(unix_socket=str(self.socket), user="root", database="shop", autocommit=True)
        ) as connection:
            for statement in statements:
                connection.cursor().execute(statement)


@contextlib.contextmanager
def running_mariadb(folder: Path) -> Iterator[MariaDb]:
    """Make and start a server in an empty folder that its owner can reach; it is stopped at the end."""
    import pymysql

    is_root = os.geteuid() == 0
    if is_root:
        shutil.chown(folder, "nobody")
    owner = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if is_root else []
    data, socket, port = folder / "data", folder / "socket", free_port()
    make = ["--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
    base = os.environ.get("MARIADB_BASE")
    more = [f"--basedir={base}"] if base else []
    subprocess.run([*owner, "mariadb-install-db", *make, *more], check=True, capture_output=True)
    serve = ["--no-defaults", f"--datadir={data}", f"--socket={socket}", f"--port={port}", "--bind-address=127.0.0.1"]
    quick = ["--innodb-flush-log-at-trx-commit=0", f"--pid-file={folder / 'pid'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*owner, "mariadbd", *serve, *quick, *more], stdout=log, stderr=log)
    try:

        def make_shop() -> bool:
            with contextlib.suppress(pymysql.Error):
                with contextlib.closing(pymysql.connect(unix_socket=str(socket), user="root")) as connection:
                    cursor = connection.cursor()
                    cursor.execute("CREATE DATABASE shop")
                    cursor.execute(f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY %s", [PASSWORD])
                    cursor.execute(f"GRANT SELECT ON shop.* TO {USER}@'127.0.0.1'")
                return True
            return False

        wait_until(socket.exists, 60)
        wait_until(make_shop, 60)
        yield MariaDb(port, socket)
    finally:
        process.terminate()
        process.wait()
