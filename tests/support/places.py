"""Tables in a bucket of the fake of Cloud Storage."""

from __future__ import annotations

from pathlib import Path

from custseg_assets.stores.bucket_tables import TablesInBucket
from tests.support.fakes.gcs import FakeGcs

URI = "gs://shop-data/home"


def tables_on(gcs: FakeGcs, notes: Path) -> TablesInBucket:
    """The tables there, as a process of its own opens them."""
    return TablesInBucket(f"{URI}/tables", gcs.url, notes)
