"""Measure lookups and scores a second beside a bare Flask route, and the service's memory and start.

usage: python benchmarks/serving/load.py [--customers N] [--seconds S] [--rounds R] [--folder DIR]

Needs wrk. Bare route and service take turns, so that noise of the machine affects both; ratios are of the medians.

Workers race for new connections, in both servers alike. Sometimes one of two workers gets all 16, the other core is
idle, and the rate falls to a third. That says nothing about the cost of an answer, so a round in which a worker got
fewer than a quarter of the connections is stopped and repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from invented import make_release
from servers import RunningServer, bare, service

from custseg_assets.stores.releases import CURRENT
from custseg_serving.keys import SCOPES, KeyFile

HERE = Path(__file__).parent
CONNECTIONS = 16
MIN_CONNECTIONS, SECONDS_TO_CONNECT, MAX_TRIES = CONNECTIONS // 4, 0.5, 50
BARE_PORT, SERVICE_PORT = 18_481, 18_482
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Reading(NamedTuple):
    """One run of wrk: answers a second, the workers' CPU time for each, 99th percentile, answers that failed.

    Where the script compares answers, wrong ones have failed as well.
    """

    rate: float
    cpu_us: float
    p99_ms: float
    n_bad: int


def measure(server: RunningServer, port: int, script: str, seconds: int, variables: dict[str, str]) -> Reading:
    """Run wrk until the workers share its connections.

    Args:
        server: the server to measure.
        port: its port, on loopback.
        script: name of wrk's script, in the folder of this file.
        seconds: duration.
        variables: environment of the script.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed; `apt-get install wrk` has it.")
    options = [f"-d{seconds}s", "--latency", "-s", str(HERE / script)]
    command = [wrk, "-t1", f"-c{CONNECTIONS}", *options, f"http://127.0.0.1:{port}"]
    for _ in range(MAX_TRIES):
        before = server.cpu_seconds_of_workers()
        running = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
        time.sleep(SECONDS_TO_CONNECT)
        if min(server.connections_of_workers()) >= MIN_CONNECTIONS:
            output = running.communicate()[0]
            if running.returncode:
                raise subprocess.CalledProcessError(running.returncode, command)
            return _reading(output, server.cpu_seconds_of_workers() - before)
        running.terminate()
        running.communicate()
    raise SystemExit(f"One worker got nearly all connections {MAX_TRIES} times in a row.")


def _reading(output: str, cpu_seconds: float) -> Reading:
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])  # type: ignore[index]
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", output).groups()  # type: ignore[union-attr]
    n_answers = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    bad = re.search(r"Wrong answers: (\d+)", output) or re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return Reading(rate, 1e6 * cpu_seconds / max(n_answers, 1), float(p99) * _UNITS[unit], int(bad[1]) if bad else 0)


def fetch_answer(port: int, token: str) -> bytes:
    """Fetch the answer of one lookup, which the bare route then returns."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/v1/customers/c00000007/segment", headers={"X-API-Key": token})
        return connection.getresponse().read()


def print_table(readings: dict[str, list[Reading]], server: RunningServer, n_customers: int) -> None:
    """Print the medians and their ratios to the bare route's."""
    base = _median(readings["bare Flask route"])
    print(f"\n{n_customers:,} customers, {CONNECTIONS} connections, medians of {len(readings['lookup'])} rounds")
    print(f"{'':20}{'req/s':>10}{'ratio':>8}{'CPU us':>10}{'ratio':>8}{'p99 ms':>10}{'ratio':>8}{'not 2xx':>9}")
    for name, runs in readings.items():
        typical = _median(runs)
        columns = [f"{name:20}"]
        for value, reference, digits in zip(typical[:3], base[:3], (0, 0, 1), strict=True):
            columns.append(f"{value:>10,.{digits}f}{value / reference:>8.2f}")
        print(*columns, f"{typical.n_bad:>9}", sep="")
    private = ", ".join(f"{mib:.0f}" for mib in server.private_mib_of_workers())
    print(f"start to ready {server.ready_seconds:.2f} s; private memory of the workers {private} MiB")


def _median(runs: list[Reading]) -> Reading:
    return Reading(
        statistics.median(run.rate for run in runs),
        statistics.median(run.cpu_us for run in runs),
        statistics.median(run.p99_ms for run in runs),
        sum(run.n_bad for run in runs),
    )


@contextlib.contextmanager
def _folder(path: str | None) -> Iterator[Path]:
    if path:
        yield Path(path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def main() -> int:
    """Write the release if it is missing, measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", help="folder for the release, which is kept for the next run")
    options = parser.parse_args()
    with _folder(options.folder) as home:
        if not (home / "releases" / CURRENT).exists():
            started = time.process_time()
            manifest = make_release(home / "releases", options.customers)
            size = manifest.files["customers.lmdb"].n_bytes / 1e6
            print(f"{manifest.release_id}: customers.lmdb {size:,.0f} MB, {time.process_time() - started:.0f} CPU s")
        token = KeyFile(home / "keys.json").create("benchmark", SCOPES, 1_000_000)
        variables = {"CUSTSEG_BENCH_CUSTOMERS": str(options.customers), "CUSTSEG_BENCH_KEY": token}
        readings: dict[str, list[Reading]] = {"bare Flask route": [], "lookup": [], "one-row score": []}
        with service(home, SERVICE_PORT) as server:
            body = home / "answer.json"
            body.write_bytes(fetch_answer(SERVICE_PORT, token))
            with bare(body, BARE_PORT) as bare_server:
                for _ in range(options.rounds):
                    for name, measured, port, script in (
                        ("bare Flask route", bare_server, BARE_PORT, "lookup.lua"),
                        ("lookup", server, SERVICE_PORT, "lookup.lua"),
                        ("one-row score", server, SERVICE_PORT, "score.lua"),
                    ):
                        readings[name].append(measure(measured, port, script, options.seconds, variables))
            print_table(readings, server, options.customers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
