"""Measure lookups while clients attack the service, or while its disk is full or cannot be written; check every answer.

usage: python benchmarks/serving/hostile.py [--customers N] [--seconds S] [--rounds R] [--only WORD]

Needs wrk; the troubles of disks need Linux and root, for a mount namespace of their own, and are left out elsewhere.
Every attack takes turns with no attack, and with a process that burns as much CPU time as the attackers did without
talking to the service: here they have the cores that the service needs, which attackers from outside do not. Exits 1
where lookups with a key have less than half of the rate they have beside that process, or any answer is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

from invented import make_release
from load import Reading, measure
from servers import REPOSITORY, RunningServer, service

from custseg_assets.stores.releases import CURRENT, open_release
from custseg_serving.api import OPERATIONS
from custseg_serving.keys import SCOPES, KeyFile

HERE = Path(__file__).parent
PORT, TROUBLED_PORT = 18_486, 18_487
DEMANDED = 0.5
CONNECTIONS = 8
DISK_MIB = 256
PUBLIC = ("/", "/customers", "/static/dashboard.js", "/docs", "/docs/swagger-ui-bundle.js", "/openapi.json", "/login/x")
UNKNOWN = ("/v1/customerz/x/segmentt", "/.env")

_FORK = multiprocessing.get_context("fork")

CpuSeconds = Callable[[], float]
"""CPU time of attackers so far."""
Attack = Callable[[], contextlib.AbstractContextManager[CpuSeconds]]


class Turns(NamedTuple):
    """Readings of one attack: without it, during it, and beside a process as hungry."""

    alone: list[Reading]
    attacked: list[Reading]
    beside: list[Reading]

    def rate(self, which: str) -> float:
        """Median of the answers a second."""
        return statistics.median(one.rate for one in getattr(self, which))

    @property
    def n_bad(self) -> int:
        """Answers that failed or were wrong."""
        return sum(one.n_bad for part in self for one in part)

    @property
    def ratio(self) -> float:
        """Rate under attack as a share of the rate beside a process as hungry."""
        return self.rate("attacked") / self.rate("beside")


def cpu_seconds_of(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(one) for one in fields[11:13]) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(process: multiprocessing.process.BaseProcess) -> Iterator[CpuSeconds]:
    """Run a process of this program, and end it."""
    process.start()
    pid = process.pid or 0
    try:
        yield lambda: cpu_seconds_of(pid)
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def held(n_connections: int, seconds_per_byte: float | None) -> Iterator[CpuSeconds]:
    """Hold connections open, idle or with a byte of a request now and then; what the service closes is opened again."""
    is_ready = _FORK.Event()
    with running(_FORK.Process(target=_hold, args=(n_connections, seconds_per_byte, is_ready))) as cpu_seconds:
        is_ready.wait()
        yield cpu_seconds


def _hold(n_connections: int, seconds_per_byte: float | None, is_ready: Event) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, n_connections + 1_000), hard))
    request = b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    connections = [_connect() for _ in range(n_connections)]
    is_ready.set()
    n_sent = 0
    while True:
        time.sleep(seconds_per_byte or 1.0)
        for number, connection in enumerate(connections):
            try:
                if seconds_per_byte is not None:
                    connection.send((request + b"x" * 1_000)[n_sent % 1_000 :][:1])
                is_closed = connection.recv(4_096) == b""
            except BlockingIOError:
                is_closed = False
            except OSError:
                is_closed = True
            if is_closed:
                connection.close()
                connections[number] = _connect()
        n_sent += 1


def _connect() -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", PORT))
    connection.setblocking(False)
    return connection


@contextlib.contextmanager
def wrk(script: str, variables: dict[str, str], *options: str) -> Iterator[CpuSeconds]:
    """Run wrk with several connections, as fast as it gets answers."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d1h", *options, "-s", str(HERE / script), f"http://127.0.0.1:{PORT}"]
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield lambda: cpu_seconds_of(process.pid)
    finally:
        process.kill()
        process.wait()


