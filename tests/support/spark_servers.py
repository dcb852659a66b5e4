"""Servers of Spark on loopback: a standalone cluster of processes, Spark's own server of Spark Connect, and Sail's."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from custseg_assets.engines.spark_session import open_session
from custseg_assets.settings import EngineSettings
from tests.support.ports import free_port
from tests.support.waiting import wait_until

T = TypeVar("T")
_EXECUTOR = "CoarseGrainedExecutorBackend"
_SECONDS = 60.0
_QUIET = """
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %c{1}: %m%n
"""


# Java spends most of a short life on making its code fast.
_OF_JAVA = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
_STACK = contextlib.ExitStack()
atexit.register(_STACK.close)


@cache
def shared_session(url: str) -> Any:
    """A session that stays open until the tests are over."""
    os.environ.update(_OF_JAVA)
    return _until_the_end(open_session(EngineSettings(name="spark", url=url)))


@cache
def shared_sail() -> str:
    """The address of a server of Sail that runs until the tests are over."""
    folder = _until_the_end(tempfile.TemporaryDirectory(prefix="custseg-sail-"))
    return _until_the_end(running_sail(Path(folder)))


def _until_the_end(opened: contextlib.AbstractContextManager[T]) -> T:
    return _STACK.enter_context(opened)


def spark_home() -> Path:
    """The folder of Spark itself, which the package of PySpark brings."""
    import pyspark

    return Path(pyspark.__file__).parent


@dataclass
class Cluster:
    """A standalone cluster: a master, and workers that start executors for whoever asks.

    Attributes:
        url: of the master.
        workers: processes of the workers.
    """

    url: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def executors(self) -> list[int]:
        """Ids of the executors' processes."""
        return [pid for worker in self.workers for pid in _children(worker.pid) if _runs(pid, _EXECUTOR)]

    def kill_executor(self) -> list[int]:
        """Kill one executor, if there is one, with a signal that cannot be caught; its worker starts another."""
        for pid in self.executors()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return [pid]
        return []


@contextlib.contextmanager
def running_cluster(folder: Path, n_workers: int = 2) -> Iterator[Cluster]:
    """A cluster with workers of one core and 600 MB each.

    Args:
        folder: for the processes' logs and work.
        n_workers: workers.
    """
    port = free_port()
    cluster = Cluster(f"spark://127.0.0.1:{port}")
    ports = ["--webui-port", "0"]
    master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port), *ports]
    worker = [
        "org.apache.spark.deploy.worker.Worker",
        "--host",
        "127.0.0.1",
        "--cores",
        "1",
        "--memory",
        "600m",
        *ports,
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(master, folder / "master"))
        wait_until(lambda: _listens(port), _SECONDS)
        for number in range(n_workers):
            place = folder / f"worker-{number}"
            work = ["--work-dir", str(place / "work"), cluster.url]
            cluster.workers.append(stack.enter_context(_running([*worker, *work], place)))
        yield cluster


@contextlib.contextmanager
def running_sail(folder: Path) -> Iterator[str]:
    """A server of Spark Connect that needs no Java; its address."""
    port = free_port()
    command = [sys.executable, "-m", "pysail", "spark", "server", "--ip", "127.0.0.1", "--port", str(port)]
    with _process(command, folder / "sail.log", os.environ):
        wait_until(lambda: _listens(port), _SECONDS)
        yield f"sc://127.0.0.1:{port}"


@contextlib.contextmanager
def _running(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A class of Spark in a Java process of its own, until the end of the block."""
    folder.mkdir(parents=True)
    (folder / "log4j2.properties").write_text(_QUIET, encoding="utf-8")
    environment = {
        **os.environ,
        **_OF_JAVA,
        "SPARK_HOME": str(spark_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": f"-Dlog4j2.configurationFile=file:{folder}/log4j2.properties",
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "PYSPARK_PYTHON": sys.executable,
    }
    program = str(spark_home() / "bin" / "spark-class")
    with _process([program, *command], folder / "log.txt", environment) as process:
        yield process


@contextlib.contextmanager
def _process(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and all that it starts, until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _children(pid: int) -> list[int]:
    """Ids of the processes that a process has started, from Linux's own files."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _runs(pid: int, name: str) -> bool:
    """Whether a process has a name on its command line; one that has ended has none."""
    with contextlib.suppress(OSError):
        return name in Path(f"/proc/{pid}/cmdline").read_text()
    return False


def _listens(port: int) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
