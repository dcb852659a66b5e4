"""Checks a frame against its table's suite, in one Great Expectations validation, and finds the rows that break a rule.

Great Expectations filters and fingerprints whole frames, so it is given only the columns that rules read: numbers as
NumPy arrays, text as categories, which it handles many times faster than text itself. For speed this module also goes
past Great Expectations' public interface; ``tests/expectations`` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from custseg_assets import no_telemetry
from custseg_assets.domain.markdown import as_text
from custseg_assets.domain.periods import EARLIEST_DATE, Cadence, end_of, start_of
from custseg_assets.domain.transactions.cleaning import CleaningRules
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
from custseg_assets.late_imports import put_off_imports
from custseg_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.validator.validation_graph import ExpectationValidationGraph

MAX_EXAMPLES = 5
MAX_VALUES_SHOWN = 3
_BOUNDS = (EARLIEST_PLAUSIBLE, PERIOD_START, PERIOD_END)
_SOURCES = {
    **dict.fromkeys(_BOUNDS, ("period",)),
    N_DIGITS: ("product_id",),
    UNCHANGED_SEGMENT: ("from_segment_id", "to_segment_id"),
}
"""The columns derived for rules, with the columns of text that each is derived from."""


@dataclass(frozen=True)
class RuleResult:
    """The result of one rule.

    Attributes:
        words: what the rule says.
        success: whether it is met.
        n_unexpected: rows that break it; 0 for a rule about the whole table.
        observed: what was found, in words.
    """

    words: str
    success: bool
    n_unexpected: int
    observed: str


@dataclass(frozen=True)
class GroupResult:
    """The result of one group of rules.

    Attributes:
        group: that was checked.
        n_rows: rows that were checked.
        rules: one result per rule.
        examples: some of the rows that break it, with the columns that identify them and those that broken rules read.
    """

    group: ExpectationGroup
    n_rows: int
    rules: tuple[RuleResult, ...]
    examples: tuple[Mapping[str, Any], ...]

    @property
    def success(self) -> bool:
        """Whether every rule is met."""
        return all(rule.success for rule in self.rules)

    @property
    def n_unexpected(self) -> int:
        """Rows that break the rule that most rows break; at least this many rows are wrong."""
        return max((rule.n_unexpected for rule in self.rules), default=0)

    def markdown(self) -> str:
        """The result as Markdown: each rule with what was found, and the example rows."""
        lines = [f"{self.group.description}\n" if not self.success else f"Holds for {self.n_rows:,} rows.\n"]
        if not self.rules:
            return "Nothing is configured that could be broken.\n"
        lines += ["| | expected | rows that are not so | found |", "|---|---|---:|---|"]
        lines += [
            f"| {'✓' if rule.success else '✗'} | {_cell(rule.words)} | {rule.n_unexpected:,} | {_cell(rule.observed)} |"
            for rule in self.rules
        ]
        if self.examples:
            names = list(self.examples[0])
            header = " | ".join(map(as_text, names))
            lines += ["", "For example:", "", f"| {header} |", f"|{'---|' * len(names)}"]
            lines += [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in self.examples]
        return "\n".join(lines) + "\n"


def validate(
    frame: pl.DataFrame,
    table: str,
    settings: Settings,
    *,
    rules: CleaningRules | None = None,
    measured: pl.DataFrame | None = None,
    data_docs_dir: Path | None = None,
    wanted: Callable[[Rule], bool] = lambda _: True,
) -> tuple[GroupResult, ...]:
    """Check every row of some partitions of a table.

    Args:
        frame: with the table's columns, of one or more partitions.
        table: a name in ``EXAMPLE_KEYS``.
        settings: what the table was made with.
        rules: the shop's cleaning rules in force; if not given, the configured ones.
        measured: columns, row by row, that rules read besides the table's own; without them these rules fail.
        data_docs_dir: where to write a page about the validation; if not given, none is written.
        wanted: which rules to check; the results of others say that they are met.

    Returns:
        One result per group of ``groups_for``, in its order.
    """
    groups = groups_for(table, settings, rules)
    every = {
        f"{group.name} {number}": rule for group in groups for number, rule in enumerate(group.rules) if wanted(rule)
    }
    read = frame if measured is None else frame.hstack(measured)
    about_rows = {key: rule for key, rule in every.items() if rule.columns and not _why_unchecked(rule, read)}
    results: dict[str, ExpectationValidationResult] = {}
    if frame.height and about_rows:
        results |= _validate_rules(_select_columns(read, about_rows, settings.snapshots.cadence), table, about_rows)
    results |= _validate_rules(frame.clear(), table, {key: rule for key, rule in every.items() if not rule.columns})
    of_groups = tuple(_group_result(group, read, every, results) for group in groups)
    if data_docs_dir is not None:
        from custseg_assets.expectations.data_docs import write_page

        write_page(data_docs_dir, table, frame, list(results.values()))
    return of_groups


def combined(parts: Sequence[GroupResult]) -> GroupResult:
    """One result of a group that was checked on several parts of a table.

    Args:
        parts: at least one.
    """
    rules = tuple(
        RuleResult(
            words=same[0].words,
            success=all(rule.success for rule in same),
            n_unexpected=sum(rule.n_unexpected for rule in same),
            observed="; ".join(dict.fromkeys(rule.observed for rule in same if rule.observed)),
        )
        for same in zip(*(part.rules for part in parts), strict=True)
    )
    examples = tuple(chain.from_iterable(part.examples for part in parts))[:MAX_EXAMPLES]
    return GroupResult(parts[0].group, sum(part.n_rows for part in parts), rules, examples)


def together(parts: Sequence[GroupResult]) -> GroupResult:
    """The result of a group that was checked on parts of a frame, as if on the whole.

    A rule that some of the rows may break is judged by all rows; any other is met where every part meets it.

    Args:
        parts: at least one.
    """
    whole = combined(parts)
    allowed = [_n_allowed(rule, whole.n_rows) for rule in whole.group.rules]
    rules = tuple(
        result if most is None or not result.n_unexpected else replace(result, success=result.n_unexpected <= most)
        for result, most in zip(whole.rules, allowed, strict=True)
    )
    return replace(whole, rules=rules, examples=() if all(rule.success for rule in rules) else whole.examples)


def _n_allowed(rule: Rule, n_rows: int) -> float | None:
    """How many rows may break a rule; ``None`` for one that none may, or that is not about every row.

    ``ExpectColumnValuesToBeNull`` and its opposite count all rows; others leave out those without a value.
    """
    counts_all = rule.expectation in ("ExpectColumnValuesToBeNull", "ExpectColumnValuesToNotBeNull")
    if "mostly" not in rule.kwargs or "row_condition" in rule.kwargs or not counts_all:
        return None
    return (1 - float(rule.kwargs["mostly"])) * n_rows


def _why_unchecked(rule: Rule, frame: pl.DataFrame) -> str:
    """Why a rule cannot be checked on a frame; empty where it can."""
    missing = {source for name in rule.columns for source in _SOURCES.get(name, (name,))}.difference(frame.columns)
    if missing:
        return f"not checked: there is no column {', '.join(sorted(missing))}"
    sources = {source for name in rule.columns for source in _SOURCES.get(name, ())}
    not_text = sorted(source for source in sources if frame.schema[source] != pl.String)
    return f"not checked: {', '.join(not_text)} holds no text" if not_text else ""


def _select_columns(frame: pl.DataFrame, rules: Mapping[str, Rule], cadence: Cadence) -> pl.DataFrame:
    """The columns that rules read; those derived for rules are added first."""
    names = sorted({name for rule in rules.values() for name in rule.columns})
    if UNCHANGED_SEGMENT in names:
        source = pl.col("from_segment_id")
        frame = frame.with_columns(pl.when(source == pl.col("to_segment_id")).then(source).alias(UNCHANGED_SEGMENT))
    if N_DIGITS in names:
        # Great Expectations compares signed integers as arrays, and unsigned ones one row at a time.
        frame = frame.with_columns(pl.col("product_id").str.count_matches(r"\d").cast(pl.Int64).alias(N_DIGITS))
    if not set(names).isdisjoint(_BOUNDS):
        keys = frame["period"].drop_nulls().unique().to_list()
        starts = {key: datetime.combine(start_of(key), datetime.min.time()) for key in keys}
        ends = {key: end_of(key, cadence) for key in keys}
        frame = frame.with_columns(
            pl.lit(EARLIEST_DATE, pl.Datetime("us")).alias(EARLIEST_PLAUSIBLE),
            _by_period(starts).alias(PERIOD_START),
            _by_period(ends).alias(PERIOD_END),
        )
    return frame.select(names)


def _by_period(instants: Mapping[str, datetime]) -> pl.Expr:
    return pl.col("period").replace_strict(instants, default=None, return_dtype=pl.Datetime("us"))


def _validate_rules(
    frame: pl.DataFrame, table: str, rules: Mapping[str, Rule]
) -> dict[str, ExpectationValidationResult]:
    """One result per rule; finding the broken rows costs as much as all verdicts, so it is a second step."""
    execution_engine = _caching_execution_engine()(batch_data_dict={table: _to_pandas(frame)})
    results = _compile_suite(tuple(rules.items()), with_rows=False).validate(execution_engine)
    # A rule that some rows may break needs none of them shown where it holds.
    broken = tuple(
        (key, rule)
        for key, rule in rules.items()
        if not results[key].success and results[key].result.get("unexpected_count")
    )
    # The frame of the broken rows carries their positions; the values alone would not say which rows they are in.
    return results | _compile_suite(broken, with_rows=True).validate(execution_engine) if broken else results


@dataclass(frozen=True)
class _CompiledSuite:
    """Expectations with the graphs of the metrics they need, to validate one frame after the other.

    Great Expectations' own validator builds these graphs again for every frame, which takes longer than computing the
    metrics.
    """

    expectations: Mapping[str, Expectation]
    graphs: Mapping[str, ExpectationValidationGraph]
    options: dict[str, Any]

    def validate(self, execution_engine: PandasExecutionEngine) -> dict[str, ExpectationValidationResult]:
        """One result per rule; for a rule that could not be checked the reason."""
        from great_expectations.validator.validation_graph import ValidationGraph

        edges = [edge for graph in self.graphs.values() for edge in graph.graph.edges]
        graph = ValidationGraph(execution_engine, edges)
        metrics, aborted = graph.resolve(deepcopy(self.options), show_progress_bars=False)
        return {key: self._result(key, metrics, aborted, execution_engine) for key in self.expectations}

    def _result(
        self, key: str, metrics: Any, aborted: Any, execution_engine: PandasExecutionEngine
    ) -> ExpectationValidationResult:
        from great_expectations.core.expectation_validation_result import ExpectationValidationResult
        from great_expectations.validator.exception_info import ExceptionInfo

        expectation = self.expectations[key]
        failed = self.graphs[key].get_exception_info(aborted)
        if not failed:
            try:
                return expectation.metrics_validate(metrics, deepcopy(self.options), execution_engine=execution_engine)
            except Exception as error:  # noqa: BLE001  (the reason why a rule could not be checked is its result)
                failed = ExceptionInfo(format_exc(), str(error))
        return ExpectationValidationResult(
            success=False, exception_info=failed, expectation_config=expectation.configuration
        )


@lru_cache(maxsize=64)
def _compile_suite(rules: tuple[tuple[str, Rule], ...], *, with_rows: bool) -> _CompiledSuite:
    """The expectations of rules, by the rules' keys; ``with_rows`` for results that contain the broken rows."""
    from great_expectations.validator.metrics_calculator import MetricsCalculator
    from great_expectations.validator.validation_graph import ExpectationValidationGraph

    wanted = {"result_format": "BASIC", "partial_unexpected_count": MAX_EXAMPLES, "include_unexpected_rows": with_rows}
    options = {"result_format": wanted}
    execution_engine = _caching_execution_engine()()
    calculator = MetricsCalculator(execution_engine)
    expectations = {key: _caching_expectation(rule.expectation)(**rule.kwargs) for key, rule in rules}
    graphs = {}
    for key, expectation in expectations.items():
        dependencies = expectation.get_validation_dependencies(execution_engine, deepcopy(options))
        graphs[key] = ExpectationValidationGraph(
            expectation.configuration,
            calculator.build_metric_dependency_graph(dependencies.get_metric_configurations(), options),
        )
    return _CompiledSuite(expectations, graphs, options)


