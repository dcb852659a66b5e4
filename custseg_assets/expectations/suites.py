"""What is expected of each table, as data: no Great Expectations is needed to define, name or describe a check.

A group of rules becomes one asset check. It blocks where going on would spoil the tables made after it. Its description
first says what is true, for it stands beside "passed" most of the time, and then what goes wrong otherwise. Checking a
frame belongs in ``validation``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

from custseg_assets.domain.campaigns.outcomes import OUTCOMES, RETURN
from custseg_assets.domain.campaigns.report import VERDICTS
from custseg_assets.domain.drift.report import Verdict
from custseg_assets.domain.schemas import tables
from custseg_assets.domain.segments.migrations import CAUSES
from custseg_assets.domain.segments.model import LAPSED, REFUNDED
from custseg_assets.domain.segments.training_tables import OFF_REFERENCE
from custseg_assets.domain.transactions.cleaning import REASONS, CleaningRules
from custseg_assets.domain.transactions.limits import MAX_AMOUNT, MAX_SUM
from custseg_assets.domain.value.methods import HORIZONS, METHODS
from custseg_assets.settings import ModelSettings, Settings

Severity = Literal["error", "warning"]

PERIOD_START, PERIOD_END, EARLIEST_PLAUSIBLE = "period_start", "period_end", "earliest_plausible"
"""Columns derived for rules that compare instants: the first instant of the row's period, the first after it, and the
first of ``EARLIEST_DATE``. Great Expectations compares an instant with a constant one row at a time, which takes 20
times as long as comparing two columns."""

UNCHANGED_SEGMENT = "unchanged_segment"
"""A column derived for a rule: the segment of a move that ends in the segment where it began, null in all others. Great
Expectations looks for values that differ within a row one row at a time."""

N_DIGITS = "n_digits"
"""A column derived for a rule: the digits in the product id, as Great Expectations matches text one row at a time."""

MAX_OFF_REFERENCE = 1e-6
"""How far, in units of ``log1p``, a scaled value may be from what the reference makes of its feature: rounding."""

MAX_SCALED_MEAN = 1.0
"""Standard deviations that the average customer may be away from the reference's."""

MIN_SHARE_WITH_CUSTOMER = 0.5
MIN_SHARE_READABLE = 0.99
MIN_SHARE_FOUND = 0.5

PREDICTION_KINDS = ("lookup", "score", "dropped")
RULE_NAMES = (REFUNDED.name, LAPSED.name)


_ABOUT_WHOLE = ("ExpectColumnMeanToBeBetween", "ExpectColumnUniqueValueCountToBeBetween")


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes:
        words: the rule as people read it.
        expectation: name of the class in ``great_expectations.expectations``.
        kwargs: its arguments.
        columns: the columns it reads, its condition's too; none where it is about the table's columns themselves.
    """

    words: str
    expectation: str
    kwargs: Mapping[str, Any] = field(hash=False)
    columns: tuple[str, ...]

    @property
    def is_about_whole(self) -> bool:
        """Whether it is about all rows together: what slices of a partition say does not add up to an answer."""
        return self.expectation in _ABOUT_WHOLE or self.kwargs.get("mostly", 1.0) < 1.0


@dataclass(frozen=True)
class ExpectationGroup:
    """Rules that guard against the same harm.

    Attributes:
        name: of the check, unique within its table.
        table: that it is about.
        description: what is true of the table, and what goes wrong otherwise.
        severity: of a failure.
        is_blocking: whether a failure stops the assets made from the table.
        rules: that must all be met; none where nothing is configured that could be broken.
    """

    name: str
    table: str
    description: str
    severity: Severity
    is_blocking: bool
    rules: tuple[Rule, ...]


EXAMPLE_KEYS: Mapping[str, tuple[str, ...]] = {
    "raw_transactions": ("period", "source_file", "source_row", "invoice_id", "customer_id"),
    "clean_transactions": ("period", "customer_id", "invoice_id", "invoiced_at", "product_id"),
    "rejected_transactions": ("period", "source_file", "source_row", "reason"),
    "customer_features": ("period", "customer_id"),
    "scaled_features": ("period", "customer_id"),
    "segment_assignments": ("period", "customer_id", "segment_id"),
    "segment_migrations": ("period", "customer_id", "from_segment_id", "to_segment_id", "cause"),
    "customer_value": ("period", "customer_id"),
    "drift_report": ("period", "score_name", "subject"),
    "prediction_log": ("period", "source_file", "source_line", "kind", "outcome"),
    "campaign_groups": ("period", "campaign", "customer_id", "segment_id"),
    "campaign_report": ("period", "campaign", "figure", "segment_id"),
}
"""Columns that identify the rows shown as examples, by table; the tables are those that have suites."""


@dataclass(frozen=True)
class _Where:
    """A row condition: a rule is about the rows in which comparing ``column`` with ``value`` gives true."""

    column: str
    operator: str
    value: Any

    @property
    def condition(self) -> dict[str, Any]:
        """The condition in Great Expectations' form."""
        return {
            "type": "comparison",
            "column": {"name": self.column},
            "operator": self.operator,
            "parameter": self.value,
        }

    def __str__(self) -> str:
        return f" where {self.column} {self.operator} {self.value}"


