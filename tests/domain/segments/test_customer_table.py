"""The list of customers as people read it: one row each, in words."""

from __future__ import annotations

import polars as pl

from custseg_assets.domain.schemas import PRODUCT_RECOMMENDATIONS, SEGMENT_PROFILES, Table
from custseg_assets.domain.segments.customer_table import tabulate_customers
from custseg_assets.domain.spreadsheets import CUSTOMER_COLUMNS

JUNE, JULY = "2011-06-01", "2011-07-01"


def rows_of(table: Table, *rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in table.schema} for row in rows], schema=table.schema)


def test_every_customer_has_one_row_with_segment_stay_figures_advice_and_offers() -> None:
    champions, lapsed = (
        {"segment_id": id_, "segment_name": name} for id_, name in (("S1", "Champions"), ("R2", "Lapsed"))
    )
    listed = pl.DataFrame(
        [
            # Came back from Lapsed in June; has nothing in the window any more; was not known before.
            ("2", *champions.values(), JUNE, lapsed, None, None, 40, 3, 120.5, 20.5, 120.5, True, 0.374, 55.127),
            (
                "3",
                *lapsed.values(),
                JULY,
                None,
                champions,
                "behaviour",
                None,
                None,
                None,
                -80.0,
                80.0,
                False,
                None,
                None,
            ),
            ("1", *champions.values(), JULY, None, None, None, 2, 1, -4.0, None, 0.0, False, 0.0, 0.0),
        ],
        schema={
            "customer_id": pl.String,
            "segment_id": pl.String,
            "segment_name": pl.String,
            "since": pl.String,
            "previous": pl.Struct({"segment_id": pl.String, "segment_name": pl.String}),
            "moved_from": pl.Struct({"segment_id": pl.String, "segment_name": pl.String}),
            "cause": pl.String,
            "recency_days": pl.Int64,
            "frequency_orders": pl.Int64,
            "monetary_net": pl.Float64,
            "spend_change": pl.Float64,
            "value_at_stake": pl.Float64,
            "is_at_risk": pl.Boolean,
            "p_order_30d": pl.Float64,
            "expected_spend_90d": pl.Float64,
        },
        orient="row",
    )
    profiles = rows_of(SEGMENT_PROFILES, {**champions, "advice": "Thank them."}, {**lapsed, "advice": "Win them back."})
    products = rows_of(
        PRODUCT_RECOMMENDATIONS,
        {"customer_id": "2", "rank": 2, "product_id": "P9", "description": None},
        {"customer_id": "2", "rank": 1, "product_id": "P7", "description": "LANTERN"},
    )
    table = tabulate_customers(listed, profiles, products)
    assert table.columns == list(CUSTOMER_COLUMNS)
    assert table.rows() == [
        ("1", "S1", "Champions", JULY, None, None, None, 2, 1, -4.0, None, 0.0, False, 0.0, 0.0, "Thank them.", None),
        (
            "2",
            "S1",
            "Champions",
            JUNE,
            "Lapsed",
            None,
            None,
            40,
            3,
            120.5,
            20.5,
            120.5,
            True,
            0.37,
            55.13,
            "Thank them.",
            "P7 LANTERN; P9",
        ),
        (
            "3",
            "R2",
            "Lapsed",
            JULY,
            None,
            "Champions",
            "behaviour",
            None,
            0,
            0.0,
            -80.0,
            80.0,
            False,
            None,
            None,
            "Win them back.",
            None,
        ),
    ]
