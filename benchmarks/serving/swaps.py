"""Swap releases under load, and check every answer against the release it names.

usage: python benchmarks/serving/swaps.py [--swaps N] [--seconds S] [--customers N]

``CURRENT`` names two good and two damaged releases in turn while threads look customers up. Exits 1 on any answer that
is an error, that is wrong for its release, or that comes from a damaged release.
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
from collections import Counter
from pathlib import Path

from invented import make_release
from servers import service

from custseg_assets.stores.releases import CURRENT, CUSTOMERS, MANIFEST, open_release, release_id_of

PORT = 18_483
ASKERS = 8


def copy_release(root: Path, release_id: str, number: int, to: Path) -> str:
    """Copy a release under another id; return the id."""
    fields = json.loads((root / release_id / MANIFEST).read_text())
    fields["metrics"] = {"copy": float(number)}
    copy = release_id_of(fields)
    shutil.copytree(root / release_id, to / copy, dirs_exist_ok=True)
    (to / copy / MANIFEST).write_text(json.dumps({**fields, "release_id": copy}))
    return copy


def make_damaged_copy(root: Path, release_id: str, number: int) -> str:
    """Copy a release and damage its customers; return the id."""
    copy = copy_release(root, release_id, number, root)
    content = bytearray((root / copy / CUSTOMERS).read_bytes())
    content[len(content) // 2] ^= 1
    (root / copy / CUSTOMERS).write_bytes(content)
    return copy


def expected_answers(root: Path, release_id: str, customers: list[str]) -> dict[str, tuple[str, str, str]]:
    """Model version, segment and first product of some customers, read from the release itself."""
    release = open_release(root, release_id)
    standings = {customer: release.record_of(customer) or {} for customer in customers}
    return {
        customer: (release.model.model_version, standing["segment_id"], standing["products"][0])
        for customer, standing in standings.items()
    }


class Asker(threading.Thread):
    """Thread that looks customers up until it is stopped, and counts the answers by their outcome."""

    def __init__(self, expected: dict[str, dict[str, tuple[str, str, str]]], is_over: threading.Event) -> None:
        super().__init__()
        self._expected, self._is_over = expected, is_over
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """Look customers up until the event is set."""
        customers = list(next(iter(self._expected.values())))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT)) as connection:
            while not self._is_over.is_set():
                customer = random.choice(customers)
                connection.request("GET", f"/v1/customers/{customer}/segment")
                response = connection.getresponse()
                body = response.read()
                self.outcomes[self._outcome(response.status, customer, body)] += 1

    def _outcome(self, status: int, customer: str, body: bytes) -> str:
        if status != http.client.OK:
            return f"status {status}"
        answer = json.loads(body)
        expected = self._expected.get(answer["release_id"])
        if expected is None:
            return "from a damaged release"
        found = answer["model_version"], answer["segment_id"], answer["recommendations"][0]["product_id"]
        return "right" if found == expected[customer] else "wrong or mixed"


def main() -> int:
    """Swap releases, check the answers, and print how many had which outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--customers", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "releases"
        good = [make_release(root, options.customers, shop).release_id for shop in (1, 0)]
        bad = [make_damaged_copy(root, good[0], number) for number in range(2)]
        customers = [f"c{number:08d}" for number in range(0, options.customers, 97)]
        expected = {release_id: expected_answers(root, release_id, customers) for release_id in good}
        is_over = threading.Event()
        with service(Path(folder), PORT):
            askers = [Asker(expected, is_over) for _ in range(ASKERS)]
            for asker in askers:
                asker.start()
            turn = [good[0], bad[0], good[1], bad[1]]
            for number in range(options.swaps):
                temporary = root / f".{CURRENT}-next"
                temporary.write_text(turn[number % len(turn)])
                temporary.replace(root / CURRENT)
                time.sleep(options.seconds / options.swaps)
            is_over.set()
            for asker in askers:
                asker.join()
    outcomes = sum((asker.outcomes for asker in askers), Counter())
    print(
        f"{options.swaps} swaps in {options.seconds:.0f} s: "
        + ", ".join(f"{n:,} {what}" for what, n in outcomes.items())
    )
    return 0 if set(outcomes) == {"right"} else 1


if __name__ == "__main__":
    sys.exit(main())