def _rule(words: str, expectation: str, columns: Sequence[str], where: _Where | None, **kwargs: Any) -> Rule:
    if where is None:
        return Rule(words, expectation, kwargs, tuple(columns))
    return Rule(f"{words}{where}", expectation, kwargs | {"row_condition": where.condition}, (*columns, where.column))


def _present(*names: str, where: _Where | None = None, share: float = 1.0) -> list[Rule]:
    words = "is never missing" if share == 1.0 else f"is there in at least {share:.0%} of the rows"
    return _each(names, words, "ExpectColumnValuesToNotBeNull", where, mostly=share)


def _absent(*names: str, where: _Where | None = None, share: float = 1.0) -> list[Rule]:
    words = "is missing" if share == 1.0 else f"is missing in at least {share:.0%} of the rows"
    return _each(names, words, "ExpectColumnValuesToBeNull", where, mostly=share)


def _each(names: Sequence[str], words: str, expectation: str, where: _Where | None, **kwargs: Any) -> list[Rule]:
    """The same rule about each of some columns."""
    return [_rule(f"{name} {words}", expectation, [name], where, column=name, **kwargs) for name in names]


def _between(low: float | None, high: float | None, *names: str, where: _Where | None = None) -> list[Rule]:
    words = f"at least {low:g}" if high is None else f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
    return _each(names, f"is {words}", "ExpectColumnValuesToBeBetween", where, min_value=low, max_value=high)


def _above_zero(*names: str) -> list[Rule]:
    return _each(names, "is more than 0", "ExpectColumnValuesToBeBetween", None, min_value=0, strict_min=True)


def _one_of(name: str, values: Sequence[str], where: _Where | None = None) -> list[Rule]:
    words = f"is one of {', '.join(values)}"
    return _each([name], words, "ExpectColumnValuesToBeInSet", where, value_set=list(values))


def _none_of(name: str, values: Sequence[str], where: _Where | None = None) -> list[Rule]:
    words = f"is none of {', '.join(values)}"
    return _each([name], words, "ExpectColumnValuesToNotBeInSet", where, value_set=list(values))


def _not_less(larger: str, smaller: str, *, where: _Where | None = None, or_equal: bool = True) -> Rule:
    return _rule(
        f"{larger} is {'not less' if or_equal else 'more'} than {smaller}",
        "ExpectColumnPairValuesAToBeGreaterThanB",
        [larger, smaller],
        where,
        column_A=larger,
        column_B=smaller,
        or_equal=or_equal,
        ignore_row_if="either_value_is_missing",
    )


def _unique(*names: str) -> Rule:
    words = f"no two rows have equal {', '.join(names)}"
    return _rule(words, "ExpectCompoundColumnsToBeUnique", names, None, column_list=list(names))


def _key(*names: str) -> list[Rule]:
    return [*_present(*names), _unique(*names)]


def _segments_differ() -> Rule:
    words = "from_segment_id and to_segment_id differ"
    names = (UNCHANGED_SEGMENT, "from_segment_id", "to_segment_id")
    return _rule(words, "ExpectColumnValuesToBeNull", names, None, column=UNCHANGED_SEGMENT)


