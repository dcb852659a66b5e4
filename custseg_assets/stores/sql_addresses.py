"""Addresses of databases, such as ``postgresql://shop@db.example/shop``: taken apart, and never with a password.

What is done with one is in ``sql_databases``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from custseg_assets.errors import BadInputError
from custseg_assets.settings import refuse_password

SCHEMES: Mapping[str, str] = {
    "postgresql": "PostgreSQL",
    "mysql": "MySQL",
    "snowflake": "Snowflake",
    "duckdb": "DuckDB",
    "sqlite": "SQLite",
}
"""Scheme of an address → name of the database."""

_ALIASES = {"postgres": "postgresql", "mariadb": "mysql", "sqlite3": "sqlite"}
_IN_FILES = ("duckdb", "sqlite")
FILE_SCHEMES = ("duckdb://", "sqlite://", "sqlite3://")
"""How addresses of databases that are files begin, in small letters."""
_OWN_SCHEMES = ("bq", "gs")
_ADDRESS = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9.+-]*)://")
_EXAMPLE = "postgresql://user@host/database, mysql://…, snowflake://…, duckdb://file or sqlite://file"


@dataclass(frozen=True)
class SqlAddress:
    """Where a database is.

    Attributes:
        scheme: a key of ``SCHEMES``.
        user: ``""`` where the driver knows it.
        host: of the server, or the account of Snowflake; ``""`` for a file.
        port: ``None`` for the usual one.
        database: its name, or the path of its file.
        options: what the driver is told besides.
    """

    scheme: str
    user: str
    host: str
    port: int | None
    database: str
    options: Mapping[str, str]

    @property
    def kind(self) -> str:
        """Name of the database, as people write it."""
        return SCHEMES[self.scheme]

    @property
    def place(self) -> str:
        """The same for everybody who reads there, whoever they are."""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{self.host}{port}/{self.database}"

    @property
    def label(self) -> str:
        """A short name of the database."""
        return Path(self.database).stem or self.host


def is_address(source: str) -> bool:
    """Whether a source is an address of a database, or looks like one.

    >>> is_address("postgresql://db.example/shop"), is_address("oracle://db.example/shop"), is_address("log.csv")
    (True, True, False)
    >>> is_address("bq://project.dataset.table")
    False
    """
    found = _ADDRESS.match(source)
    return found is not None and found["scheme"].lower() not in _OWN_SCHEMES


def parse_address(source: str) -> SqlAddress:
    """Take an address apart.

    Raises:
        BadInputError: it has a password in it, is of no database that can be read, or names a file that is not there.
    """
    refuse_password(source)
    found = _ADDRESS.match(source)
    named = found["scheme"].lower() if found else ""
    scheme = _ALIASES.get(named, named)
    if scheme not in SCHEMES:
        raise BadInputError(
            f"source {source} is of no database that custseg reads", _EXAMPLE, "Correct [source] path or --source."
        )
    if scheme in _IN_FILES:
        rest, _, query = source.partition("://")[2].partition("?")
        return SqlAddress(scheme, "", "", None, str(_file_of(rest, source)), dict(parse_qsl(query)))
    try:
        parts = urlsplit(source)
        user, host, port = unquote(parts.username or ""), parts.hostname or "", parts.port
    except ValueError as error:
        raise BadInputError(f"source {source}: {error}", _EXAMPLE, "Correct [source] path or --source.") from None
    if scheme == "snowflake" and not host:
        raise BadInputError(
            f"source {source} names no account", "snowflake://user@account/database/schema", "Write it in full."
        )
    return SqlAddress(scheme, user, host, port, unquote(parts.path.strip("/")), dict(parse_qsl(parts.query)))


def _file_of(written: str, source: str) -> Path:
    """The file of an address; what tools mean by three slashes differs, so the file that is there decides."""
    named = unquote(written)
    candidates = [Path(named)]
    if named.startswith("//"):
        candidates = [Path(named[1:])]
    elif named.startswith("/"):
        candidates.append(Path(named[1:]))
    there = [path for path in candidates if path.is_file()]
    if len({path.resolve() for path in there}) > 1:
        raise BadInputError(
            f"source {source} may be the file {candidates[0]} or the file {candidates[1]} in this folder",
            "an address of one file",
            f"Write four slashes for the first, or {source.partition('://')[0]}://{candidates[1]} for the second.",
        )
    if not there:
        raise BadInputError(
            f"source {source}: there is no file {' or '.join(map(str, candidates))}",
            "the file of a database",
            "Correct [source] path or --source.",
        )
    return there[0].resolve()
