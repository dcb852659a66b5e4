"""An example of every answer and every request, for ``/openapi.json`` and the page ``/docs``.

A test sees that each fits its model. The customers are invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RELEASE = {
    "model_version": "m-2011-10-01-d5924334",
    "period": "2011-11-01",
    "as_of": "2011-12-01T00:00:00",
    "is_open": False,
    "release_id": "r-2011-11-01-0e7dfa37",
    "staleness": {"age_days": 9, "is_stale": False},
}
_ROW = {"recency_days": 62, "frequency_orders": 3, "monetary_net": 512.3}
_CHAMPIONS = {"segment_id": "S1", "segment_name": "Champions"}
_PROMISING = {"segment_id": "S2", "segment_name": "Promising"}
_OFFERS = [{"product_id": "22423", "description": "REGENCY CAKESTAND 3 TIER"}]
_PLACED = {
    **_PROMISING,
    "is_rule_segment": False,
    "margin": 0.41,
    "is_held": False,
    "runner_up_segment_id": "S1",
    "reasons": [{"feature": "recency_days", "text": "62 days since the last order; Champions: 10"}],
    "rfm": _ROW,
    "other_features": {},
}
_STANDING = {
    "customer_id": "12348",
    **_PLACED,
    "since": "2011-11-01",
    "previous": _CHAMPIONS,
    "p_order_30d": 0.31,
    "p_order_90d": 0.58,
    "expected_orders_90d": 0.94,
    "expected_spend_90d": 161.4,
    "intervals": {
        "p_order_30d": [0.26, 0.37],
        "p_order_90d": [0.51, 0.64],
        "expected_orders_90d": [0.0, 3.0],
        "expected_spend_90d": [0.0, 612.5],
    },
    "recommendations": _OFFERS,
}
_PROFILE = {
    **_CHAMPIONS,
    "n_customers": 498,
    "share_customers": 0.114,
    "revenue_net": 1_938_117.4,
    "share_revenue": 0.594,
    "median_recency_days": 10.0,
    "median_frequency_orders": 6.0,
    "median_monetary_net": 2_104.9,
    "advice": "Keep them: early access, personal service and thanks rather than discounts.",
    "expected_orders_90d": 1_511.2,
    "expected_spend_90d": 702_418.0,
    "products": [
        {
            "rank": 1,
            "product_id": "21034",
            "description": "REX CASH+CARRY JUMBO SHOPPER",
            "n_buyers": 69,
            "share_of_segment": 0.004,
            "share_of_shop": 0.002,
            "lift": 1.93,
            "lift_low": 1.31,
        }
    ],
    "lineage": [],
}
_LIST = {
    "customers": [
        {
            "customer_id": "12348",
            **_PROMISING,
            "since": "2011-11-01",
            "previous": _CHAMPIONS,
            "moved_from": _CHAMPIONS,
            "cause": "behaviour",
            **_ROW,
            "spend_change": -1_987.7,
            "value_at_stake": 2_500.0,
            "is_at_risk": True,
            "p_order_30d": 0.31,
            "expected_spend_90d": 161.4,
            "advice": "Give them a reason for the next order soon.",
            "recommendations": _OFFERS,
        }
    ],
    "n_customers": 1_361,
    "n_held_out": 0,
    "value_at_stake": 321_885.2,
    "next": "WyJyLTIwMTEtMTEtMDEtMGU3ZGZhMzciLCAiOGRkMTM3YWM5NTUzYjBhZiIsIDFd",
    **RELEASE,
}
_CSV = (
    "customer_id,segment_id,segment,since,previous,moved_from,cause,recency,orders,spend,change,at_stake,at_risk,"
    "p_order_30d,expected_spend,advice,offers\r\n"
    "12348,S2,Promising,2011-11-01,Champions,Champions,behaviour,62,3,512.3,-1987.7,2500.0,true,0.31,161.4,"
    "Give them a reason for the next order soon.,22423 REGENCY CAKESTAND 3 TIER\r\n"
)

ANSWERS: Mapping[str, Any] = {
    "lookup": {**_STANDING, **RELEASE},
    "lookup_many": {
        "customers": [_STANDING],
        "unknown": ["nobody"],
        "too_new": [{"customer_id": "19999", "first_seen_at": "2011-12-05T09:30:00.000000"}],
        **RELEASE,
    },
    "score": {"customers": [{"customer_id": "new-1", **_PLACED}], **RELEASE},
    "segments": {"segments": [_PROFILE], **RELEASE},
    "segment": {"segment": _PROFILE, **RELEASE},
    "customers": _LIST,
    "customers_csv": _CSV,
    "segment_customers": _LIST,
    "segment_customers_csv": _CSV,
    "moves": _LIST,
    "moves_csv": _CSV,
    "history": {
        "customer_id": "12348",
        "snapshots": [
            {"period": "2011-11-01", "as_of": "2011-12-01T00:00:00", "is_open": False, **_PROMISING, **_ROW},
            {
                "period": "2011-10-01",
                "as_of": "2011-11-01T00:00:00",
                "is_open": False,
                **_CHAMPIONS,
                "recency_days": 5,
                "frequency_orders": 9,
                "monetary_net": 2_500.0,
            },
        ],
        **RELEASE,
    },
    "model": {
        **RELEASE,
        "trained_on": "2011-10-01",
        "features": list(_ROW),
        "required_features": list(_ROW),
        "k": 3,
        "metrics": {"silhouette": 0.34},
        "git_revision": None,
        "data_versions": {"segment_assignments": "1f0c2a"},
        "n_customers": 4_362,
        "currency": "GBP",
        "is_demo": False,
        "model_card": "# Model card\n",
    },
    "healthz": {"status": "ok"},
    "readyz": {
        "status": "ready",
        "release_id": RELEASE["release_id"],
        "refused": None,
        "n_predictions_dropped": 0,
        "prediction_log": None,
    },
    "metrics": 'custseg_request_seconds_count{route="/v1/customers/{customer_id}/segment",status="200"} 1204.0\n',
}
"""Answers by the operation's id."""

