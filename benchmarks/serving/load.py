"""Lookups and scores a second beside a bare Flask route, and the service's memory and start.

usage: python benchmarks/serving/load.py [--customers N] [--seconds S] [--rounds R] [--folder DIR]

Needs wrk. Bare route and service take turns, so that a noisy machine is noisy for both; ratios are of the medians.

Workers race for new connections, of either server alike. Now and then one of two gets all 16, the other core has
nothing to do, and the rate falls to a third; less uneven shares cost less. That says nothing about an answer's cost, so
a round in which a worker got fewer than a quarter is broken off and taken again.
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
from servers import Running, bare, service

from custseg_assets.stores.releases import CURRENT
from custseg_serving.keys import SCOPES, KeyFile

HERE = Path(__file__).parent
CONNECTIONS = 16
FEWEST_CONNECTIONS, SECONDS_TO_CONNECT, MOST_TRIES = CONNECTIONS // 4, 0.5, 50
BARE_PORT, SERVICE_PORT = 18_481, 18_482
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Reading(NamedTuple):
    """One run of wrk: answers a second, the workers' CPU time for each, 99th percentile, answers that failed."""

    rate: float
    cpu_us: float
    p99_ms: float
    n_bad: int


def measure(server: Running, port: int, script: str, seconds: int, variables: dict[str, str]) -> Reading:
    """Run wrk until the workers share its connections.

    Args:
        server: what is measured.
        port: its port, on loopback.
        script: beside this file.
        seconds: how long.
        variables: what the script reads from its environment.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed; `apt-get install wrk` has it.")
    options = [f"-d{seconds}s", "--latency", "-s", str(HERE / script)]
    command = [wrk, "-t1", f"-c{CONNECTIONS}", *options, f"http://127.0.0.1:{port}"]
    for _ in range(MOST_TRIES):
        before = server.cpu_seconds_of_workers()
        running = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
        time.sleep(SECONDS_TO_CONNECT)
        if min(server.connections_of_workers()) >= FEWEST_CONNECTIONS:
            said = running.communicate()[0]
            if running.returncode:
                raise subprocess.CalledProcessError(running.returncode, command)
            return _reading(said, server.cpu_seconds_of_workers() - before)
        running.terminate()
        running.communicate()
    raise SystemExit(f"One worker got nearly all connections {MOST_TRIES} times in a row.")


def _reading(said: str, cpu_seconds: float) -> Reading:
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    n_answers = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Reading(rate, 1e6 * cpu_seconds / n_answers, float(p99) * _UNITS[unit], int(bad[1]) if bad else 0)


def typical_answer(port: int, token: str) -> bytes:
    """The bytes of one lookup, which the bare route returns as well."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/v1/customers/c00000007/segment", headers={"X-API-Key": token})
        return connection.getresponse().read()


def print_table(readings: dict[str, list[Reading]], server: Running, n_customers: int) -> None:
    """The medians, and their ratios to the bare route's."""
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
def _folder(given: str | None) -> Iterator[Path]:
    if given:
        yield Path(given)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def main() -> int:
    """Build the release where it is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", help="keep the release here for the next time")
    given = parser.parse_args()
    with _folder(given.folder) as home:
        if not (home / "releases" / CURRENT).exists():
            started = time.process_time()
            manifest = make_release(home / "releases", given.customers)
            size = manifest.files["customers.lmdb"].n_bytes / 1e6
            print(f"{manifest.release_id}: customers.lmdb {size:,.0f} MB, {time.process_time() - started:.0f} CPU s")
        token = KeyFile(home / "keys.json").create("benchmark", SCOPES, 1_000_000)
        variables = {"CUSTSEG_BENCH_CUSTOMERS": str(given.customers), "CUSTSEG_BENCH_KEY": token}
        readings: dict[str, list[Reading]] = {"bare Flask route": [], "lookup": [], "one-row score": []}
        with service(home, SERVICE_PORT) as server:
            body = home / "answer.json"
            body.write_bytes(typical_answer(SERVICE_PORT, token))
            with bare(body, BARE_PORT) as bare_server:
                for _ in range(given.rounds):
                    for name, measured, port, script in (
                        ("bare Flask route", bare_server, BARE_PORT, "lookup.lua"),
                        ("lookup", server, SERVICE_PORT, "lookup.lua"),
                        ("one-row score", server, SERVICE_PORT, "score.lua"),
                    ):
                        readings[name].append(measure(measured, port, script, given.seconds, variables))
            print_table(readings, server, given.customers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