@cache
def _caching_expectation(name: str) -> type[Expectation]:
    """Great Expectations' class of that name, which works out its configuration and its metrics only once.

    The original works out its configuration 70 times in a validation, which takes longer than checking the rows of a
    snapshot.
    """
    import great_expectations.expectations as gxe
    from great_expectations.compatibility.pydantic import PrivateAttr

    original = getattr(gxe, name)

    def configuration(self: Any) -> Any:
        if self._configuration is None:
            self._configuration = original.configuration.fget(self)
        return self._configuration

    def get_validation_dependencies(self: Any, *args: Any, **kwargs: Any) -> Any:
        # The same every time: an expectation belongs to one suite, which has one set of options.
        if self._dependencies is None:
            self._dependencies = original.get_validation_dependencies(self, *args, **kwargs)
        return self._dependencies

    added = {
        "configuration": property(configuration),
        "get_validation_dependencies": get_validation_dependencies,
        "_configuration": PrivateAttr(None),
        "_dependencies": PrivateAttr(None),
        "__module__": __name__,
    }
    return cast("type[Expectation]", type(original)(f"Caching{name}", (original,), added))


@cache
def _caching_execution_engine() -> type[PandasExecutionEngine]:
    """Great Expectations' class for pandas, which selects the rows of a row condition only once.

    The original has pandas parse and run the query again for every metric of every rule, at 5 ms each.
    """
    # Whatever is validated, this is the first that imports Great Expectations.
    no_telemetry.switch_off()
    put_off_imports()
    from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine

    class CachingPandasExecutionEngine(PandasExecutionEngine):
        def _apply_row_condition_filter(self, data: Any, row_condition: Any, domain_kwargs: Any) -> Any:
            # The frame is kept with its rows, so that no other can get its id.
            kept = self.__dict__.setdefault("_selected", {})
            key = id(data), repr(row_condition)
            if key not in kept:
                kept[key] = data, super()._apply_row_condition_filter(data, row_condition, domain_kwargs)
            return kept[key][1]

    return CachingPandasExecutionEngine


