"""The asset graph, one module per group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from custseg_assets.defs.partitions import Layout
    from custseg_assets.settings import Settings


def every_asset(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """All assets of the graph, for the partitions of a home."""
    from custseg_assets.defs.assets.features import feature_assets
    from custseg_assets.defs.assets.ingest import ingest_assets
    from custseg_assets.defs.assets.migrations import migration_assets
    from custseg_assets.defs.assets.model import model_assets
    from custseg_assets.defs.assets.monitoring import monitoring_assets
    from custseg_assets.defs.assets.predictions import prediction_assets
    from custseg_assets.defs.assets.release import release_assets
    from custseg_assets.defs.assets.segments import segment_assets

    groups = (ingest_assets, feature_assets, model_assets, segment_assets, migration_assets, monitoring_assets)
    return [asset for group in groups for asset in group(layout, settings)] + [
        *prediction_assets(settings),
        *release_assets(),
    ]
