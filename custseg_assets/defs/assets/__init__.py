"""The asset graph, one module per group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    import dagster as dg

    from custseg_assets.defs.partitions import Layout
    from custseg_assets.settings import Settings


def groups() -> tuple[ModuleType, ...]:
    """The modules of the assets, each with its factories as ``ASSETS``; they are imported when they are asked for."""
    from custseg_assets.defs.assets import (
        campaigns,
        features,
        ingest,
        migrations,
        model,
        monitoring,
        predictions,
        release,
        segments,
        value,
    )

    return ingest, features, model, segments, migrations, value, monitoring, predictions, campaigns, release


def every_asset(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """All assets of the graph, for the partitions of a home."""
    from custseg_assets.defs.assets.ingest import landed_files

    return [landed_files, *(factory(layout, settings) for group in groups() for factory in group.ASSETS)]
