"""Start and stop the servers that the benchmarks measure."""

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
class RunningServer:
    """A server that is ready; it took ``ready_seconds`` from the start of its process."""

    pid: int
    ready_seconds: float

    def cpu_seconds_of_workers(self) -> float:
        """CPU time of all workers so far."""
        ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in self.workers()]
        return sum(int(one) for pair in ticks for one in pair) / os.sysconf("SC_CLK_TCK")

    def private_mib_of_workers(self) -> list[float]:
        """Private memory of each worker in MiB; the release is in the page cache and not counted."""
        return [_kib(pid, "Private_Dirty:") / 1024 for pid in self.workers()]

    def unique_mib_of_workers(self) -> list[float]:
        """Memory that only this worker has, in MiB, with its pages of files (USS)."""
        return [_kib(pid, "Private_Dirty:", "Private_Clean:") / 1024 for pid in self.workers()]

    def connections_of_workers(self) -> list[int]:
        """Number of open connections of each worker, without the socket it listens on."""
        return [sum(_is_socket(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()) - 1 for pid in self.workers()]

    def workers(self) -> list[str]:
        """Process ids of the workers, in the order in which they were started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        # The kernel's list may be incomplete, even empty, at the moment when one of them is started or ends.
        while not (found := children.read_text().split()):
            time.sleep(0.01)
        return found


def _is_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False  # closed meanwhile


def _kib(pid: str, *kinds: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds))


def service(
    home: Path, port: int, workers: int = WORKERS, before: Sequence[str] = ()
) -> contextlib.AbstractContextManager[RunningServer]:
    """Run the service as the command ``custseg-serving`` does.

    Args:
        home: of the service.
        port: on loopback.
        workers: number of processes.
        before: command that starts the service as its last argument, in the same process.
    """
    command = ["-m", "custseg_serving.cli", "--home", str(home), "--port", str(port)]
    options = ["--workers", str(workers), "--threads", str(THREADS)]
    access = [] if (home / "keys.json").exists() else ["--open"]
    return _run([*before, sys.executable, *command, *options, *access], port, "/readyz", {})


def bare(body: Path, port: int) -> contextlib.AbstractContextManager[RunningServer]:
    """Run the bare Flask route with the same gunicorn settings."""
    command = [sys.executable, "-m", "gunicorn", "bare:app", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
    options = ["--workers", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "5", "--log-level", "error"]
    folder = ["--chdir", str(Path(__file__).parent), "--no-control-socket"]
    return _run([*command, *options, *folder], port, "/v1/customers/x/segment", {"CUSTSEG_BENCH_BODY": str(body)})


@contextlib.contextmanager
def _run(arguments: Sequence[str], port: int, path: str, more: Mapping[str, str]) -> Iterator[RunningServer]:
    started = time.monotonic()
    process = subprocess.Popen(
        arguments,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **more},
        stderr=subprocess.DEVNULL,
    )
    try:
        while status_of(port, path) != http.client.OK:
            if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise RuntimeError(f"{' '.join(arguments)} does not answer")
            time.sleep(0.02)
        yield RunningServer(process.pid, time.monotonic() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def status_of(port: int, path: str) -> int | None:
    """Status of the answer to a request; ``None`` where no server listens."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status
    except OSError:
        return None
