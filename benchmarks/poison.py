"""Thousands of corrupted files in the landing zone: none may stop the intake or take a sound neighbour with it.

``python -m benchmarks.poison [--files 3000] [--seed 1]``: csv, gz, zip, xlsx and parquet files, with bytes flipped, cut
off, zeroed, doubled or inserted, dropped in batches beside one sound file each. What a corrupted file still says is
not judged here: a digit that was flipped is another digit.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import xlsxwriter

from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource
from custseg_assets.stores.landing_zone import LandingZone, classify_files

HEADER = ("customer_id", "invoiced_at", "line_amount")
N_LINES = 200
BATCH = 100


def main() -> None:
    """Run it, and end with 1 where an intake stopped or a neighbour was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, outcomes, n_lost, n_stopped = random.Random(options.seed), Counter[str](), 0, 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "landing"
        folder.mkdir()
        store = DeliveryStore(Path(name) / "deliveries")
        zone = LandingZone(folder, store)
        for first in range(0, options.files, BATCH):
            for number in range(first, min(first + BATCH, options.files)):
                ending = chance.choice(sorted(SOUND))
                (folder / f"{number:05}.{ending}").write_bytes(corrupt(SOUND[ending](number), chance))
            neighbour = f"neighbour_{first}.csv"
            (folder / neighbour).write_bytes(as_csv(100_000 + first))
            try:
                read = zone.read(zone.waiting(time.time(), 0).files, SourceSettings())
                taken = classify_files(read, store.current() or CurrentSource(), time.time())
                zone.adopt(taken)
            except Exception as error:  # noqa: BLE001
                n_stopped += 1
                print(f"stopped at {first}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            outcomes.update(arrival.outcome for arrival in taken.arrivals if arrival.file.name != neighbour)
            n_lost += neighbour not in taken.new
            done = first + len(taken.arrivals) - 1
            print(f"{done:,} of {options.files:,} files, {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(f"{options.files:,} corrupted files: {dict(outcomes)}; {n_stopped} intakes stopped, {n_lost} neighbours lost")
    sys.exit(1 if n_stopped or n_lost else 0)


def rows_of(number: int) -> list[tuple[str, str, float]]:
    """The lines of a file, other ones for every number."""
    return [(str(i), f"2011-05-{1 + i % 28:02} 10:{number % 60:02}", float(number + i)) for i in range(N_LINES)]


def as_csv(number: int) -> bytes:
    """A csv file."""
    return "\n".join([",".join(HEADER), *(f"{a},{b},{c}" for a, b, c in rows_of(number)), ""]).encode()


def as_zip(number: int) -> bytes:
    """A zip with a csv file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", as_csv(number))
    return content.getvalue()


def as_workbook(number: int) -> bytes:
    """An Excel workbook."""
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        for at, row in enumerate([HEADER, *rows_of(number)]):
            sheet.write_row(at, 0, row)
    return content.getvalue()


def as_parquet(number: int) -> bytes:
    """A parquet file."""
    content = io.BytesIO()
    pl.DataFrame(rows_of(number), schema=list(HEADER), orient="row").write_parquet(content)
    return content.getvalue()


SOUND: dict[str, Callable[[int], bytes]] = {
    "csv": as_csv,
    "csv.gz": lambda number: gzip.compress(as_csv(number)),
    "zip": as_zip,
    "xlsx": as_workbook,
    "parquet": as_parquet,
}


def corrupt(content: bytes, chance: random.Random) -> bytes:
    """The same with some damage."""
    at = chance.randrange(len(content))
    end = min(len(content), at + chance.choice([1, 8, 64, 1024]))
    noise = chance.randbytes(end - at)
    return chance.choice(
        [
            content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :],
            content[:at],
            content[:at] + bytes(end - at) + content[end:],
            content[:at] + noise + content[end:],
            content[:at] + noise + content[at:],
            content[:end] + content[at:],
            content[:at] + content[end:],
        ]
    )


if __name__ == "__main__":
    main()
