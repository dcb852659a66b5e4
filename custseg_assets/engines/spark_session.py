"""A session of Spark, as configured: on this machine, on a cluster, or behind Spark Connect.

What can be wrong is looked for before Spark is asked: Spark itself tries for minutes, and then says it in many lines.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from custseg_assets.errors import BadInputError
from custseg_assets.settings import EngineSettings

CONNECT, CLUSTER = "sc", "spark"
_PORTS = {CONNECT: 15002, CLUSTER: 7077}
_HERE = "local[*]"
_ANSWER_SECONDS = 10.0
_WORKERS_SECONDS = 60.0
_OF_CONNECT = {
    "grpc": "grpcio",
    "grpc_status": "grpcio-status",
    "google.rpc": "googleapis-common-protos",
    "zstandard": "zstandard",
    "pandas": "pandas",
}
"""What must be importable for Spark Connect, and the package that has it."""

# The log's own clock is the only one: instants without a zone, in Spark's words. Overflows and texts that are no
# numbers are errors. Small results of large shuffles are put together.
SEMANTICS = {
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
}
_OF_A_DRIVER = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}


def require_spark(settings: EngineSettings) -> None:
    """Refuse Spark that cannot be used, before anything is done: a server or a cluster is tried.

    Raises:
        BadInputError: it cannot be reached, is not installed, or is of another version.
    """
    if settings.url and "://" in settings.url:
        with open_session(settings):
            pass
    else:
        _require_java(settings.url or _HERE)


@contextlib.contextmanager
def open_session(settings: EngineSettings) -> Iterator[Any]:
    """A session that ends with the block.

    Args:
        settings: with the address; without one Spark is on this machine.

    Raises:
        BadInputError: Spark cannot be reached, is not installed, or is of another version.
    """
    url = settings.url or _HERE
    scheme = urlsplit(url).scheme if "://" in url else ""
    session = _connect(url) if scheme == CONNECT else _start(url, scheme, settings.memory_limit)
    try:
        yield session
    finally:
        _close(session)


def _close(session: Any) -> None:
    # The server may be gone: what has happened to it was said already, and is not waited for.
    with contextlib.suppress(Exception):
        if is_connect(session):
            session.client.set_retry_policies([])
        session.stop()


def is_connect(session: Any) -> bool:
    """Whether a session is one of Spark Connect."""
    return type(session).__module__.startswith("pyspark.sql.connect")


def is_sail(session: Any) -> bool:
    """Whether a session is one of Sail, which speaks Spark Connect and is not Spark."""
    if not is_connect(session):
        return False
    return str(session.sql("SELECT current_catalog()").head()[0]) == "sail"


def _connect(url: str) -> Any:
    from pyspark import __version__ as version
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    if missing := [package for module, package in _OF_CONNECT.items() if not _is_there(module)]:
        raise BadInputError(
            f"[engine] url = {url!r}, and {', '.join(missing)} is not installed",
            "the packages of Spark Connect",
            "Install them with: pip install 'custseg[spark]'.",
        )
    _require_answer(url, CONNECT)
    from pyspark.sql.connect.client.retries import DefaultPolicy

    session = SparkSession.builder.remote(url).create()
    # Spark's own patience with a server that is gone is ten minutes.
    session.client.set_retry_policies([DefaultPolicy(max_retries=8, max_backoff=15_000)])
    try:
        found = session.version
        _configure(session, SEMANTICS)
    except PySparkException as error:
        _close(session)
        raise _refused(url, "it is no server of Spark Connect, or refuses this client", error) from error
    if _major(found) != _major(version):
        _close(session)
        raise BadInputError(
            f"{url} has Spark {found}, and this is a client of {version}",
            "client and server of one major version",
            f"Install the client of the server's version: pip install 'pyspark[connect]=={found}'.",
        )
    return session


def _start(url: str, scheme: str, memory: str | None) -> Any:
    """A session with a driver in a Java process of its own."""
    _require_java(url)
    if scheme == CLUSTER:
        _require_answer(url, CLUSTER)
    return _start_driver(url, _driver_settings(url, scheme, memory))


def _require_java(url: str) -> None:
    if not _is_there("py4j"):
        raise BadInputError(
            f"[engine] url = {url!r}, and only the client of Spark Connect is installed",
            "the whole of PySpark",
            "Install it with: pip install 'custseg[spark]'; or name a server of Spark Connect: url = \"sc://…\".",
        )
    if not _has_java():
        raise BadInputError(
            f"[engine] url = {url!r}, and there is no Java here",
            "Java 17 or newer on the PATH or in JAVA_HOME",
            'Install it (Debian: openjdk-17-jre-headless), or name a server of Spark Connect: url = "sc://…".',
        )


def _driver_settings(url: str, scheme: str, memory: str | None) -> dict[str, str]:
    settings = {**SEMANTICS, **_OF_A_DRIVER}
    if scheme == CLUSTER:
        # The address by which this machine reaches the master is the one by which executors reach the driver.
        settings["spark.driver.host"] = _own_address(url)
    else:
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    if memory:
        of_whom = "spark.executor.memory" if scheme == CLUSTER else "spark.driver.memory"
        settings[of_whom] = memory.replace(" ", "").replace("iB", "").replace("B", "").lower()
    return settings


def _start_driver(url: str, settings: Mapping[str, str]) -> Any:
    from pyspark import SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    active = SparkContext._active_spark_context  # noqa: SLF001  (Python has no name for it)
    if active is not None and active.master != url:
        # Spark would take that one, whatever it is asked for.
        raise RuntimeError(f"Spark runs in this process with {active.master}; it cannot be with {url}, too")
    builder = SparkSession.builder.master(url).appName("custseg")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError, _java_error()) as error:
        raise _refused(url, "Spark cannot be started", error) from error
    try:
        _require_workers(session, url)
    except BaseException:
        session.stop()
        raise
    return session


def _require_workers(session: Any, url: str) -> None:
    """Wait until a cluster has given the driver an executor; Spark itself would wait for ever."""
    if not url.startswith(f"{CLUSTER}://"):
        return
    status = session.sparkContext._jsc.sc().statusTracker()  # noqa: SLF001  (Python has no name for it)
    # The driver counts, too.
    if not _wait(lambda: len(status.getExecutorInfos()) > 1, _WORKERS_SECONDS):
        raise BadInputError(
            f"{url} has given no executor within {_WORKERS_SECONDS:g} s",
            f"a master of Spark {session.version} with workers that have memory and cores to spare",
            "Look at the master's page: whether it has workers, whether others use them, and of which version it is.",
        )


def _wait(is_done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (done := is_done()) and time.monotonic() < end:
        time.sleep(0.1)
    return done


def _require_answer(url: str, scheme: str) -> None:
    """Refuse an address that nobody listens at."""
    host, port = _place_of(url, scheme)
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_SECONDS):
            pass
    except OSError as error:
        raise BadInputError(
            f"[engine] url = {url!r} cannot be reached ({error.strerror or error})",
            "the address of " + ("a server of Spark Connect" if scheme == CONNECT else "the master of a cluster"),
            f"Start it, or correct the address: {host}, port {port}.",
        ) from None


def _place_of(url: str, scheme: str) -> tuple[str, int]:
    """Host and port of an address, the first where a cluster has several masters.

    Raises:
        BadInputError: the address has no host, or the port is no number.
    """
    try:
        parts = urlsplit(url.split(",", maxsplit=1)[0])
        host, port = parts.hostname, parts.port or _PORTS[scheme]
    except ValueError:
        host, port = None, 0
    if not host:
        raise BadInputError(f"[engine] url = {url!r}", f"{scheme}://host:port", "Correct the address.")
    return host, port


def _own_address(url: str) -> str:
    with socket.create_connection(_place_of(url, CLUSTER), timeout=_ANSWER_SECONDS) as connection:
        return str(connection.getsockname()[0])


def _configure(session: Any, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        session.conf.set(name, value)


def _refused(url: str, what: str, error: BaseException) -> BadInputError:
    said = " ".join(str(error).split())[:200]
    return BadInputError(
        f"[engine] url = {url!r}: {what} ({said})",
        "Spark of the same version as PySpark here",
        "Correct the address, or install the PySpark of that version.",
    )


def _java_error() -> type[Exception]:
    from py4j.protocol import Py4JError

    found: type[Exception] = Py4JError
    return found


def _has_java() -> bool:
    home = os.environ.get("JAVA_HOME")
    return bool(shutil.which("java")) if not home else (Path(home) / "bin" / "java").exists()


def _major(version: str) -> str:
    return version.partition(".")[0]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
