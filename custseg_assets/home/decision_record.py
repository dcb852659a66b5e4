"""What the metadata of a decision says of its model: rows, code, settings, checks, who decided, what it replaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from custseg_assets.defs.resources import Stores
from custseg_assets.expectations.suites import groups_for
from custseg_assets.home.soundness import unsound_in_window
from custseg_assets.stores.revision import code_revision


def origin_of(stores: Stores, row: Mapping[str, Any]) -> dict[str, Any]:
    """Where a model comes from.

    Args:
        stores: of the home, as it stands when that is decided.
        row: of ``promotion_decision``, about it.
    """
    key, settings = row["period"], stores.settings
    read = ("clean_transactions", "customer_features", "scaled_features", "model_candidates")
    keys = {"clean_transactions": stores.provenance.window(key).keys}
    return {
        "model": row["model_version"],
        "decision": row["decision"],
        "decided_by": row["decided_by"],
        "replaces": row["champion_before"],
        "files": [delivery.name for delivery in stores.provenance.current],
        "data_versions": {
            name: {one: f"{stores.tables.fingerprint_of(name, one) or 0:x}" for one in keys.get(name, (key,))}
            for name in read
        },
        "code": code_revision(),
        "settings": {"model": settings.model.model_dump(mode="json"), "promotion": vars(settings.promotion)},
        # A blocking check that fails ends the run, so these held; the warnings are what the gate looks at itself.
        "checks_held": {
            name: [group.name for group in groups_for(name, settings) if group.is_blocking] for name in read[:3]
        },
        "warnings": dict(unsound_in_window(stores, key)),
    }
