"""Starting and stopping what is measured."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WORKERS, THREADS = 2, 4
START_SECONDS = 120


@dataclass(frozen=True)
class Running:
    """A server that answers; ``ready_seconds`` after its process was started."""

    pid: int
    ready_seconds: float

    def cpu_seconds_of_workers(self) -> float:
        """What all workers have used so far."""
        ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in self._workers()]
        return sum(int(one) for pair in ticks for one in pair) / os.sysconf("SC_CLK_TCK")

    def private_mib_of_workers(self) -> list[float]:
        """Memory of each worker that is its own, in MiB; pages of the release are the system's, and can be dropped."""
        return [_private_kib(pid) / 1024 for pid in self._workers()]

    def connections_of_workers(self) -> list[int]:
        """How many connections each worker holds, the socket it listens on not counted."""
        return [sum(_is_socket(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()) - 1 for pid in self._workers()]

    def _workers(self) -> list[str]:
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()


def _is_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False  # closed meanwhile


def _private_kib(pid: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def service(home: Path, port: int) -> contextlib.AbstractContextManager[Running]:
    """The service, as the command starts it."""
    command = ["-m", "custseg_serving.cli", "--home", str(home), "--port", str(port)]
    options = ["--workers", str(WORKERS), "--threads", str(THREADS)]
    return _running([*command, *options], port, "/readyz", {})


def bare(body: Path, port: int) -> contextlib.AbstractContextManager[Running]:
    """The bare Flask route under the same gunicorn settings."""
    command = ["-m", "gunicorn", "bare:app", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
    options = ["--workers", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "5", "--log-level", "error"]
    folder = ["--chdir", str(Path(__file__).parent), "--no-control-socket"]
    return _running([*command, *options, *folder], port, "/v1/customers/x/segment", {"CUSTSEG_BENCH_BODY": str(body)})


@contextlib.contextmanager
def _running(arguments: Sequence[str], port: int, path: str, more: Mapping[str, str]) -> Iterator[Running]:
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **more},
        stderr=subprocess.DEVNULL,
    )
    try:
        while status_of(port, path) != http.client.OK:
            if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise RuntimeError(f"{' '.join(arguments)} does not answer")
            time.sleep(0.02)
        yield Running(process.pid, time.monotonic() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def status_of(port: int, path: str) -> int | None:
    """Status of an answer; ``None`` where nobody listens."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status
    except OSError:
        return None
