"""Measure first pages of lists, what they cost in memory, and whether lookups keep their rate beside them.

usage: python benchmarks/serving/listing.py [--customers N] [--pages P] [--seconds S] [--rounds R] [--folder DIR]

Needs wrk. CPU is the workers' own, over so many requests of one page of 50 customers, another customer or amount each
time where the query has one. Lookups are measured in turns: alone, and while one page is asked for each second.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from invented import make_release
from load import measure
from servers import RunningServer, service

from custseg_assets.stores.releases import CURRENT
from custseg_serving.keys import SCOPES, KeyFile

PORT = 18_483
QUERIES: dict[str, Callable[[int], str]] = {
    "at risk, by value at stake": lambda _: "at_risk=true",
    "everybody": lambda _: "",
    "one segment": lambda number: f"segment=S{number % 4 + 1}",
    "who left Champions": lambda _: "moved_from=S1&sort=spend_change",
    "part of an id, few": lambda number: f"contains={4_000_000 + 37 * number}",
    "part of an id, many": lambda number: f"contains={number % 10}&sort=customer_id",
    "little spend, largest first": lambda number: f"max_spend={5 + number / 10}&sort=-monetary_net",
    "everything at once": lambda number: (
        f"segment=S2&moved=true&cause=behaviour&at_risk=true&contains={number % 10}&min_spend=10&max_spend=5000"
        "&min_orders=1&max_orders=30&min_recency_days=1&max_recency_days=180&sort=-recency_days"
    ),
}


def ask(connection: http.client.HTTPConnection, query: str, token: str) -> int:
    """Ask for a page; return how many customers fit.

    Raises:
        RuntimeError: it was not answered.
    """
    connection.request("GET", f"/v1/customers?{query}", headers={"X-API-Key": token})
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        raise RuntimeError(f"{query}: {response.status} {content[:500]!r}")
    return int(json.loads(content)["n_customers"])


def connect() -> contextlib.closing[http.client.HTTPConnection]:
    """A connection to the service, closed by its context."""
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT))


def cost_of_pages(server: RunningServer, query: Callable[[int], str], n_pages: int, token: str) -> tuple[float, int]:
    """CPU milliseconds of a page, and how many customers fit the last one."""
    before, n_customers = server.cpu_seconds_of_workers(), 0
    for number in range(n_pages):
        # A connection each, so that both workers get some.
        with connect() as connection:
            n_customers = ask(connection, query(number), token)
    return 1000 * (server.cpu_seconds_of_workers() - before) / n_pages, n_customers


def memory_of(server: RunningServer) -> str:
    """Memory of each worker in words: its own, and with the pages of files that it alone has mapped."""
    own, unique = server.private_mib_of_workers(), server.unique_mib_of_workers()
    pairs = (f"{one:.0f} MiB ({whole:.0f} with pages of files)" for one, whole in zip(own, unique, strict=True))
    return ", ".join(pairs)


class Lister(threading.Thread):
    """Asks for a page each second until it is stopped."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token, self._is_over = token, threading.Event()

    def run(self) -> None:
        """Ask, one query after the other."""
        number = 0
        while not self._is_over.wait(1.0):
            with connect() as connection:
                ask(connection, list(QUERIES.values())[number % len(QUERIES)](number), self._token)
            number += 1

    def stop(self) -> None:
        """Stop asking."""
        self._is_over.set()
        self.join()


def main() -> int:
    """Write the release if it is missing, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5_000_000)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="folder for the release, which is kept for the next run")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        home = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (home / "releases" / CURRENT).exists():
            make_release(home / "releases", options.customers)
        token = KeyFile(home / "keys.json").create("benchmark", SCOPES, 1_000_000)
        variables = {"CUSTSEG_BENCH_CUSTOMERS": str(options.customers), "CUSTSEG_BENCH_KEY": token}
        server = stack.enter_context(service(home, PORT))

        def lookups() -> float:
            return measure(server, PORT, "lookup.lua", options.seconds, variables).rate

        lookups()
        memory = [memory_of(server)]
        print(f"{options.customers:,} customers\n{'first page of 50':32}{'CPU ms':>8}{'of':>12}")
        for name, query in QUERIES.items():
            cost, n_customers = cost_of_pages(server, query, options.pages, token)
            print(f"{name:32}{cost:>8.1f}{n_customers:>12,}", flush=True)
        memory.append(memory_of(server))
        rates: dict[str, list[float]] = {"lookups": [], "lookups, a page each second": []}
        for _ in range(options.rounds):
            rates["lookups"].append(lookups())
            lister = Lister(token)
            lister.start()
            rates["lookups, a page each second"].append(lookups())
            lister.stop()
        for name, found in rates.items():
            print(f"{name:32}{statistics.median(found):>8,.0f} a second")
        memory.append(memory_of(server))
        for when, words in zip(("lookups only", "pages asked for", "the end"), memory, strict=True):
            print(f"after {when:20}{words}")
    return 0


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(status)
