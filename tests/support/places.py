"""Where the tests' homes have their parts in Google Cloud: bucket and project of the fakes, and settings for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from custseg_assets.stores.bucket_tables import TablesInBucket
from tests.support.fakes.gcs import FakeGcs
from tests.support.shops import QUICK

URI = "gs://shop-data/home"
PLACE = {"project": "shop", "location": "europe-west1", "bucket": "shop-data"}
"""Keys of ``[gcp]`` that name the fakes' project, region and bucket."""


def tables_on(gcs: FakeGcs, notes: Path) -> TablesInBucket:
    """The tables in the fake's bucket, opened as a process of its own opens them."""
    return TablesInBucket(f"{URI}/tables", gcs.url, notes)


def cloud_config(more: str = "", **gcp: object) -> str:
    """Text of ``custseg.toml`` for a small shop with Google Cloud.

    Args:
        more: other sections.
        gcp: keys of ``[gcp]``; a mapping is a section of its own, such as ``storage={"uri": URI}``.
    """
    sections = {f"gcp.{name}": value for name, value in gcp.items() if isinstance(value, Mapping)}
    keys = {name: value for name, value in gcp.items() if not isinstance(value, Mapping)}
    lines = [QUICK, more]
    for section, values in {"gcp": keys, **sections}.items():
        # JSON's strings, numbers and booleans are TOML's, too.
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())] if values else []
    return "\n".join([*lines, ""])
