"""The fire drill: how often a drift report sees known changes, made in copies of a shop's own customers.

Each repetition draws a reference and a current sample of the same customers, so that both samples' errors are in it;
then it changes the current one. An alarm is a verdict of watch or breach. Only chance and the smallest effects worth
knowing are tested: a snapshot has no history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import polars as pl
import polars.selectors as cs

from custseg_assets.domain.drift.closing import leave_out_closing, shorten_window
from custseg_assets.domain.drift.lapse import active_days_of, stop_ordering
from custseg_assets.domain.drift.reference import DriftReference, fit_reference
from custseg_assets.domain.drift.report import DriftReport, DriftSettings
from custseg_assets.domain.drift.scores import DEFAULT_SETTINGS, calibrate, measure_drift
from custseg_assets.domain.rates import wilson_interval
from custseg_assets.domain.segments.model import RFM, Matrix, SegmentationModel
from custseg_assets.errors import BadInputError

Alteration = Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]
Expected = Literal["quiet", "alarm", "open"]

_MONEY = cs.by_name("monetary_net", "monetary_gross", "avg_order_value", require_all=False)
_AGES = cs.by_name("recency_days", "tenure_days", require_all=False)


@dataclass(frozen=True)
class Scenario:
    """One change of the customers, and what the report should say about it.

    Attributes:
        name: for people.
        expected: whether the report should stay quiet or alarm; open where either is right.
        limit: largest alarm rate of a quiet scenario, smallest of one that must alarm; 0 where it is open.
        change: changes customers, given a random generator.
    """

    name: str
    expected: Expected
    limit: float
    change: Alteration = field(compare=False)

    def is_met_by(self, rate: float) -> bool:
        """Whether an alarm rate is as it should be."""
        return rate <= self.limit if self.expected == "quiet" else rate >= self.limit


def scenarios(period_days: float, window_days: float) -> tuple[Scenario, ...]:
    """Every change of the drill, the harmless ones first.

    Args:
        period_days: length of a period.
        window_days: length of the observation window.
    """
    active_days = active_days_of(period_days, window_days)
    lapse = partial(_lapse_customers, share=0.1, active_days=active_days, window_days=window_days)
    close = partial(_close_shop, window_days=window_days)

    def lapse_and_close(customers: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        return close(lapse(customers, random), random, n_days=7)

    missing = partial(_lose_last_period, period_days=period_days, window_days=window_days)
    return (
        Scenario("nothing", "quiet", 0.02, lambda customers, _: customers),
        Scenario("price +2 %", "quiet", 0.1, partial(_change_prices, factor=1.02)),
        Scenario("one whale ×100", "quiet", 0.02, _make_whale),
        Scenario("closed the last 2 days", "quiet", 0.05, partial(close, n_days=2)),
        Scenario("closed the last 7 days", "quiet", 0.05, partial(close, n_days=7)),
        Scenario("price +10 %", "open", 0.0, partial(_change_prices, factor=1.1)),
        Scenario("price ×2", "alarm", 0.95, partial(_change_prices, factor=2.0)),
        Scenario("10 % of active customers lapse", "alarm", 0.95, lapse),
        Scenario("10 % lapse, then closed for 7 days", "alarm", 0.95, lapse_and_close),
        Scenario("frequency and monetary decoupled", "alarm", 0.95, _decouple_spend),
        Scenario("half of the customers in a new country", "open", 0.0, _move_to_new_country),
        Scenario("last period's data missing", "open", 0.0, missing),
    )


def _change_prices(customers: pl.DataFrame, _: np.random.Generator, factor: float) -> pl.DataFrame:
    return customers.with_columns(_MONEY * factor)


def _make_whale(customers: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    whale = int(random.integers(customers.height))
    factor = pl.when(pl.int_range(pl.len()) == whale).then(100).otherwise(1)
    return customers.with_columns(_MONEY * factor)


def _lapse_customers(
    customers: pl.DataFrame, random: np.random.Generator, share: float, active_days: float, window_days: float
) -> pl.DataFrame:
    """Exactly this share of the active customers stops, as ``stop_ordering`` says."""
    active = np.flatnonzero(customers["recency_days"].to_numpy() < active_days)
    stopped = np.zeros(customers.height, dtype=np.bool_)
    stopped[random.choice(active, round(share * len(active)), replace=False)] = True
    marked = customers.with_columns(has_stopped=pl.Series(stopped))
    return stop_ordering(marked, pl.col("has_stopped"), active_days, window_days)


def _close_shop(customers: pl.DataFrame, random: np.random.Generator, n_days: int, window_days: float) -> pl.DataFrame:
    """Nobody orders for some days: everybody is so much older, and the window has as many days of orders fewer."""
    left = shorten_window(customers, n_days, window_days, random)
    return left.with_columns(_AGES + n_days)


def _decouple_spend(customers: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Everybody gets somebody else's spend: every feature keeps its distribution, the link between them goes."""
    return customers.with_columns(pl.Series("monetary_net", random.permutation(customers["monetary_net"].to_numpy())))