BODIES: Mapping[str, Any] = {
    "lookup_many": {"customer_ids": ["12348", "nobody"]},
    "score": {"customers": [{"customer_id": "new-1", **_ROW}]},
}
"""Bodies of requests by the operation's id."""

PATHS: Mapping[str, str] = {"customer_id": "12348", "segment_id": "S1"}
"""Parts of paths by their name."""

ERRORS: Mapping[int, tuple[str, str, Mapping[str, Any]]] = {
    400: (
        "unknown_parameter",
        "There is no parameter 'segmnt'; did you mean 'segment'? Accepted are previous, cause, at_risk.",
        {"parameter": "segmnt", "accepted": ["previous", "cause", "at_risk"]},
    ),
    401: (
        "key_required",
        "A valid API key is needed: send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
        {},
    ),
    403: ("scope_missing", "The key lacks the scope 'lookup'.", {"scopes": ["score"]}),
    404: ("customer_unknown", "No customer with this id was ever seen up to the snapshot.", RELEASE),
    409: (
        "release_changed",
        "The cursor is of another release; begin again without cursor.",
        {"release_id": RELEASE["release_id"]},
    ),
    413: ("request_entity_too_large", "The data value transmitted exceeds the capacity limit.", {}),
    415: ("not_json", "Got content type 'text/plain'; expected application/json.", {}),
    422: (
        "invalid_request",
        "customers.0.recency_days: Input should be greater than or equal to 0.",
        {"problems": [{"where": "customers.0.recency_days", "problem": "Input should be greater than or equal to 0"}]},
    ),
    429: ("rate_limited", "More than 500 requests in a second.", {"per_second": 500}),
    503: ("not_ready", "There is no release to answer from yet.", {"refused": None}),
}
"""Code, message and details of an error by its status."""
