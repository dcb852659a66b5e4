"""The asset graph, one module per group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from custseg_assets.defs.partitions import Layout
    from custseg_assets.settings import Settings


def every_asset(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """All assets of the graph, for the partitions of a home."""
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

    groups = (ingest, features, model, segments, migrations, value, monitoring, predictions, campaigns, release)
    return [ingest.landed_files, *(factory(layout, settings) for group in groups for factory in group.ASSETS)]