def _move_to_new_country(customers: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    moved = pl.Series(random.permutation(customers.height) < customers.height // 2)
    country = pl.col("main_country") if "main_country" in customers.columns else pl.lit(None, pl.String)
    return customers.with_columns(main_country=pl.when(moved).then(pl.lit("a new country")).otherwise(country))


def _lose_last_period(
    customers: pl.DataFrame, _: np.random.Generator, period_days: float, window_days: float
) -> pl.DataFrame:
    """Customers whose one order is of the last period are missing; the others look as if they had stopped before it."""
    is_active = pl.col("recency_days") < period_days
    known = customers.filter(~(is_active & (pl.col("frequency_orders") == 1)))
    return stop_ordering(known, is_active, period_days, window_days)


@dataclass(frozen=True)
class ScenarioOutcome:
    """Verdicts of the reports on one scenario.

    Attributes:
        scenario: what was changed, and what was expected.
        n_repetitions: reports made.
        n_alarms: of them watch or breach.
        n_breaches: of them breach.
        n_unjudged: of them not enough data.
        seen_by: the score that alerted most often, with its rate; empty where none did.
    """

    scenario: Scenario
    n_repetitions: int
    n_alarms: int
    n_breaches: int
    n_unjudged: int
    seen_by: str

    @property
    def is_met(self) -> bool:
        """Whether the alarm rate is as it should be."""
        return self.scenario.is_met_by(self.n_alarms / self.n_repetitions)


@dataclass(frozen=True)
class FireDrillResult:
    """How often the drift reports saw each change, at a number of customers.

    Attributes:
        n_customers: in the reference and in every current sample.
        outcomes: in the order of ``scenarios``.
        smallest_lapse: share of active customers whose lapse these reports catch 9 times in 10, the median over the
            repetitions; missing where half of them would not catch any.
    """

    n_customers: int
    outcomes: tuple[ScenarioOutcome, ...]
    smallest_lapse: float | None

    @property
    def is_met(self) -> bool:
        """Whether every scenario is as it should be."""
        return all(outcome.is_met for outcome in self.outcomes)

    def table(self) -> pl.DataFrame:
        """One row per scenario: counts, and the alarm rate with its 95 % Wilson interval."""
        rows = []
        for outcome in self.outcomes:
            low, high = wilson_interval(outcome.n_alarms, outcome.n_repetitions)
            rows.append(
                {
                    "scenario": outcome.scenario.name,
                    "expected": outcome.scenario.expected,
                    "limit": outcome.scenario.limit if outcome.scenario.expected != "open" else None,
                    "alarm_rate": outcome.n_alarms / outcome.n_repetitions,
                    "alarm_rate_low": low,
                    "alarm_rate_high": high,
                    "breach_rate": outcome.n_breaches / outcome.n_repetitions,
                    "unjudged_rate": outcome.n_unjudged / outcome.n_repetitions,
                    "seen_by": outcome.seen_by,
                    "is_met": outcome.is_met,
                    "n_repetitions": outcome.n_repetitions,
                }
            )
        return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"limit": pl.Float64})


