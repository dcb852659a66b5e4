"""A campaign as it is recorded."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from custseg_assets.stores.campaigns import Campaign

CAMPAIGN = Campaign(
    name="Autumn",
    segments=("S1", "S2"),
    share=0.2,
    salt="salt",
    starts=date(2024, 5, 1),
    days=30,
    cap=99.5,
    covariate="features",
    period="2024-04-01",
    as_of=datetime(2024, 5, 1),
    model_version="m-1",
    release_id="r-1",
    started_by="Ada",
    started_at=datetime(2024, 5, 2, 9),
    prospects={"return": {"all": {"uplift": 0.05, "mean": None, "relative_uplift": None}}},
    n_left_out=0,
)
GROUPS_OF_IT = pl.DataFrame(
    {
        "customer_id": ["a", "b", "c"],
        "segment_id": ["S1", "S1", "S2"],
        "segment_name": ["Champions", "Champions", "Promising"],
        "is_holdout": [True, False, True],
        "return_covariate": [0.1, 0.2, 0.3],
        "spend_covariate": [1.0, 2.0, 3.0],
    }
)