def burner(share: float) -> contextlib.AbstractContextManager[CpuSeconds]:
    """Burn a share of a core, or more than one."""
    return running(_FORK.Process(target=_burn, args=(share,)))


def _burn(share: float) -> None:
    whole, rest = divmod(share, 1.0)
    for _ in range(int(whole)):
        _FORK.Process(target=_burn_one, args=(1.0,), daemon=True).start()
    _burn_one(rest)


def _burn_one(share: float) -> None:
    while True:
        until = time.thread_time() + 0.01 * share
        while time.thread_time() < until:
            pass
        time.sleep(0.01 * (1 - share))


def requests_without_key() -> str:
    """Every route, some pages, and paths that there are not, as ``flood.lua`` reads them."""
    routes = [f"{one.method}:{re.sub('{.*?}', 'S1', one.path)}" for one in OPERATIONS]
    return " ".join([*routes, "POST:/login", *(f"GET:{path}" for path in (*PUBLIC, *UNKNOWN))])


def hostile_body(n_bytes: int) -> bytes:
    """A batch of this size at most in which every field is wrong, as costly to refuse as any."""
    row = b"{" + b",".join(b'"f%05d_%s":1' % (number, b"x" * 36) for number in range(38)) + b"}"
    return b'{"customers":[' + b",".join([row] * (n_bytes // (len(row) + 1) - 1)) + b"]}"


def attacks(folder: Path, keys: KeyFile) -> dict[str, Attack]:
    """The attacks of clients, by name."""
    body = folder / "hostile.json"
    body.write_bytes(hostile_body(2 << 20))
    small = folder / "small.json"
    small.write_bytes(hostile_body(64 << 10))
    token = keys.create("attacker", ["lookup", "score"], 1_000)
    flood = {"CUSTSEG_BENCH_REQUESTS": requests_without_key()}
    dearest = {"CUSTSEG_BENCH_REQUESTS": "GET:/docs/swagger-ui-bundle.js"}

    def batches(content: Path, key: str) -> Attack:
        return lambda: wrk("batch.lua", {"CUSTSEG_BENCH_BODY": str(content), "CUSTSEG_BENCH_KEY": key})

    return {
        "64 connections, a byte every 2 s": lambda: held(64, 2.0),
        "2,000 idle connections": lambda: held(2_000, None),
        "flood without a key, every route": lambda: wrk("flood.lua", flood),
        "flood with a wrong key, every route": lambda: wrk("flood.lua", flood, "-H", "X-API-Key: csk_0123456789ab_x"),
        "flood without a key, the largest file": lambda: wrk("flood.lua", dearest),
        "8 batches of 2 MiB without a key": batches(body, ""),
        "8 batches of 2 MiB with a key": batches(body, token),
        "8 batches of 64 KiB with a key": batches(small, token),
    }


_IN_NAMESPACE = {
    "no room in /tmp": "mount -t tmpfs -o size=1m tmpfs /tmp; head -c 2M /dev/zero >/tmp/full 2>/dev/null || true",
    "home cannot be written": 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"',
    "disk is full": f"""mount -t tmpfs -o size={DISK_MIB}m tmpfs /mnt; cp -a "$0/releases" "$0/keys.json" /mnt;
        mount --move /mnt "$0"; head -c 1G /dev/zero >"$0/full" 2>/dev/null || true""",
}
"""Commands that make a trouble for the process that they become; ``$0`` is the home."""


def troubled_by(trouble: str, home: Path) -> list[str]:
    """The start of a command that runs the rest of it in that trouble, in a mount namespace of its own."""
    return ["unshare", "--mount", "sh", "-c", f'set -e; {_IN_NAMESPACE[trouble]}; exec "$@"', str(home)]


def why_no_troubles() -> str | None:
    """Why disks cannot be filled here; ``None`` where they can."""
    if REPOSITORY.is_relative_to("/tmp"):  # noqa: S108 - where everything is hidden then
        return "this repository is in /tmp"
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--mount", "true"], check=False).returncode:
        return "that needs Linux and root"
    return None


def take_turns(
    rounds: int, alone: Callable[[], Reading], attacked: Callable[[], Reading], attack: Attack
) -> tuple[Turns, float]:
    """Measure in turns; return the readings, and the share of a core that attackers had."""
    turns, shares = Turns([], [], []), list[float]()
    for _ in range(rounds):
        turns.alone.append(alone())
        with attack() as cpu_seconds:
            before, started = cpu_seconds(), time.monotonic()
            turns.attacked.append(attacked())
            shares.append((cpu_seconds() - before) / (time.monotonic() - started))
        with burner(shares[-1]) if shares[-1] > 0.01 else contextlib.nullcontext():
            turns.beside.append(alone())
    return turns, statistics.median(shares)


def print_row(name: str, turns: Turns, share: float) -> bool:
    """Print what was measured; whether it is what is demanded."""
    is_fine = turns.ratio >= DEMANDED and turns.n_bad == 0
    against_alone = turns.rate("attacked") / turns.rate("alone")
    rates = "".join(f" {turns.rate(which):,.0f} |" for which in Turns._fields)
    end = "" if is_fine else " **too little**"
    print(f"| {name} |{rates} {share:.2f} | {against_alone:.2f} | {turns.ratio:.2f} | {turns.n_bad} |{end}", flush=True)
    return is_fine


@contextlib.contextmanager
def no_attackers() -> Iterator[CpuSeconds]:
    """Nobody attacks."""
    yield lambda: 0.0


def write_answers(home: Path, n_customers: int) -> Path:
    """Write what the release answers for each customer, as ``checked.lua`` reads it."""
    release = open_release(home / "releases", (home / "releases" / CURRENT).read_text().strip())
    path, version = home / "answers.txt", release.model.model_version
    with path.open("w") as file:
        for customer in (f"c{number:08d}" for number in range(n_customers)):
            record = release.record_of(customer) or {}
            file.write(f"{customer} {version} {record['segment_id']} {record['products'][0]}\n")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack, measure, and print a row for each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="WORD", help="only attacks and troubles with this in their names")
    options = parser.parse_args(arguments)
    fine = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        home = Path(folder)
        make_release(home / "releases", options.customers)
        keys = KeyFile(home / "keys.json")
        variables = {
            "CUSTSEG_BENCH_CUSTOMERS": str(options.customers),
            "CUSTSEG_BENCH_KEY": keys.create("customer", SCOPES, 1_000_000),
            "CUSTSEG_BENCH_ANSWERS": str(write_answers(home, options.customers)),
        }

        def lookups(server: RunningServer, port: int) -> Callable[[], Reading]:
            return lambda: measure(server, port, "checked.lua", options.seconds, variables)

        print("| | alone | attacked | beside as hungry | attackers' cores | of alone | of beside | wrong |")
        print("|---|---|---|---|---|---|---|---|")
        by_clients = attacks(home, keys)
        with service(home, PORT) as server:
            lookups(server, PORT)()
            for name, attack in by_clients.items():
                if options.only in name:
                    both = lookups(server, PORT)
                    fine.append(print_row(name, *take_turns(options.rounds, both, both, attack)))
            reason = why_no_troubles()
            for name in _IN_NAMESPACE:
                if reason:
                    print(f"{name}: left out, {reason}")
                elif options.only in name:
                    with service(home, TROUBLED_PORT, before=troubled_by(name, home)) as troubled:
                        alone, attacked = lookups(server, PORT), lookups(troubled, TROUBLED_PORT)
                        fine.append(print_row(name, *take_turns(options.rounds, alone, attacked, no_attackers)))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
