"""The asset graph, one module per group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from custseg_assets.defs.partitions import Layout
    from custseg_assets.settings import Settings


def every_asset(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """All assets of the graph, for the partitions of a home."""
    from custseg_assets.defs.assets.features import FEATURE_ASSETS
    from custseg_assets.defs.assets.ingest import INGEST_ASSETS, landed_files
    from custseg_assets.defs.assets.migrations import MIGRATION_ASSETS
    from custseg_assets.defs.assets.model import MODEL_ASSETS
    from custseg_assets.defs.assets.monitoring import MONITORING_ASSETS
    from custseg_assets.defs.assets.predictions import PREDICTION_ASSETS
    from custseg_assets.defs.assets.release import serving_release
    from custseg_assets.defs.assets.segments import SEGMENT_ASSETS

    factories = (
        *INGEST_ASSETS,
        *FEATURE_ASSETS,
        *MODEL_ASSETS,
        *SEGMENT_ASSETS,
        *MIGRATION_ASSETS,
        *MONITORING_ASSETS,
        *PREDICTION_ASSETS,
        serving_release,
    )
    return [landed_files, *(factory(layout, settings) for factory in factories)]