def _to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """Numbers as NumPy, text as categories, not-a-number as infinity: pandas would take it for a missing value."""
    import pandas as pd

    if frame.is_empty():
        return pd.DataFrame(columns=frame.columns)

    def convert(column: pl.Series) -> Any:
        if column.dtype == pl.String:
            return column.to_arrow().dictionary_encode().to_pandas()
        return (column.fill_nan(float("inf")) if column.dtype.is_float() else column).to_numpy()

    return pd.DataFrame({column.name: convert(column) for column in frame})


def _group_result(
    group: ExpectationGroup,
    frame: pl.DataFrame,
    wanted: Mapping[str, Rule],
    by_key: Mapping[str, ExpectationValidationResult],
) -> GroupResult:
    results, broken, positions = [], [], []
    for number, rule in enumerate(group.rules):
        key = f"{group.name} {number}"
        result = by_key.get(key)
        results.append(_rule_result(rule, result, _why_unchecked(rule, frame) if key in wanted else ""))
        if result is not None and not result.success:
            broken += [name for name in rule.columns if name in frame.columns]
            positions.append(_positions(result))
    in_turn = dict.fromkeys(position for turn in zip_longest(*positions) for position in turn if position is not None)
    keys = [name for name in EXAMPLE_KEYS[group.table] if name in frame.columns]
    examples = frame[sorted(list(in_turn)[:MAX_EXAMPLES])].select(*dict.fromkeys([*keys, *broken]))
    return GroupResult(group, frame.height, tuple(results), tuple(examples.to_dicts()))


