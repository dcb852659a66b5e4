"""Making partitions: which data version Dagster is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import dagster as dg

from custseg_assets.defs.materialise import _data_version

SNAPSHOTS = ["2024-02-01", "2024-03-01"]


def test_a_partition_made_again_from_the_same_keeps_its_data_version() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        context: Any = SimpleNamespace(instance=instance)
        first = _data_version(context, "profiles", {"2024-02-01": None}, {"2024-02-01": 7})
        instance.report_runless_asset_event(_materialised("profiles", "2024-02-01", first))
        wider = _data_version(context, "profiles", {"2024-02-01": 7, "2024-03-01": None}, _made(7, 8))
        changed = _data_version(context, "profiles", {"2024-02-01": 7, "2024-03-01": 8}, _made(7, 9))
    assert wider == first
    assert changed != first


def _made(*versions: int) -> dict[str, int]:
    return dict(zip(SNAPSHOTS, versions, strict=True))


def _materialised(name: str, key: str, version: dg.DataVersion) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(name, partition=key, tags={"dagster/data_version": version.value})
