"""What is recorded with a decision about a model: rows, code, settings, checks, who decided, and what it replaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from custseg_assets.expectations.suites import groups_for
from custseg_assets.home.evidence import unsound_in_window
from custseg_assets.home.open import OpenHome
from custseg_assets.stores.revision import code_revision


def describe_decision(home: OpenHome, row: Mapping[str, Any]) -> dict[str, Any]:
    """Where the model of a decision comes from, as the home stands when that is decided.

    Args:
        home: whose model it is.
        row: of ``promotion_decision``, about it.
    """
    key, settings = row["period"], home.settings
    read = ("clean_transactions", "customer_features", "scaled_features", "model_candidates")
    keys = {"clean_transactions": home.calendar.window(key).keys}
    return {
        "model": row["model_version"],
        "decision": row["decision"],
        "decided_by": row["decided_by"],
        "replaces": row["champion_before"],
        "files": [delivery.name for delivery in home.calendar.deliveries],
        "data_versions": {
            name: {one: f"{home.tables.fingerprint_of(name, one) or 0:x}" for one in keys.get(name, (key,))}
            for name in read
        },
        "code": code_revision(),
        "settings": {"model": settings.model.model_dump(mode="json"), "promotion": vars(settings.promotion)},
        # A blocking check that fails ends the run, so these held; the warnings are what the gate looks at itself.
        "checks_held": {
            name: [group.name for group in groups_for(name, settings) if group.is_blocking] for name in read[:3]
        },
        "warnings": dict(unsound_in_window(home, key)),
    }
