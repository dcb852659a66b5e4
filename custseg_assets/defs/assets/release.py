"""The immutable bundle that the service serves."""

import json

import dagster as dg

from custseg_assets.defs.descriptions import ASSETS as DESCRIPTIONS
from custseg_assets.defs.materialise import OWNERS, Materialization
from custseg_assets.defs.partitions import Layout
from custseg_assets.domain.schemas import (
    CUSTOMER_FEATURES,
    CUSTOMER_VALUE,
    DRIFT_REPORT,
    MODEL_CANDIDATES,
    PRODUCT_RECOMMENDATIONS,
    PROMOTION_DECISION,
    RELEASE_READS,
    SEGMENT_ASSIGNMENTS,
    SEGMENT_MIGRATIONS,
    SEGMENT_PRODUCTS,
    SEGMENT_PROFILES,
    SEGMENTATION_MODEL,
    VALUE_MODEL,
)
from custseg_assets.domain.segments.training_tables import metrics_of
from custseg_assets.home.campaigns import HOLDOUTS, held_out_ids, holdouts_digest
from custseg_assets.home.kept_models import clean_up
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.settings import Settings
from custseg_assets.stores.release_writer import ReleaseContent, write_release
from custseg_assets.stores.releases import point_to, prune
from custseg_assets.stores.revision import code_revision
from custseg_assets.stores.signatures import sign_release

SNAPSHOTS_SHOWN = 12
"""Closed snapshots before the released one that a customer is shown at."""
RELEASES_KEPT = 10
"""How many releases one can go back to; each holds every customer, so they are not kept for ever."""

_PARTS = tuple(read.table for read in RELEASE_READS if read.partitions == "newest")


def serving_release(layout: Layout, _: Settings) -> dg.AssetsDefinition:
    """The asset of the group ``release``."""

    @dg.asset(
        group_name="release",
        owners=OWNERS,
        kinds={"lmdb"},
        code_version="2",
        description=DESCRIPTIONS["serving_release"],
        deps=layout.dependencies(RELEASE_READS),
    )
    def serving_release(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
        """The newest snapshot's segments with the model that gave them, written once and pointed to by ``CURRENT``."""
        folder = home.paths.releases
        with home.paths.mark_unreleased():
            content = _gather_content(home, home.newest_snapshot())
            manifest = write_release(folder, content)
            if key := home.settings.signing_key:
                sign_release(folder, manifest.release_id, key)
            point_to(folder, manifest.release_id)
            prune(folder, keep=RELEASES_KEPT)
            if bucket := home.open_bucket():
                bucket.push_release(folder, manifest.release_id)
                bucket.prune_releases(keep=RELEASES_KEPT)
        n_freed = clean_up(home)
        context.log.info("release %s: %s customers", manifest.release_id, f"{manifest.n_customers:,}")
        return dg.MaterializeResult(
            metadata={
                "release": manifest.release_id,
                "model_card": dg.MetadataValue.md(content.model_card),
                "path": dg.MetadataValue.path(str(folder / manifest.release_id)),
                "dagster/row_count": manifest.n_customers,
                "bytes_of_replaced_files_removed": n_freed,
                "manifest": dg.MetadataValue.json(manifest.model_dump(mode="json")),
            },
            data_version=dg.DataVersion(manifest.release_id),
        )

    return serving_release


def _gather_content(home: OpenHome, key: str) -> ReleaseContent:
    tables, model = home.tables, home.champions.model_at(key)
    trained = tables.read(SEGMENTATION_MODEL, [model.trained_on]).row(0, named=True)
    candidates = tables.read(MODEL_CANDIDATES, [model.trained_on])
    earlier = home.snapshots_before(key)[-SNAPSHOTS_SHOWN:]
    return ReleaseContent(
        model=model,
        window=home.calendar.window(key),
        assignments=tables.scan(SEGMENT_ASSIGNMENTS, (*home.snapshots_before(key), key)),
        customer_features=tables.scan(CUSTOMER_FEATURES, [key]),
        segment_profiles=tables.read(SEGMENT_PROFILES, [key]),
        product_recommendations=tables.scan(PRODUCT_RECOMMENDATIONS, [key]),
        segment_products=tables.read(SEGMENT_PRODUCTS, [key]),
        customer_value=tables.scan(CUSTOMER_VALUE, [key]),
        value_model=tables.read(VALUE_MODEL, [key]),
        drift_reports=tables.read(DRIFT_REPORT),
        model_candidates=candidates,
        promotion_decisions=tables.read(PROMOTION_DECISION),
        model_card=trained["model_card"],
        metrics=metrics_of(candidates),
        git_revision=code_revision(),
        data_versions={
            **{name: f"{tables.fingerprint_of(name, key):x}" for name in _PARTS},
            **({HOLDOUTS: digest} if (digest := holdouts_digest(home)) else {}),
        },
        held_out=held_out_ids(home),
        margin_rule=home.settings.model.margin_rule,
        is_demo=home.is_demo,
        segment_migrations=tables.scan(SEGMENT_MIGRATIONS, [key]),
        drift_reference=json.loads(trained["drift_reference"]),
        earlier_windows=tuple(home.calendar.window(one) for one in earlier),
        earlier_features=tables.scan(CUSTOMER_FEATURES, earlier),
        currency=home.currency,
    )


ASSETS = (serving_release,)
