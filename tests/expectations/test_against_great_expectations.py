"""``validate`` gives the same results as Great Expectations' public interface.

For speed ``validation`` builds graphs of metrics, caches configurations and overrides a private method. These are not
documented for users of Great Expectations, so a new version could change a verdict, a count or a row without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from custseg_assets import no_telemetry
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.expectations import validation
from custseg_assets.expectations.suites import (
    EARLIEST_PLAUSIBLE,
    EXAMPLE_KEYS,
    N_DIGITS,
    PERIOD_END,
    PERIOD_START,
    UNCHANGED_SEGMENT,
    ExpectationGroup,
    Rule,
    groups_for,
)
from custseg_assets.expectations.validation import GroupResult
from custseg_assets.settings import Settings
from tests.support.expected_tables import GOOD, RULES, SETTINGS, SPOILED, spoil

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult

# On a frame without rows these fail in Great Expectations; ``validate`` lets every rule about rows pass there.
AGGREGATES = ("ExpectColumnMeanToBeBetween", "ExpectColumnUniqueValueCountToBeBetween")
SUITES = [
    pytest.param(table, rules, id=f"{table}, {'with' if rules else 'without'} cleaning rules")
    for table in EXAMPLE_KEYS
    for rules in (RULES, None)
    if rules or groups_for(table, SETTINGS) != groups_for(table, SETTINGS, RULES)
]


def split_into_rules(
    table: str, settings: Settings, rules: CleaningRules | None = None
) -> tuple[ExpectationGroup, ...]:
    """The groups of a table with one rule each, so that the example rows of a group are those of a rule."""
    return tuple(
        replace(group, name=f"{group.name} {number}", rules=(rule,))
        for group in groups_for(table, settings, rules)
        for number, rule in enumerate(group.rules)
    )


# The columns derived for rules, each with its source columns and a function of their values in a row.
DERIVED: Mapping[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    EARLIEST_PLAUSIBLE: ((), lambda: datetime(1990, 1, 1)),
    PERIOD_START: (("period",), datetime.fromisoformat),
    PERIOD_END: (("period",), lambda key: (datetime.fromisoformat(key) + timedelta(days=31)).replace(day=1)),
    N_DIGITS: (("product_id",), lambda text: sum(character.isdigit() for character in text)),
    UNCHANGED_SEGMENT: (("from_segment_id", "to_segment_id"), lambda old, new: old if old == new else None),
}


def as_plain_pandas(frame: pl.DataFrame) -> Any:
    """A frame with the derived columns, as pandas' own types.

    Not-a-number becomes infinity: pandas would take it for a missing value.
    """
    rows = frame.to_dicts()
    for name, (sources, derive) in DERIVED.items():
        if set(sources) <= set(frame.columns):
            cells = [[row[source] for source in sources] for row in rows]
            values = [None if None in cell else derive(*cell) for cell in cells]
            frame = frame.with_columns(pl.Series(name, values, None if values else pl.String))
    return frame.fill_nan(float("inf")).to_pandas()


@cache
def batch_definition() -> BatchDefinition[Any]:
    """A batch of a whole pandas frame, in a context of Great Expectations that is kept in memory."""
    no_telemetry.switch_off()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("pandas")
    return source.add_dataframe_asset("frame").add_batch_definition_whole_dataframe("whole")


def validate_in_public(frame: Any, rules: Mapping[str, Rule]) -> dict[str, ExpectationValidationResult]:
    """One result per rule, by the rule's key, from Great Expectations' public interface alone."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    # The results come in another order than the expectations.
    expectations = [getattr(gxe, rule.expectation)(**rule.kwargs, meta={"key": key}) for key, rule in rules.items()]
    suite = gx.ExpectationSuite("of a table", expectations=expectations)
    outcome = batch_definition().get_batch({"dataframe": frame}).validate(suite, result_format="COMPLETE")
    by_key = {}
    for result in outcome.results:
        assert result.expectation_config is not None
        by_key[result.expectation_config.meta["key"]] = result
    return by_key


def has_exception(result: ExpectationValidationResult) -> bool:
    raised = result.exception_info or {}
    return any(info["raised_exception"] for info in ([raised] if "raised_exception" in raised else raised.values()))


def frames_of(table: str) -> dict[str, pl.DataFrame]:
    """Good, spoiled and unusual frames of a table; few, as the public interface takes up to half a second for each."""
    good = GOOD[table]
    numbers = [name for name, dtype in good.schema.items() if dtype.is_float()]
    spoiled = [(row, values) for name, _, row, values in SPOILED if name == table]
    each_row_once = good
    for row, values in dict(reversed(spoiled)).items():
        each_row_once = spoil(each_row_once, row, values)
    return {
        "good": good,
        "empty": good.clear(),
        "each row spoiled once": each_row_once,
        "spoiled in all ways, with repeated rows": pl.concat(spoil(good, row, values) for row, values in spoiled),
        "a column missing, one unknown, one with text where numbers are expected": good.drop(
            EXAMPLE_KEYS[table][1]
        ).with_columns(pl.lit("soon").alias(name) for name in (*numbers[:1], "unknown")),
        "nothing known but the period": good.select(
            pl.col(name) if name == "period" else pl.lit(None, dtype).alias(name) for name, dtype in good.schema.items()
        ),
    }


@pytest.mark.parametrize(("table", "rules"), SUITES)
def test_verdicts_counts_and_rows_are_those_of_the_public_interface(
    table: str, rules: CleaningRules | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "groups_for", split_into_rules)
    every = {group.name: group.rules[0] for group in split_into_rules(table, SETTINGS, rules)}
    about_rows = {key: rule for key, rule in every.items() if rule.columns}
    about_the_columns = {key: rule for key, rule in every.items() if not rule.columns}
    for situation, frame in frames_of(table).items():
        theirs = validate_in_public(as_plain_pandas(frame), about_rows)
        theirs |= validate_in_public(frame.to_pandas(), about_the_columns)
        ours = {result.group.name: result for result in validation.validate(frame, table, SETTINGS, rules=rules)}
        for key, rule in every.items():
            if frame.is_empty() and rule.expectation in AGGREGATES:
                assert ours[key].success
            else:
                assert_equal(frame, rule, ours[key], theirs[key], f"{situation}: {rule.words}")


def assert_equal(
    frame: pl.DataFrame, rule: Rule, ours: GroupResult, theirs: ExpectationValidationResult, message: str
) -> None:
    """Verdict, count, values shown and example rows are the same, or both could not check the rule."""
    [found] = ours.rules
    if has_exception(theirs):
        assert not theirs.success, message
        assert not found.success, message
        assert found.observed.startswith("not checked: "), message
        return
    n_unexpected = theirs.result.get("unexpected_count") or 0
    assert (found.success, found.n_unexpected) == (theirs.success, n_unexpected), message
    # A missing number is "None" or "nan", as pandas keeps its column.
    expected = "; ".join(validation._observations(theirs))
    assert found.observed.replace("nan", "None") == expected.replace("nan", "None"), message
    positions = sorted(theirs.result.get("unexpected_index_list") or [])
    assert len(positions) == n_unexpected, message
    rows = frame[[] if found.success else positions[: validation.MAX_EXAMPLES]]
    names = dict.fromkeys((*EXAMPLE_KEYS[ours.group.table], *rule.columns))
    # As text, in which not-a-number equals itself.
    expected_rows = rows.select(name for name in names if name in frame.columns).to_dicts()
    assert str(list(ours.examples)) == str(expected_rows), message