def groups_for(table: str, settings: Settings, rules: CleaningRules | None = None) -> tuple[ExpectationGroup, ...]:
    """The groups of rules that a table must meet; their names and descriptions do not depend on ``rules``.

    Args:
        table: a name in ``EXAMPLE_KEYS``.
        settings: for the segmentation features, the range of k and the configured cleaning.
        rules: the shop's cleaning rules in force, with what its preset adds; if not given, the configured ones.
    """
    in_force = rules or CleaningRules(
        settings.cleaning.service_code_max_digits,
        settings.cleaning.service_descriptions or (),
        settings.cleaning.cancellation_prefix,
    )
    of_table: Mapping[str, Callable[[], list[ExpectationGroup]]] = {
        "raw_transactions": _raw,
        "clean_transactions": partial(_clean, in_force),
        "rejected_transactions": _rejected,
        "customer_features": _features,
        "scaled_features": partial(_scaled, settings.model.features),
        "segment_assignments": partial(_assignments, settings.model),
        "segment_migrations": _migrations,
        "customer_value": _values,
        "drift_report": _drift,
        "prediction_log": _predictions,
        "campaign_groups": _campaign_groups,
        "campaign_report": _campaign_report,
    }
    return (_columns_present(table, settings), *of_table[table]())


def _columns_present(table: str, settings: Settings) -> ExpectationGroup:
    names = tables(settings.model.features)[table].schema.names()
    rule = _rule(
        f"the columns are {', '.join(names)}",
        "ExpectTableColumnsToMatchSet",
        (),
        None,
        column_set=names,
        exact_match=True,
    )
    return _group(
        table,
        "columns_present",
        [rule],
        "The columns are those declared; whatever reads the table would fail on others, or ignore them.",
        blocks=table not in ("rejected_transactions", "prediction_log"),
    )


def _group(
    table: str,
    name: str,
    rules: Sequence[Rule],
    description: str,
    severity: Severity = "error",
    blocks: bool | None = None,
) -> ExpectationGroup:
    return ExpectationGroup(
        name, table, description, severity, severity == "error" if blocks is None else blocks, tuple(rules)
    )


def _dates_in_period(table: str) -> ExpectationGroup:
    return _group(
        table,
        "dates_in_period",
        [_not_less("invoiced_at", PERIOD_START), _not_less(PERIOD_END, "invoiced_at", or_equal=False)],
        "Lines lie in the period they are filed under; snapshots would miss others, or see the future.",
    )


def _raw() -> list[ExpectationGroup]:
    table = "raw_transactions"
    return [
        _group(
            table,
            "lines_identified",
            [*_present("period", "source_file", "source_row"), _unique("source_file", "source_row")],
            "Each line of the source is there once and can be traced; repeated and late files would count twice.",
        ),
        _dates_in_period(table),
        _group(
            table,
            "dates_plausible",
            [_not_less("invoiced_at", EARLIEST_PLAUSIBLE)],
            "Dates are not older than any web shop; those that are come from empty dates or a wrong date format.",
            "warning",
        ),
        _group(
            table,
            "values_readable",
            [
                *_absent("unreadable_values", share=MIN_SHARE_READABLE),
                *_present("customer_id", share=MIN_SHARE_WITH_CUSTOMER),
            ],
            "Most lines can be used; where they cannot, a column is mapped wrongly or its format changed.",
            "warning",
        ),
    ]


def _clean(rules: CleaningRules) -> list[ExpectationGroup]:
    table = "clean_transactions"
    is_order, is_cancellation = _Where("is_cancellation", "==", False), _Where("is_cancellation", "==", True)
    services = []
    if rules.service_code_max_digits is not None:
        services.append(
            _rule(
                f"product_id has more than {rules.service_code_max_digits} digits",
                "ExpectColumnValuesToBeBetween",
                [N_DIGITS, "product_id"],
                None,
                column=N_DIGITS,
                min_value=rules.service_code_max_digits + 1,
            )
        )
    if rules.service_descriptions:
        services += _none_of("description", rules.service_descriptions)
    return [
        _group(
            table,
            "keys_present",
            _present("period", "customer_id", "invoice_id", "invoiced_at", "is_cancellation"),
            "Lines have customer, invoice and instant; orders and recency would be counted wrongly without.",
        ),
        _dates_in_period(table),
        _group(
            table,
            "amounts_finite",
            [
                *_present("line_amount"),
                *_between(-MAX_AMOUNT, MAX_AMOUNT, "line_amount", "quantity"),
                *_above_zero("unit_price"),
            ],
            "Amounts are there, finite and have a price; every sum that another entered would be wrong.",
        ),
        _group(
            table,
            "no_service_lines",
            services,
            "No postage, fees or corrections count as products; spend and recommendations would contain them.",
        ),
        _group(
            table,
            "amounts_signed",
            [
                *_between(0, None, "line_amount", where=is_order),
                *_between(None, 0, "line_amount", where=is_cancellation),
            ],
            "Orders add money and cancellations take it back; if not, check how the shop marks cancellations.",
            "warning",
        ),
    ]


