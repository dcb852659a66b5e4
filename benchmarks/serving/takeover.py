"""Measure how long after a change of CURRENT any worker still answers from the release before, under load.

usage: python benchmarks/serving/takeover.py [--customers N] [--rounds R] [--folder DIR]

CURRENT changes in three ways: to a release that was written and verified before, as the pipeline does it; to a release
in the moment in which it appears; and back to an earlier one. Exits 1 on an error, on a wrong answer, and where the
first or the third takes longer than two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from invented import make_release
from servers import service
from swaps import copy_release, expected_answers

from custseg_assets.stores.releases import CURRENT, point_to

PORT = 18_484
ASKERS = 4
ALLOWED_SECONDS = 2.0
PATIENCE_SECONDS = 15.0
USUAL, AT_ONCE, BACK = "written, then pointed to", "pointed to at once", "pointed back to"

Expected = dict[str, dict[str, tuple[str, str, str]]]


class Asker(threading.Thread):
    """Thread that looks customers up until it is stopped, and records which release answered when."""

    def __init__(self, expected: Expected, is_over: threading.Event) -> None:
        super().__init__()
        self._expected, self._is_over = expected, is_over
        self.answers: list[tuple[float, str]] = []
        self.n_bad = 0

    def run(self) -> None:
        """Look customers up until the event is set."""
        customers = list(next(iter(self._expected.values())))
        while not self._is_over.is_set():
            # New connections now and then, or one worker might never get a request.
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT)) as connection:
                for _ in range(20):
                    self._ask(connection, random.choice(customers))

    def _ask(self, connection: http.client.HTTPConnection, customer: str) -> None:
        sent_at = time.monotonic()
        connection.request("GET", f"/v1/customers/{customer}/segment")
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != http.client.OK:
            self.n_bad += 1
            return
        found = answer["model_version"], answer["segment_id"], answer["recommendations"][0]["product_id"]
        self.n_bad += found != self._expected[answer["release_id"]][customer]
        self.answers.append((sent_at, answer["release_id"]))


def switch(root: Path, release_id: str) -> None:
    """Point to a release without verifying it."""
    temporary = root / f".{CURRENT}-next"
    temporary.write_text(release_id)
    temporary.replace(root / CURRENT)


def changed_at(root: Path) -> float:
    """Time of the last change of CURRENT, by the monotonic clock."""
    return time.monotonic() - (time.time() - (root / CURRENT).stat().st_ctime)


def seconds_to_take_over(askers: list[Asker], release_id: str, since: float) -> float:
    """Seconds to the last request that another release answered; waits until there is none for two seconds."""
    deadline = since + PATIENCE_SECONDS
    while True:
        late = [at for asker in askers for at, answered in asker.answers[:] if at > since and answered != release_id]
        last = max(late, default=since)
        if time.monotonic() > max(last, since) + 2.0 or time.monotonic() > deadline:
            return last - since
        time.sleep(0.1)


def main() -> int:
    """Change CURRENT in three ways, measure, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="folder with a release of as many customers, from an earlier run")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        home = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root, aside = home / "releases", home / "aside"
        first = (
            (root / CURRENT).read_text().strip() if root.exists() else make_release(root, options.customers).release_id
        )
        customers = [f"c{number:08d}" for number in range(0, options.customers, max(options.customers // 200, 1))]
        seconds_of: dict[str, list[float]] = {USUAL: [], AT_ONCE: [], BACK: []}
        expected = {first: expected_answers(root, first, customers)}
        shutil.rmtree(aside, ignore_errors=True)
        is_over = threading.Event()
        with service(home, PORT):
            askers = [Asker(expected, is_over) for _ in range(ASKERS)]
            for asker in askers:
                asker.start()
            for number in range(2 * options.rounds):
                new = copy_release(root, first, number, aside)
                expected[new] = expected[first]
                (aside / new).rename(root / new)
                way, point = (AT_ONCE, switch) if number % 2 else (USUAL, point_to)
                point(root, new)
                seconds_of[way].append(seconds_to_take_over(askers, new, changed_at(root)))
                switch(root, first)
                seconds_of[BACK].append(seconds_to_take_over(askers, first, changed_at(root)))
                shutil.rmtree(root / new)
            is_over.set()
            for asker in askers:
                asker.join()
        n_answers = sum(len(asker.answers) for asker in askers)
        n_bad = sum(asker.n_bad for asker in askers)
    for way, seconds in seconds_of.items():
        print(f"{way}: " + ", ".join(f"{one:.2f}" for one in seconds) + " s")
    print(f"{n_answers:,} answers, {n_bad} of them failed or wrong for their release")
    slowest = max(seconds_of[USUAL] + seconds_of[BACK])
    return 0 if n_bad == 0 and slowest <= ALLOWED_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
