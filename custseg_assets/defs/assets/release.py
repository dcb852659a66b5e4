"""The immutable bundle that the service serves."""

import json

import dagster as dg

from custseg_assets.defs.materialise import OWNERS
from custseg_assets.defs.resources import Stores
from custseg_assets.domain.schemas import (
    CUSTOMER_FEATURES,
    DRIFT_REPORT,
    MODEL_CANDIDATES,
    PRODUCT_RECOMMENDATIONS,
    PROMOTION_DECISION,
    SEGMENT_ASSIGNMENTS,
    SEGMENT_MIGRATIONS,
    SEGMENT_PROFILES,
    SEGMENTATION_MODEL,
)
from custseg_assets.domain.segments.training import metrics_of
from custseg_assets.home.fingerprints import CODE_VERSIONS
from custseg_assets.home.open import bucket_of
from custseg_assets.stores.release_writer import ReleaseContent, write_release
from custseg_assets.stores.releases import point_to, prune
from custseg_assets.stores.revision import code_revision

RELEASES_KEPT = 10
"""How many releases one can go back to; each holds every customer, so they are not kept for ever."""

_PARTS = (
    SEGMENT_ASSIGNMENTS,
    SEGMENT_PROFILES,
    SEGMENT_MIGRATIONS,
    PRODUCT_RECOMMENDATIONS,
    DRIFT_REPORT,
    CUSTOMER_FEATURES,
)


def release_assets() -> list[dg.AssetsDefinition]:
    """The asset of the group ``release``."""
    newest = dg.LastPartitionMapping()

    @dg.asset(
        group_name="release",
        owners=OWNERS,
        kinds={"lmdb"},
        code_version=CODE_VERSIONS["serving_release"],
        deps=[
            *(dg.AssetDep(table.name, partition_mapping=newest) for table in _PARTS),
            dg.AssetDep("promotion_decision"),
        ],
    )
    def serving_release(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        """The newest snapshot's segments with the model that gave them, written once and pointed to by ``CURRENT``."""
        with stores.home.mark_unreleased():
            content = _content(stores, stores.provenance.released_key())
            manifest = write_release(stores.home.releases, content)
            point_to(stores.home.releases, manifest.release_id)
            prune(stores.home.releases, keep=RELEASES_KEPT)
            if bucket := bucket_of(stores.settings):
                bucket.push_release(stores.home.releases, manifest.release_id)
                bucket.prune_releases(keep=RELEASES_KEPT)
        context.log.info("release %s: %s customers", manifest.release_id, f"{manifest.n_customers:,}")
        return dg.MaterializeResult(
            metadata={
                "release": manifest.release_id,
                "path": dg.MetadataValue.path(str(stores.home.releases / manifest.release_id)),
                "dagster/row_count": manifest.n_customers,
                "manifest": dg.MetadataValue.json(manifest.model_dump(mode="json")),
                "model_card": dg.MetadataValue.md(content.model_card),
            },
            data_version=dg.DataVersion(manifest.release_id),
        )

    return [serving_release]


def _content(stores: Stores, key: str) -> ReleaseContent:
    tables, model = stores.tables, stores.provenance.model_in_force(key)
    trained = tables.read(SEGMENTATION_MODEL, [model.trained_on]).row(0, named=True)
    candidates = tables.read(MODEL_CANDIDATES, [model.trained_on])
    return ReleaseContent(
        model=model,
        window=stores.provenance.window(key),
        assignments=tables.scan(SEGMENT_ASSIGNMENTS, (*stores.provenance.snapshots_before(key), key)),
        customer_features=tables.read(CUSTOMER_FEATURES, [key]),
        segment_profiles=tables.read(SEGMENT_PROFILES, [key]),
        product_recommendations=tables.read(PRODUCT_RECOMMENDATIONS, [key]),
        drift_reports=tables.read(DRIFT_REPORT),
        model_candidates=candidates,
        promotion_decisions=tables.read(PROMOTION_DECISION),
        model_card=trained["model_card"],
        metrics=metrics_of(candidates),
        git_revision=code_revision(),
        data_versions={table.name: f"{tables.fingerprint_of(table.name, key):x}" for table in _PARTS},
        segment_migrations=tables.read(SEGMENT_MIGRATIONS, [key]),
        drift_reference=json.loads(trained["drift_reference"]),
    )