def _rejected() -> list[ExpectationGroup]:
    table = "rejected_transactions"
    return [
        _group(
            table,
            "reason_known",
            [*_present("reason"), *_one_of("reason", REASONS)],
            "Rejected lines have a reason that the documentation explains.",
            blocks=False,
        ),
        _group(
            table,
            "reason_true",
            [
                *_absent("customer_id", where=_Where("reason", "==", "missing_customer")),
                *_between(None, 0, "unit_price", where=_Where("reason", "==", "non_positive_price")),
            ],
            "Rejected lines have a reason that fits their own values.",
            blocks=False,
        ),
        _group(
            table,
            "lines_identified",
            [*_present("period", "source_file", "source_row"), _unique("source_file", "source_row")],
            "Rejected lines can be traced to the source, and were rejected once.",
            blocks=False,
        ),
    ]


def _features() -> list[ExpectationGroup]:
    table = "customer_features"
    has_orders, has_none = _Where("frequency_orders", ">", 0), _Where("frequency_orders", "==", 0)
    of_orders = ("recency_days", "tenure_days", "avg_order_value", "favourite_weekday", "favourite_hour")
    always = ("frequency_orders", "monetary_gross", "monetary_net", "n_cancelled_orders", "cancellation_rate")
    return [
        _group(
            table,
            "one_row_per_customer",
            _key("period", "customer_id"),
            "A customer has one row in a snapshot; with several it would get several segments.",
        ),
        _group(
            table,
            "counts_and_shares_in_range",
            [
                *_between(0, None, "recency_days", "frequency_orders", "n_cancelled_orders", "n_products"),
                *_between(0, 1, "cancellation_rate"),
                *_between(0, 6, "favourite_weekday"),
                *_between(0, 23, "favourite_hour"),
                *_above_zero("days_between_orders"),
                _not_less("tenure_days", "recency_days"),
                *_between(-MAX_SUM, MAX_SUM, "monetary_gross", "monetary_net", "monthly_spend_mean"),
            ],
            "Features have values that their definitions allow; clusters would form around an error.",
        ),
        _group(
            table,
            "nulls_only_where_defined",
            [
                *_present(*always, "monthly_spend_mean"),
                *_present(*of_orders, where=has_orders),
                *_absent(*of_orders, where=has_none),
            ],
            "A customer with orders has the features of orders, and one without has none.",
        ),
        _group(
            table,
            "money_consistent",
            [*_between(0, None, "monetary_gross"), _not_less("monetary_gross", "monetary_net")],
            "Orders add up to money, and cancellations take some back; if not, check how the shop marks cancellations.",
            "warning",
        ),
    ]


def _scaled(features: Sequence[str]) -> list[ExpectationGroup]:
    table = "scaled_features"
    return [
        _group(
            table,
            "one_row_per_customer",
            _key("period", "customer_id"),
            "A customer has one row in a snapshot; with several it would weigh more than the others.",
        ),
        _group(
            table,
            "finite",
            [*_present(*features), *_between(-MAX_SUM, MAX_SUM, *features)],
            "The matrix has no gap and no infinite value; K-means could not be fitted or asked.",
        ),
        _group(
            table,
            "on_reference_scale",
            [
                _rule(
                    f"{name} is what the reference of the model in force makes of it",
                    "ExpectColumnValuesToBeBetween",
                    [f"{name}{OFF_REFERENCE}", name],
                    None,
                    column=f"{name}{OFF_REFERENCE}",
                    min_value=0,
                    max_value=MAX_OFF_REFERENCE,
                )
                for name in features
            ],
            "Values are the features on the scale of the model in force, however far customers lie from it; with "
            "another model's reference, or none, clusters and drift would compare what cannot be compared.",
        ),
        _group(
            table,
            "centred_on_reference",
            [
                _rule(
                    f"the mean of {name} is {-MAX_SCALED_MEAN:g} to {MAX_SCALED_MEAN:g}",
                    "ExpectColumnMeanToBeBetween",
                    [name],
                    None,
                    column=name,
                    min_value=-MAX_SCALED_MEAN,
                    max_value=MAX_SCALED_MEAN,
                )
                for name in features
            ],
            "The average customer is near the average the model was trained on; segments may not fit one far from it.",
            "warning",
        ),
    ]


