"""Looking up texts: the same values as at once, and without the whole column in memory."""

import polars as pl
import pytest

from custseg_assets.stores import lookups
from custseg_assets.stores.lookups import look_up

TABLE = pl.DataFrame({"text": ["one", "two", "none"], "value": [1.0, 2.0, None]})
LINES = pl.LazyFrame({"text": ["two", "9", "one", None, "none", "two"] * 50_000})


@pytest.mark.parametrize("large_table", [lookups.LARGE_TABLE, 2])
def test_values_are_of_the_table_and_of_the_other_expression_where_it_has_none(
    large_table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "LARGE_TABLE", large_table)

    values = LINES.select(look_up(pl.col("text"), TABLE, pl.col("text").cast(pl.Float64, strict=False)))

    assert values.collect(engine="streaming").to_series().to_list() == [2.0, 9.0, 1.0, None, None, 2.0] * 50_000


def test_the_column_is_never_held_as_a_whole() -> None:
    values = LINES.select(look_up(pl.col("text"), TABLE, pl.lit(None, pl.Float64)))

    # What the engine calls a step that gets all of a column at once.
    plan = values.show_graph(engine="streaming", plan_stage="physical", raw_output=True)

    assert plan is not None
    assert "columnar-function" not in plan
