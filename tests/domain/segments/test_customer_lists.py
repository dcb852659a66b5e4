"""What lists say of each customer: where from, how spend changed, what is at stake, who is at risk."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from custseg_assets.domain.segments.customer_lists import is_at_risk, list_customers, value_segments
from custseg_assets.domain.segments.naming import GOING_QUIET, VOCABULARY

VALUES = {"S1": 900.0, "S2": 300.0, "S3": 40.0, "R1": -5.0, "R2": 0.0}
NAMES = {"S1": "Champions", "S2": "At risk", "S3": "Hibernating", "R1": "Refunded", "R2": "Lapsed"}


def place(segment_id: str | None) -> dict[str, str] | None:
    return None if segment_id is None else {"segment_id": segment_id, "segment_name": NAMES.get(segment_id, "Gone")}


def assigned(places: dict[str, str]) -> pl.DataFrame:
    rows = [{"customer_id": customer, **(place(segment) or {})} for customer, segment in places.items()]
    return pl.DataFrame(rows, schema={"customer_id": pl.String, "segment_id": pl.String, "segment_name": pl.String})


def described(spend: dict[str, float | None]) -> pl.DataFrame:
    """What ``describe_customers`` says, as far as lists need it."""
    records = [
        {
            "since": "2024-01-01",
            "previous": place("S1"),
            "features": None if net is None else {"recency_days": 3, "frequency_orders": 2, "monetary_net": net},
        }
        for net in spend.values()
    ]
    return pl.DataFrame({"customer_id": list(spend), "record": records})


def spent(spend: dict[str, float]) -> pl.DataFrame:
    return pl.DataFrame({"customer_id": list(spend), "monetary_net": list(spend.values())})


def moves(causes: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame({"customer_id": list(causes), "cause": list(causes.values())})


def listed(**changed: Any) -> dict[str, dict[str, Any]]:
    """Rows by customer: a stays, b lapses, c comes, d had nothing in the earlier window, e had refunds only."""
    arguments: dict[str, Any] = {
        "customers": described({"a": 120.0, "b": None, "c": 50.0, "d": 70.0, "e": -20.0}),
        "now": assigned({"a": "S1", "b": "R2", "c": "S3", "d": "S3", "e": "R1"}),
        "before": assigned({"a": "S1", "b": "S1", "d": "R2", "e": "R1"}),
        "features_before": spent({"a": 100.0, "b": 80.0, "e": -30.0}),
        "migrations": moves({"b": "behaviour", "d": "border"}),
        "segment_values": VALUES,
        **changed,
    }
    return {row["customer_id"]: row for row in list_customers(**arguments).iter_rows(named=True)}


def test_change_is_against_the_snapshot_before_and_null_for_who_was_not_known_then() -> None:
    rows = listed()
    assert {name: row["spend_change"] for name, row in rows.items()} == {
        "a": 20.0, "b": -80.0, "c": None, "d": 70.0, "e": 10.0,
    }  # fmt: skip


def test_at_stake_is_the_larger_of_both_and_never_below_nothing() -> None:
    assert {name: row["value_at_stake"] for name, row in listed().items()} == {
        "a": 120.0, "b": 80.0, "c": 50.0, "d": 70.0, "e": 0.0,
    }  # fmt: skip


def test_only_who_changed_segment_has_moved_and_only_who_was_unknown_is_new() -> None:
    rows = listed()
    assert {name: row["moved_from"] for name, row in rows.items() if row["moved_from"]} == {
        "b": place("S1"), "d": place("R2"),
    }  # fmt: skip
    assert [name for name, row in rows.items() if row["is_new"]] == ["c"]
    assert (rows["b"]["cause"], rows["a"]["cause"], rows["b"]["monetary_net"]) == ("behaviour", None, None)


def test_at_the_first_snapshot_nothing_is_compared() -> None:
    rows = listed(before=assigned({}), features_before=None, migrations=None)
    assert {(row["spend_change"], row["moved_from"], row["cause"], row["is_new"]) for row in rows.values()} == {
        (None, None, None, False)
    }
    assert rows["a"]["value_at_stake"] == 120.0


def test_what_was_spent_before_is_not_guessed_where_it_is_not_known() -> None:
    rows = listed(features_before=None)
    assert {row["spend_change"] for row in rows.values()} == {None}
    assert rows["b"]["value_at_stake"] == 0.0


@pytest.mark.parametrize(
    ("now", "earlier", "cause", "at_stake", "expected"),
    [
        ("S2", None, None, 10.0, True),
        ("S2", None, None, 0.0, False),
        ("S2", "S1", "behaviour", 10.0, True),
        ("S2", "S1", "model change", 10.0, True),
        ("S2", "S3", "behaviour", 10.0, False),
        ("S2", "S3", "border", 10.0, True),
        ("S3", None, None, 10.0, False),
        ("S3", "S1", "behaviour", 10.0, True),
        ("S3", "S1", "border", 10.0, False),
        ("S3", "S1", "model change", 10.0, False),
        ("S3", "R2", "behaviour", 10.0, False),
        ("R2", "S3", "behaviour", 10.0, True),
        ("R2", None, None, 10.0, False),
        ("R1", "S3", "behaviour", 10.0, True),
        ("S1", "S3", "behaviour", 10.0, False),
        ("S3", "S9", "behaviour", 10.0, False),
    ],
)
def test_who_is_at_risk(now: str, earlier: str | None, cause: str | None, at_stake: float, expected: bool) -> None:
    assert at_risk(now, earlier, cause, at_stake) is expected


def at_risk(
    now: str,
    earlier: str | None = None,
    cause: str | None = None,
    at_stake: float = 10.0,
    recency_days: int | None = 100,
    spend_change: float | None = 5.0,
    days: int | None = 30,
) -> bool:
    row = {**(place(now) or {}), "moved_from": place(earlier), "cause": cause, "value_at_stake": at_stake}
    row |= {"recency_days": recency_days, "spend_change": spend_change}
    struct = pl.Struct({"segment_id": pl.String, "segment_name": pl.String})
    types = {"moved_from": struct, "cause": pl.String, "recency_days": pl.Int64, "spend_change": pl.Float64}
    result: bool = pl.DataFrame([row], schema_overrides=types).select(is_at_risk(VALUES, days)).item()
    return result


@pytest.mark.parametrize(
    ("recency_days", "spend_change", "days", "expected"),
    [
        (2, 5.0, 30, False),
        (2, 0.0, 30, False),
        (2, -5.0, 30, True),
        (30, 5.0, 30, True),
        (2, 5.0, None, True),
        (2, None, 30, True),
        (None, 5.0, 30, True),
    ],
)
def test_who_has_come_back_is_not_going_quiet(
    recency_days: int | None, spend_change: float | None, days: int | None, *, expected: bool
) -> None:
    assert at_risk("S2", recency_days=recency_days, spend_change=spend_change, days=days) is expected
    # Who has fallen is told so by the segments.
    assert at_risk("S3", "S1", "behaviour", 10.0, recency_days, spend_change, days)


def test_a_second_segment_of_the_same_name_is_as_much_at_risk() -> None:
    frame = pl.DataFrame(
        {
            "segment_id": ["S2"],
            "segment_name": ["At risk 2"],
            "cause": [None],
            "recency_days": [9],
            "spend_change": [None],
            "value_at_stake": [1.0],
        },
        schema_overrides={"cause": pl.String, "spend_change": pl.Float64},
    ).with_columns(moved_from=pl.lit(None, pl.Struct({"segment_id": pl.String, "segment_name": pl.String})))
    assert frame.select(is_at_risk(VALUES)).item() is True


def test_names_that_say_somebody_goes_quiet_are_names_of_the_vocabulary() -> None:
    assert set(GOING_QUIET) <= {entry.name for entry in VOCABULARY}


def test_rule_segments_are_worth_nothing_whatever_their_customers_had() -> None:
    profiles = pl.DataFrame(
        {
            "segment_id": ["S1", "R1", "R2"],
            "is_rule_segment": [False, True, True],
            "median_monetary_net": [12.5, -3.0, None],
        }
    )
    assert value_segments(profiles) == {"S1": 12.5, "R1": -3.0, "R2": 0.0}