def _assignments(model: ModelSettings) -> list[ExpectationGroup]:
    table, fewest_clusters = "segment_assignments", model.k_range[0]
    by_rule, by_cluster = _Where("is_rule_segment", "==", True), _Where("is_rule_segment", "==", False)
    held, not_held = _Where("is_held", "==", True), _Where("is_held", "==", False)
    return [
        _group(
            table,
            "one_segment_per_customer",
            _key("period", "customer_id"),
            "A customer has one segment; the service could not answer for one with none or several.",
        ),
        _group(
            table,
            "segment_named",
            [
                *_present("segment_id", "segment_name", "is_rule_segment", "model_version"),
                *_one_of("segment_name", RULE_NAMES, by_rule),
                *_none_of("segment_name", RULE_NAMES, by_cluster),
                *_absent("cluster", where=by_rule),
                *_present("cluster", where=by_cluster),
            ],
            "Segments have a name, and rule segments their own; people would address the wrong group otherwise.",
        ),
        _group(
            table,
            "margin_in_range",
            [
                *_present("is_held"),
                *_between(0, 1, "margin", where=not_held),
                *_between(-model.margin_rule, 0, "margin", where=held),
                *_between(0, MAX_SUM, "distance"),
                *_present("margin", "distance", "runner_up_segment_id", where=by_cluster),
                *_absent("margin", "distance", where=by_rule),
            ],
            "Distances are there and possible; how sure a segment is, and who may move, would be wrong.",
        ),
        _group(
            table,
            "no_empty_segment",
            [
                _rule(
                    f"at least {fewest_clusters} clusters hold customers",
                    "ExpectColumnUniqueValueCountToBeBetween",
                    ["cluster"],
                    by_cluster,
                    column="cluster",
                    min_value=fewest_clusters,
                )
            ],
            "As many clusters hold customers as a model must have; with fewer a segment ran empty.",
            "warning",
        ),
    ]


def _migrations() -> list[ExpectationGroup]:
    table = "segment_migrations"
    return [
        _group(
            table,
            "one_move_per_customer",
            _key("period", "customer_id"),
            "A customer moves once; moves and their revenue would be counted twice.",
        ),
        _group(
            table,
            "segments_differ",
            [*_present("from_segment_id", "to_segment_id", "from_segment_name", "to_segment_name"), _segments_differ()],
            "A move leads from one segment to another; staying would be counted as moving.",
        ),
        _group(
            table,
            "cause_known",
            [*_present("cause"), *_one_of("cause", CAUSES)],
            "A move has a cause that the documentation explains; the causes would not add up to all moves.",
        ),
    ]


def _values() -> list[ExpectationGroup]:
    table = "customer_value"
    probabilities = tuple(f"p_order_{days}d" for days in HORIZONS)
    amounts = ("expected_orders_90d", "expected_spend_90d")
    figures = (*probabilities, *amounts)
    return [
        _group(
            table,
            "one_row_per_customer",
            _key("period", "customer_id"),
            "A customer has one prediction in a snapshot; its spend would be counted twice with several.",
        ),
        _group(
            table,
            "figures_possible",
            [
                *_present(*figures, "method"),
                *_between(0, 1, *(f"{name}{end}" for name in probabilities for end in ("_low", "", "_high"))),
                *_between(0, MAX_SUM, *amounts),
                *_one_of("method", METHODS),
            ],
            "Probabilities lie between 0 and 1, and expected orders and spend are finite and not negative; whoever "
            "ranks or adds customers by them would be misled.",
        ),
        _group(
            table,
            "intervals_hold_figures",
            [rule for name in figures for rule in (_not_less(name, f"{name}_low"), _not_less(f"{name}_high", name))],
            "A figure lies within its own interval; nobody could tell what the interval is of otherwise.",
        ),
        _group(
            table,
            "longer_is_likelier",
            [_not_less(longer, shorter) for shorter, longer in itertools.pairwise(probabilities)],
            "An order within more days is not less likely; one of the probabilities would be wrong.",
        ),
    ]