def run_fire_drill(
    customers: pl.DataFrame,
    model: SegmentationModel,
    *,
    n_customers: int,
    repetitions: int,
    seed: int,
    period_days: float,
    window_days: float,
    settings: DriftSettings = DEFAULT_SETTINGS,
    progress: Callable[[int, int], None] | None = None,
) -> FireDrillResult:
    """Count how often the drift report sees each change, on these customers.

    Args:
        customers: ``customer_features`` of one snapshot, only the rows that K-means sees.
        model: the model in force.
        n_customers: drawn, with replacement, for each reference and each current sample.
        repetitions: of every scenario.
        seed: of everything drawn.
        period_days: length of the snapshot's last period.
        window_days: length of its observation window.
        settings: what counts as drift.
        progress: called with the repetitions done and the repetitions to do.

    Raises:
        BadInputError: nothing to draw from, or a feature that the changes need is missing.
    """
    ordered = _prepare_customers(customers, model, n_customers, repetitions)
    every = scenarios(period_days, window_days)
    reports: list[list[DriftReport]] = [[] for _ in every]
    for done, source in enumerate(np.random.SeedSequence(seed).spawn(repetitions), start=1):
        random = np.random.default_rng(source)
        drawn = _draw(ordered, n_customers, random)
        reference = _fit(model, drawn, period_days, window_days)
        calibrated = calibrate(reference, n_customers, settings=settings, seed=int(random.integers(2**32)))
        for scenario, made in zip(every, reports, strict=True):
            changed = scenario.change(_draw(ordered, n_customers, random), random)
            closing = leave_out_closing(
                drawn, changed, reference_window_days=window_days, window_days=window_days, seed=seed
            )
            left_out = closing.n_days_left_out
            is_calibrated = changed.height == n_customers and not left_out
            made.append(
                measure_drift(
                    _fit(model, closing.reference, period_days, window_days - left_out) if left_out else reference,
                    _scale(model, closing.current),
                    period=model.trained_on,
                    seed=seed,
                    settings=settings,
                    calibration=calibrated if is_calibrated else None,
                )
            )
        if progress:
            progress(done, repetitions)
    return FireDrillResult(
        n_customers=n_customers,
        outcomes=tuple(_count_alarms(scenario, made) for scenario, made in zip(every, reports, strict=True)),
        smallest_lapse=_median_lapse(reports[0]),
    )


def _prepare_customers(
    customers: pl.DataFrame, model: SegmentationModel, n_customers: int, repetitions: int
) -> pl.DataFrame:
    """Check the customers, and return the columns that the drill needs, ordered by customer."""
    needed = sorted({*RFM, *model.features})
    missing = [name for name in needed if name not in customers.columns]
    if missing:
        raise BadInputError(
            f"customer features without {', '.join(missing)}", f"{', '.join(needed)}", "Drill on customer_features."
        )
    if not customers.height or n_customers < 1 or repetitions < 1:
        raise BadInputError(
            f"{customers.height} customers to draw {n_customers} from, {repetitions} times",
            "at least one of each",
            "Choose a snapshot with orders and positive numbers.",
        )
    kept = [*needed, "main_country"] if "main_country" in customers.columns else needed
    ordered = customers.sort("customer_id") if "customer_id" in customers.columns else customers
    return ordered.select(kept).with_columns(pl.col(needed).cast(pl.Float64))


def _fit(model: SegmentationModel, customers: pl.DataFrame, period_days: float, window_days: float) -> DriftReference:
    return fit_reference(
        model,
        _scale(model, customers),
        period=model.trained_on,
        period_days=period_days,
        window_days=window_days,
    )


def _draw(customers: pl.DataFrame, n_customers: int, random: np.random.Generator) -> pl.DataFrame:
    return customers[random.integers(customers.height, size=n_customers)]


def _scale(model: SegmentationModel, customers: pl.DataFrame) -> Matrix:
    return model.reference.scale(customers.select(model.features).to_numpy())


def _count_alarms(scenario: Scenario, reports: Sequence[DriftReport]) -> ScenarioOutcome:
    alerts = Counter(f"{score.score_name} {score.subject}" for report in reports for score in report.alerts)
    often = min(alerts.items(), key=lambda item: (-item[1], item[0]), default=None)
    return ScenarioOutcome(
        scenario=scenario,
        n_repetitions=len(reports),
        n_alarms=sum(bool(report.alerts) for report in reports),
        n_breaches=sum(report.verdict == "breach" for report in reports),
        n_unjudged=sum(report.verdict == "not enough data" for report in reports),
        seen_by=f"{often[0]} ({often[1] / len(reports):.1%})" if often else "",
    )


def _median_lapse(reports: Sequence[DriftReport]) -> float | None:
    lapses = [np.inf if report.smallest_lapse is None else report.smallest_lapse for report in reports]
    middle = float(np.quantile(lapses, 0.5, method="inverted_cdf"))
    return middle if np.isfinite(middle) else None
