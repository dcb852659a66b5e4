"""What is to be published, and what tells whether it has changed."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from custseg_assets.domain.schemas import PROMOTION_DECISION
from custseg_assets.stores.publications import state_to_publish
from custseg_assets.stores.tables import TableStore

KEY = "2024-03-01"


def test_a_persons_decision_is_published_although_it_is_made_from_the_same(tmp_path: Path) -> None:
    store = TableStore(tmp_path / "tables")
    states = []
    for decision, decided_by in (("HOLD", "gate"), ("HOLD", "gate"), ("PROMOTE", "Ada")):
        row = dict.fromkeys(PROMOTION_DECISION.schema.names()) | {"period": KEY, "model_version": "m1"}
        row |= {"decision": decision, "decided_by": decided_by, "reasons": "[]"}
        store.write(PROMOTION_DECISION, pl.DataFrame([row], schema=PROMOTION_DECISION.schema), {KEY: 7})
        states.append(state_to_publish(store, PROMOTION_DECISION.name, KEY))
    assert states[0] == states[1] != states[2]
    assert store.fingerprint_of(PROMOTION_DECISION.name, KEY) == 7
    assert state_to_publish(store, PROMOTION_DECISION.name, "2024-04-01") is None
