"""Serve for a long time while releases are swapped, workers killed and keys made and revoked; check every answer.

usage: python benchmarks/serving/soak.py [--minutes M] [--customers N]

Three workers, of which the youngest is killed again and again, so that the others grow as old as the run. Threads look
customers up, and every answer is compared with the release it names; a new key has to be known and a revoked one
refused within a second. Memory that processes have for themselves (``RssAnon``), open files and files of the home are
counted all the time. Exits 1 on an answer that is wrong or an error, on a key that counts too late, and where the last
quarter of the run needs more than the second. A connection that a killed worker had is no answer, and is counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from invented import make_release
from servers import RunningServer, service
from swaps import expected_answers, make_damaged_copy
from takeover import switch

from custseg_serving.keys import KeyFile

PORT = 18_485
WORKERS, ASKERS = 3, 4
SECONDS_BETWEEN_LOOKUPS = 0.01
KEY_SECONDS = 1.0
"""A new key is known, and a revoked one refused, within this time and that of one request."""
SWAP_EVERY, KEY_EVERY, KILL_EVERY, SAMPLE_EVERY = 2.0, 5.0, 15.0, 5.0
ALLOWED_GROWTH = 1.05

Expected = dict[str, dict[str, tuple[str, str, str]]]


class Sample(NamedTuple):
    """What the server had at one moment."""

    old_mib: float
    all_mib: float
    n_open_files: int
    n_home_files: int


class Asker(threading.Thread):
    """Thread that looks customers up until it is stopped, and counts the answers by their outcome."""

    def __init__(self, expected: Expected, token: str, is_over: threading.Event) -> None:
        super().__init__()
        self._expected, self._headers, self._is_over = expected, {"X-API-Key": token}, is_over
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """Look customers up, some on each connection."""
        customers = list(next(iter(self._expected.values())))
        while not self._is_over.is_set():
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)) as connection:
                try:
                    for _ in range(50):
                        self.outcomes[self._ask(connection, random.choice(customers))] += 1
                        time.sleep(SECONDS_BETWEEN_LOOKUPS)
                except (OSError, http.client.HTTPException):
                    self.outcomes["without an answer"] += 1

    def _ask(self, connection: http.client.HTTPConnection, customer: str) -> str:
        connection.request("GET", f"/v1/customers/{customer}/segment", headers=self._headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            return f"status {response.status}"
        answer = json.loads(body)
        found = answer["model_version"], answer["segment_id"], answer["recommendations"][0]["product_id"]
        is_right = answer["customer_id"] == customer and found == self._expected[answer["release_id"]][customer]
        return "right" if is_right else "wrong"


def seconds_until(status: int, token: str) -> float:
    """Seconds until no worker answers a key with another status, as far as ten requests in a row can tell."""
    started = last = time.monotonic()
    n_right = 0
    while n_right < 10 and time.monotonic() - started < 30:
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)) as connection:
                sent_at = time.monotonic()
                connection.request("GET", "/v1/segments", headers={"X-API-Key": token})
                is_right = connection.getresponse().status == status
        except (OSError, http.client.HTTPException):
            continue  # of a worker that was killed
        n_right = n_right + 1 if is_right else 0
        if not is_right:
            last = sent_at
    return last - started


class KeyChanger(threading.Thread):
    """Thread that makes and revokes keys, and measures how long until that counts."""

    def __init__(self, keys: KeyFile, is_over: threading.Event) -> None:
        super().__init__()
        self._keys, self._is_over = keys, is_over
        self.seconds: list[float] = []

    def run(self) -> None:
        """Make a key, use it, revoke it, use it again."""
        while not self._is_over.wait(KEY_EVERY):
            token = self._keys.create("soak", ["lookup"], 1_000)
            self.seconds.append(seconds_until(http.client.OK, token))
            self._keys.revoke(token.split("_")[1])
            self.seconds.append(seconds_until(http.client.UNAUTHORIZED, token))


def anonymous_mib(pid: str) -> float:
    """Memory that a process has for itself, in MiB; releases are in the page cache and not counted."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def sample(server: RunningServer, home: Path) -> Sample | None:
    """Measure the server; ``None`` while a worker ends or begins."""
    pids = [str(server.pid), *server.workers()]
    if len(pids) != 1 + WORKERS:
        return None
    try:
        mib = [anonymous_mib(pid) for pid in pids]
        n_open = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids[:WORKERS])  # noqa: PTH208 - one system call
    except (OSError, StopIteration):
        return None
    n_files = sum(len(files) for _, _, files in os.walk(home))
    return Sample(sum(mib[:WORKERS]), sum(mib), n_open, n_files)