def _drift() -> list[ExpectationGroup]:
    table = "drift_report"
    return [
        _group(
            table,
            "one_row_per_score",
            _key("period", "score_name", "subject"),
            "A score is reported once and for something; the report could not be read otherwise.",
        ),
        _group(
            table,
            "scores_finite",
            _between(0, MAX_SUM, "score", "threshold"),
            "Scores and thresholds are finite and not negative; no verdict can rest on others.",
        ),
        _group(
            table,
            "verdict_known",
            [
                *_present("verdict", "reference_period", "model_version", "n_customers"),
                *_one_of("verdict", get_args(Verdict)),
            ],
            "The verdict is one that retraining understands; drift would be ignored otherwise.",
        ),
        _group(
            table,
            "alerts_match_scores",
            [
                *_present("is_alert"),
                _not_less("score", "threshold", where=_Where("is_alert", "==", True)),
                _not_less("threshold", "score", where=_Where("is_alert", "==", False), or_equal=False),
            ],
            "Scores that reach their threshold alert, and no others.",
        ),
    ]


def _predictions() -> list[ExpectationGroup]:
    """None of these groups blocks: the answers were given, and an odd record must be kept to be examined."""
    table = "prediction_log"
    is_lookup, is_found = _Where("kind", "==", "lookup"), _Where("outcome", "==", "found")
    is_answer = _Where("kind", "!=", "dropped")
    return [
        _group(
            table,
            "records_identified",
            [*_present("period", "source_file", "source_line", "at"), _unique("source_file", "source_line")],
            "A record was taken in twice or cannot be traced: requests would be counted wrongly.",
            blocks=False,
        ),
        _group(
            table,
            "answers_traceable",
            [
                *_one_of("kind", PREDICTION_KINDS),
                *_present("request_id", "latency_ms", "release_id", "model_version", where=is_answer),
                *_present("segment_id", "is_rule_segment", "answer", where=is_found),
            ],
            "An answer does not say which request, release or model it belongs to, or what it was.",
            blocks=False,
        ),
        _group(
            table,
            "values_possible",
            [
                *_between(0, None, "latency_ms", "recency_days", "frequency_orders"),
                *_between(-1, 1, "margin"),
                *_between(-MAX_SUM, MAX_SUM, "monetary_net"),
            ],
            "An answer rests on a value that no customer can have: the application sends something else than features.",
            "warning",
        ),
        _group(
            table,
            "customers_known",
            _each(
                ["outcome"],
                f"is found in at least {MIN_SHARE_FOUND:.0%} of the rows",
                "ExpectColumnValuesToBeInSet",
                is_lookup,
                value_set=["found"],
                mostly=MIN_SHARE_FOUND,
            ),
            "Most lookups are of customers nobody knows: probably the application writes ids in another form.",
            "warning",
        ),
    ]


def _campaign_groups() -> list[ExpectationGroup]:
    table = "campaign_groups"
    return [
        _group(
            table,
            "customers_identified",
            [*_present("period", "segment_id", "is_holdout"), *_key("campaign", "customer_id")],
            "A customer is in both groups of a campaign, or in none: nothing that is compared would hold.",
        ),
        _group(
            table,
            "covariates_known",
            _present("return_covariate", "spend_covariate"),
            "A customer has no covariate: figures would be made of others than the groups.",
        ),
    ]


def _campaign_report() -> list[ExpectationGroup]:
    table = "campaign_report"
    is_return = _Where("figure", "==", RETURN)
    return [
        _group(
            table,
            "figures_identified",
            [*_present("period", "reason"), *_key("campaign", "figure", "segment_id"), *_one_of("figure", OUTCOMES)],
            "A figure of a campaign is there twice, or does not say what it is of.",
        ),
        _group(
            table,
            "values_possible",
            [
                *_one_of("verdict", VERDICTS),
                *_between(0, None, "n_audience", "n_holdout", "days_observed", "n_vanished"),
                *_between(0, 1, "p_value"),
                *_between(-1, 1, "effect", where=is_return),
                _not_less("effect_high", "effect"),
                _not_less("effect", "effect_low"),
                _not_less("days", "days_observed"),
            ],
            "A figure is none that a comparison can have: the report was not made by this version, or is damaged.",
        ),
    ]