def _rule_result(rule: Rule, result: ExpectationValidationResult | None, why_unchecked: str) -> RuleResult:
    if result is None:
        return RuleResult(rule.words, not why_unchecked, 0, why_unchecked)
    n_unexpected = int(result.result.get("unexpected_count") or 0)
    return RuleResult(rule.words, bool(result.success), n_unexpected, "; ".join(_observations(result)))


def _observations(result: ExpectationValidationResult) -> Iterator[str]:
    """What Great Expectations found, in words: why it could not check, the value of the table, or some wrong values."""
    raised = result.exception_info or {}
    for info in raised.values() if "raised_exception" not in raised else [raised]:
        if info["raised_exception"]:
            yield f"not checked: {info['exception_message']}"
    if result.success:
        return
    for words, names in (result.result.get("details", {}).get("mismatched") or {}).items():
        yield f"{words} {', '.join(names)}"
    values = result.result.get("partial_unexpected_list")
    if values:
        yield ", ".join(dict.fromkeys(_format_value(value) for value in values[:MAX_VALUES_SHOWN]))
    elif isinstance(result.result.get("observed_value"), int | float):
        yield f"{result.result['observed_value']:g}"


def _format_value(value: Any) -> str:
    """A wrong value, or several that are wrong together."""
    together = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else (value,)
    return " / ".join(str(part) for part in together)


def _positions(result: ExpectationValidationResult) -> list[int]:
    rows = result.result.get("unexpected_rows")
    return [] if rows is None else [int(position) for position in rows.index]


def _cell(value: object) -> str:
    """A value as the text of a Markdown table's cell."""
    return "–" if value is None else as_text(value)
