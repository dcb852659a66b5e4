"""Our verdicts are those of Great Expectations' public interface.

``validation`` builds graphs of metrics, caches configurations and overrides a private method, which Great Expectations
does not document for users. A new version of it must not change a verdict, a count or a row unnoticed.
"""

from __future__ import annotations

from collections import Counter
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

# Of no rows Great Expectations says that their mean lies in no range, and we that nothing is wrong with them.
OF_THE_WHOLE_COLUMN = ("ExpectColumnMeanToBeBetween", "ExpectColumnUniqueValueCountToBeBetween")
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


# The columns that rules may use besides the table's own, worked out from a row.
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
def whole_frames() -> BatchDefinition[Any]:
    no_telemetry.switch_off()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("pandas")
    return source.add_dataframe_asset("frame").add_batch_definition_whole_dataframe("whole")


def ask_great_expectations(frame: Any, rules: Mapping[str, Rule]) -> dict[str, ExpectationValidationResult]:
    """What its public interface says of every rule, by the rule's key."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    # Its results come in an order of its own.
    expectations = [getattr(gxe, rule.expectation)(**rule.kwargs, meta={"key": key}) for key, rule in rules.items()]
    outcome = (
        whole_frames()
        .get_batch({"dataframe": frame})
        .validate(
            gx.ExpectationSuite("of a table", expectations=expectations),
            result_format="COMPLETE",
        )
    )
    by_key = {}
    for result in outcome.results:
        assert result.expectation_config is not None
        by_key[result.expectation_config.meta["key"]] = result
    return by_key


def has_raised(result: ExpectationValidationResult) -> bool:
    raised = result.exception_info or {}
    return any(info["raised_exception"] for info in ([raised] if "raised_exception" in raised else raised.values()))


def frames_of(table: str) -> dict[str, pl.DataFrame]:
    """Frames of a table by what is special about them."""
    good = GOOD[table]
    numbers = [name for name, dtype in good.schema.items() if dtype.is_float()]
    frames = {
        "good": good,
        "empty": good.clear(),
        "one row, so that most conditions select none": good.head(1),
        "repeated rows, more than are shown": pl.concat([good] * 3),
        "a column missing, one unknown, one with text where numbers are expected": good.drop(
            EXAMPLE_KEYS[table][1]
        ).with_columns(pl.lit("soon").alias(name) for name in (*numbers[:1], "unknown")),
        "nothing known but the period": good.select(
            pl.col(name) if name == "period" else pl.lit(None, dtype).alias(name) for name, dtype in good.schema.items()
        ),
    }
    # Great Expectations takes long for each frame, so spoiled rows share one as far as they are different rows.
    times_spoiled: Counter[int] = Counter()
    for spoiled, _, row, values in SPOILED:
        if spoiled == table:
            times_spoiled[row] += 1
            situation = f"spoiled {times_spoiled[row]}"
            frames[situation] = spoil(frames.get(situation, good), row, values)
    return frames


@pytest.mark.parametrize(("table", "rules"), SUITES)
def test_verdicts_counts_and_rows_are_those_of_the_public_interface(
    table: str, rules: CleaningRules | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "groups_for", split_into_rules)
    every = {group.name: group.rules[0] for group in split_into_rules(table, SETTINGS, rules)}
    about_rows = {key: rule for key, rule in every.items() if rule.columns}
    about_the_columns = {key: rule for key, rule in every.items() if not rule.columns}
    for situation, frame in frames_of(table).items():
        theirs = ask_great_expectations(as_plain_pandas(frame), about_rows)
        theirs |= ask_great_expectations(frame.to_pandas(), about_the_columns)
        ours = {result.group.name: result for result in validation.validate(frame, table, SETTINGS, rules=rules)}
        for key, rule in every.items():
            if frame.is_empty() and rule.expectation in OF_THE_WHOLE_COLUMN:
                assert ours[key].success
            else:
                assert_equal(frame, rule, ours[key], theirs[key], f"{situation}: {rule.words}")


def assert_equal(
    frame: pl.DataFrame, rule: Rule, ours: GroupResult, theirs: ExpectationValidationResult, message: str
) -> None:
    """Verdict, count, values shown and example rows are the same; or neither could look."""
    [found] = ours.rules
    if has_raised(theirs):
        assert not theirs.success, message
        assert not found.success, message
        assert found.observed.startswith("not checked: "), message
        return
    positions = theirs.result.get("unexpected_index_list") or []
    assert (found.success, found.n_unexpected) == (theirs.success, len(positions)), message
    # A missing number is "None" or "nan", as pandas keeps its column.
    expected = "; ".join(validation._observations(theirs))
    assert found.observed.replace("nan", "None") == expected.replace("nan", "None"), message
    rows = frame[[] if found.success else sorted(positions)[: validation.MAX_EXAMPLES]]
    names = list(ours.examples[0]) if ours.examples else []
    assert set(rule.columns).intersection(frame.columns) <= set(names) or not ours.examples, message
    # As text, in which not-a-number equals itself.
    assert str(list(ours.examples)) == str(rows.select(names).to_dicts()), message
