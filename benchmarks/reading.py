"""What reading a log costs, and how much of it is counting its records and looking for doubts about the whole of it.

``python benchmarks/reading.py online_retail.csv.gz`` reads the file by turns as it is and with a counter that counts
nothing, and prints the medians of the CPU seconds. Reading is what ``open_source`` does, without keeping the lines.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from custseg_assets.home.log_doubts import find_log_doubts
from custseg_assets.settings import Settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.raw_table import RawTable
from custseg_assets.stores.records import RecordCounter
from custseg_assets.stores.sources import open_source


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a csv, plain or gz, of a known export")
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    settings = Settings()
    read(arguments.source, settings)
    whole, without = [], []
    for _ in range(arguments.pairs):
        whole.append(cpu_seconds(lambda: read(arguments.source, settings)))
        with mock.patch.multiple(RecordCounter, feed=lambda *_: None, finish=lambda _: None, create=True):
            without.append(cpu_seconds(lambda: read(arguments.source, settings, expects_records=False)))
    shares = [1 - less / more for more, less in zip(whole, without, strict=True)]
    print(f"reading {statistics.median(whole):.2f} CPU s, of which counting {statistics.median(shares):.1%}")
    with tempfile.TemporaryDirectory() as folder:
        store = DeliveryStore(Path(folder) / "deliveries")
        deliveries = [store.accept(arguments.source, settings.source, progress=lambda _: None)]
        looks = [cpu_seconds(lambda: find_log_doubts(store, deliveries, settings)) for _ in range(arguments.pairs)]
    print(f"looking for doubts {statistics.median(looks):.2f} CPU s")


def read(path: Path, settings: Settings, *, expects_records: bool = True) -> None:
    """Read a file's lines into memory."""
    number = RawTable.load if expects_records else _load_uncounted(RawTable.load)
    with (
        mock.patch.object(RawTable, "load", number),
        open_source(path, settings.source, progress=lambda _: None) as source,
    ):
        source.lines.collect()


def _load_uncounted(load: Callable[..., object]) -> Callable[..., object]:
    """Loading that does not hold rows against records."""

    def loaded(table: object, *arguments: object) -> object:
        vars(table)["n_records"] = None
        return load(table, *arguments)

    return loaded


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of all threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