def remove_finished(log: Path) -> int:
    """Take the finished files of the prediction log away, as the pipeline does; return the number of their records."""
    n_records = 0
    for path in log.glob("*.jsonl"):
        n_records += path.read_bytes().count(b"\n")
        path.unlink()
    return n_records


def disturb(
    server: RunningServer, home: Path, releases: list[str], seconds: float
) -> tuple[list[Sample], Counter[str]]:
    """Swap releases and kill workers for so long; return samples, and the number of each."""
    samples, done = list[Sample](), Counter[str]()
    due = {what: time.monotonic() + every for what, every in (("swap", SWAP_EVERY), ("kill", KILL_EVERY))}
    next_sample, until = time.monotonic() + SAMPLE_EVERY, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.1)
        now = time.monotonic()
        if now >= due["swap"]:
            switch(home / "releases", releases[done["swap"] % len(releases)])
            done["swap"] += 1
            due["swap"] = now + SWAP_EVERY
        if now >= due["kill"] and len(server.workers()) == WORKERS:
            os.kill(int(server.workers()[-1]), signal.SIGKILL)
            done["kill"] += 1
            due["kill"] = now + KILL_EVERY
        if now >= next_sample and (found := sample(server, home)):
            samples.append(found)
            done["record of the prediction log"] += remove_finished(home / "prediction_log")
            next_sample = now + SAMPLE_EVERY
    return samples, done


def is_level(samples: list[Sample]) -> bool:
    """Print what the second and the last quarter needed; whether the last needed no more, or hardly."""
    quarter = len(samples) // 4
    earlier, later = samples[quarter : 2 * quarter], samples[-quarter:]
    is_fine = True
    for name in Sample._fields:
        before, after = (statistics.median(getattr(one, name) for one in part) for part in (earlier, later))
        is_fine = is_fine and after <= before * ALLOWED_GROWTH
        print(f"{name}: {before:.1f} in the second quarter, {after:.1f} in the last")
    return is_fine


def main() -> int:
    """Serve, disturb, check, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--customers", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        root, keys = home / "releases", KeyFile(home / "keys.json")
        good = [make_release(root, options.customers, shop).release_id for shop in (1, 0)]
        bad = make_damaged_copy(root, good[0], 0)
        customers = [f"c{number:08d}" for number in range(0, options.customers, 97)]
        expected = {release_id: expected_answers(root, release_id, customers) for release_id in good}
        token = keys.create("askers", ["lookup"], 1_000_000)
        is_over = threading.Event()
        with service(home, PORT, WORKERS) as server:
            askers = [Asker(expected, token, is_over) for _ in range(ASKERS)]
            changer = KeyChanger(keys, is_over)
            for thread in (*askers, changer):
                thread.start()
            samples, done = disturb(server, home, [*good, bad], 60 * options.minutes)
            is_over.set()
            for thread in (*askers, changer):
                thread.join()
    outcomes = sum((asker.outcomes for asker in askers), Counter())
    print(f"{options.minutes:.0f} minutes: " + ", ".join(f"{n:,} {what}s" for what, n in done.items()))
    print("lookups: " + ", ".join(f"{n:,} {what}" for what, n in outcomes.items()))
    print(f"{len(changer.seconds)} changes of keys counted after {max(changer.seconds):.2f} s at most")
    is_right = set(outcomes) <= {"right", "without an answer"}
    return 0 if is_level(samples) and is_right and max(changer.seconds) <= KEY_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
