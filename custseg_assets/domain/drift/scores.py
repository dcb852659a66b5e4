"""Drift scores: how far the customers are from those the model in force was trained on, and from where on it counts.

A score alerts when it reaches its threshold, the largest of three: what chance does at these sample sizes, the
smallest effect worth knowing, and, once there are enough snapshots, what this shop does anyway. ``docs/drift.md``
has the reasons and the measurements, ``reference.py`` what is kept of the training snapshot, and ``report.py`` what
follows from the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.drift.reference import DriftReference, check_matrix, means_of, share_refunded
from custseg_assets.domain.drift.report import (
    CurrentCustomers,
    DriftReport,
    DriftScore,
    DriftSettings,
    Kind,
    correlation_subjects,
    make_report,
    report_without_scores,
)
from custseg_assets.domain.periods import Window, start_of
from custseg_assets.domain.segments.model import REFUNDED, Matrix
from custseg_assets.domain.threads import one_thread

MIN_CUSTOMERS = 30
DEFAULT_SETTINGS = DriftSettings()
N_DRAWS = 4_000
"""Resamples that the thresholds are calibrated from."""
_POWER = 0.9
_POWER_DRAWS = 200
_LAPSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90, 100)
_A_YEAR, _SAME_SEASON = timedelta(days=365), timedelta(days=31)
_DIGITS = 6


def unobserved_share(window: Window, observed_until: datetime) -> float:
    """How much of a snapshot's last period the data do not reach, a share; 0 where they reach its end or ``as_of``.

    >>> from custseg_assets.domain.periods import window_of
    >>> unobserved_share(window_of("2011-04-01", "2011-01-01", 3, "monthly"), datetime(2011, 4, 16))
    0.5
    """
    start = datetime.combine(start_of(window.key), datetime.min.time())
    missing = (window.as_of - observed_until) / (window.as_of - start)
    return min(max(missing, 0.0), 1.0)


@dataclass(frozen=True)
class Calibration:
    """What chance does to the scores between two samples of the same customers, of the sizes at hand.

    Attributes:
        thresholds: per score; at least one of them is reached at the chosen false-alarm rate.
        noise: resampling errors of the reference's means, shape (draws, means).
    """

    thresholds: Matrix
    noise: Matrix


def calibrate(
    reference: DriftReference, n_customers: int, *, settings: DriftSettings, seed: int, n_draws: int = N_DRAWS
) -> Calibration:
    """Joint thresholds for all scores of a report on ``n_customers``.

    The means of the current customers differ from the reference's by the sampling errors of both, which for means
    are normal with a known covariance; drawing them costs the same for a thousand customers and for a million. Each
    score is measured from its own median in units of the way to its own 99 % point, and all thresholds stand where the
    largest of a draw's scores comes to at the false-alarm rate: dependence between the scores is counted, not bounded
    as Bonferroni's correction does.

    Args:
        reference: what drift is measured against.
        n_customers: at least 1.
        settings: gives the false-alarm rate.
        seed: of the draws.
        n_draws: number of resamples.
    """
    errors = np.random.default_rng(seed).standard_normal((n_draws, len(reference.means) + 1))
    scale = np.sqrt(1 / reference.n_customers + 1 / n_customers)
    with one_thread():
        # On several, BLAS spins longer than it computes.
        noise = errors[:, :-1] @ reference.covariance_factor().T * scale
    smoothed = (reference.n_refunded + 0.5) / (reference.n_customers + reference.n_refunded + 1)
    refunded = reference.share_refunded + errors[:, -1] * np.sqrt(smoothed * (1 - smoothed)) * scale
    # Roots, since a PSI is a sum of squares: without them its long tail would take all the false alarms.
    is_psi = np.array([kind == "psi" for kind, _ in score_names(reference)])
    scores = _scores(reference, np.array(reference.means) + noise, refunded, n_customers)
    scores[:, is_psi] = np.sqrt(scores[:, is_psi])
    middle, extreme = np.quantile(scores, (0.5, 0.99), axis=0)
    unit = np.where(extreme > middle, extreme - middle, 1.0)
    critical = np.quantile(((scores - middle) / unit).max(axis=1), 1 - settings.false_alarm_rate)
    thresholds = middle + critical * unit
    thresholds[is_psi] **= 2
    return Calibration(_round(thresholds), noise)


def measure_drift(
    reference: DriftReference,
    matrix: Matrix,
    *,
    period: str,
    seed: int,
    settings: DriftSettings = DEFAULT_SETTINGS,
    n_refunded: int = 0,
    history: pl.DataFrame | None = None,
    unobserved_share: float = 0.0,
    calibration: Calibration | None = None,
    remarks: tuple[str, ...] = (),
) -> DriftReport:
    """How far the customers of a snapshot are from those the model in force was trained on.

    Args:
        reference: what ``fit_reference`` made of the training snapshot.
        matrix: shape (customers, features), on the model's scale; customers that K-means sees.
        period: key of the snapshot.
        seed: of the calibration.
        settings: what counts as drift.
        n_refunded: customers of the rule segment Refunded. Lapsed ones are left out: they only ever add up.
        history: ``drift_report`` rows of other snapshots; those of ``period`` and later ones are ignored.
        unobserved_share: of the snapshot's last period; see the function of that name.
        calibration: what ``calibrate`` returned for this reference and number of customers, where it is at hand.
        remarks: how the customers were made comparable, in words; the report's reasons name it.

    Raises:
        BadInputError: the matrix does not fit the reference, or has missing values.
    """
    check_matrix(matrix, reference.features)
    names = score_names(reference)
    if unobserved_share > settings.max_unobserved_share:
        return report_without_scores(
            reference, period, len(matrix), names,
            f"the data end {unobserved_share:.0%} before the end of the period: an incomplete period is a question of "
            "missing data, not of drift",
        )  # fmt: skip
    if min(len(matrix), reference.n_customers) < MIN_CUSTOMERS:
        return report_without_scores(
            reference, period, len(matrix), names,
            f"{len(matrix)} customers now and {reference.n_customers} in the reference; at least {MIN_CUSTOMERS} "
            "are needed to compare anything",
        )  # fmt: skip
    chance = calibration or calibrate(reference, len(matrix), settings=settings, seed=seed)
    means = means_of(reference.binnings, np.array(reference.centroids), matrix, reference.mixture)
    refunded = share_refunded(len(matrix), n_refunded)
    measured = _round(_scores(reference, means[None], np.array([refunded]), len(matrix))[0])
    own, n_history = _own_thresholds(names, history, period, settings)
    minimum = np.array([settings.min_effect.of(kind) for kind, _ in names])
    thresholds = np.maximum(np.maximum(chance.thresholds, minimum), own)
    lapses, smallest_lapse = _measure_power(reference, chance, thresholds, len(matrix))
    scores = tuple(
        DriftScore(
            score_name=kind,
            subject=subject,
            score=float(measured[at]),
            threshold=float(thresholds[at]),
            chance_threshold=float(chance.thresholds[at]),
            min_effect=float(minimum[at]),
            own_threshold=float(own[at]) if np.isfinite(own[at]) else None,
            large_effect=settings.large_effect.of(kind),
            is_alert=bool(measured[at] >= thresholds[at]),
            smallest_lapse=lapses[at],
        )
        for at, (kind, subject) in enumerate(names)
    )
    return make_report(
        reference,
        CurrentCustomers(matrix, means, refunded),
        scores,
        period=period,
        smallest_lapse=smallest_lapse,
        n_history=n_history,
        settings=settings,
        remarks=remarks,
    )


def score_names(reference: DriftReference) -> tuple[tuple[Kind, str], ...]:
    """Kind and subject of every score, in the order they are computed in."""
    return (
        *(("psi", name) for name in reference.columns),
        *(("wasserstein", name) for name in reference.columns),
        *(("share_shift", name) for name in reference.segment_names),
        *(("correlation_shift", subject) for subject in correlation_subjects(reference.features)),
        ("share_shift", REFUNDED.name),
    )


def _round(values: Matrix) -> Matrix:
    """To six significant digits: sums of floats may differ in the last bits with the number of threads."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values])


def _scores(reference: DriftReference, means: Matrix, refunded: Matrix, n_customers: int) -> Matrix:
    """Every score of every row of ``means``, shape (rows, scores), in the order of ``score_names``.

    * psi: Σ (q − p) ln(q / p) over the coarse bins, half a customer added to each so that an empty one counts.
    * wasserstein: Σ |F − G| between neighbouring bins' centres, in the reference's standard deviations.
    * share_shift: |q − p| of a segment.
    * correlation_shift: |r − r'| of Pearson's correlation on the model's scale.
    """
    before = np.array(reference.means)
    psis, wassersteins = [], []
    for column, binning in enumerate(reference.binnings):
        bins = reference.bin_slice(column)
        psis.append(_psi(binning.group_starts, before[bins], reference.n_customers, means[:, bins], n_customers))
        gaps = np.abs(np.cumsum(means[:, bins] - before[bins], axis=1))[:, :-1]
        wassersteins.append((gaps * np.diff(binning.centres)).sum(axis=1))
    shifts = np.abs(means[:, reference.cluster_slice] - before[reference.cluster_slice])
    correlated = np.abs(reference.correlations(means) - reference.correlations(before[None]))
    return np.column_stack([*psis, *wassersteins, shifts, correlated, np.abs(refunded - reference.share_refunded)])


def _psi(first: NDArray[np.intp], before: Matrix, n_before: int, now: Matrix, n_now: int) -> Matrix:
    p = (np.add.reduceat(before, first) * n_before + 0.5) / (n_before + 0.5 * len(first))
    q = (np.maximum(np.add.reduceat(now, first, axis=1), 0.0) * n_now + 0.5) / (n_now + 0.5 * len(first))
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=1))


def _measure_power(
    reference: DriftReference, chance: Calibration, thresholds: Matrix, n_customers: int
) -> tuple[list[float | None], float | None]:
    """The smallest share of active customers whose lapse is caught 9 times in 10: by each score, and by any."""
    if not reference.means_all_lapsed:
        return [None] * len(thresholds), None
    before, lapsed = np.array(reference.means), np.array(reference.means_all_lapsed)
    left = float(lapsed[reference.cluster_slice].sum())
    shares = np.array(_LAPSES) / 100
    remaining = (1 - shares) + shares * left
    possible = remaining > 1e-9
    expected = (np.outer(1 - shares, before) + np.outer(shares, lapsed))[possible] / remaining[possible, None]
    noise = chance.noise[:_POWER_DRAWS]
    means = (expected[:, None] + noise[None]).reshape(-1, len(before))
    refunded = np.full(len(means), reference.share_refunded)
    is_caught = _scores(reference, means, refunded, n_customers) >= thresholds
    by_lapse = is_caught.reshape(len(expected), len(noise), -1)
    measured = shares[possible]
    each = [_smallest_caught(measured, caught) for caught in by_lapse.mean(axis=1).T]
    return each, _smallest_caught(measured, by_lapse.any(axis=2).mean(axis=1))


def _smallest_caught(shares: Matrix, caught: Matrix) -> float | None:
    enough = np.flatnonzero(caught >= _POWER)
    return float(shares[enough[0]]) if len(enough) else None


def _own_thresholds(
    names: Sequence[tuple[Kind, str]], history: pl.DataFrame | None, period: str, settings: DriftSettings
) -> tuple[Matrix, int]:
    """Own threshold of every score, −∞ where that is not known, and the number of snapshots it comes from.

    From ``min_history`` snapshots on: the largest score so far or, if higher, the upper prediction limit of the next
    one, mean + t · s · √(1 + 1/m). A score of the same season a year ago, a month either way, counts at once, also
    when it was a breach then: it came back. A model's own training snapshot never counts: against itself it does not
    move.
    """
    own = np.full(len(names), -np.inf)
    if history is None:
        return own, 0
    is_against_itself = pl.col("period") == pl.col("reference_period")
    earlier = history.filter((pl.col("period") < period) & pl.col("score").is_not_null() & ~is_against_itself)
    normal = earlier.filter(pl.col("verdict") != "breach")
    year_ago = start_of(period) - _A_YEAR
    first, last = ((year_ago + by).isoformat() for by in (-_SAME_SEASON, _SAME_SEASON))
    season = earlier.filter((pl.col("period") >= pl.lit(first)) & (pl.col("period") <= pl.lit(last)))
    n_history = normal["period"].n_unique()
    for at, (kind, subject) in enumerate(names):
        about = (pl.col("score_name") == kind) & (pl.col("subject") == subject)
        own[at] = season.filter(about)["score"].to_numpy().max(initial=-np.inf)
        scores = normal.filter(about).sort("period")["score"].to_numpy()
        if n_history >= settings.min_history and len(scores) >= settings.min_history:
            own[at] = max(own[at], _prediction_limit(scores, settings.false_alarm_rate))
    return _round(own), n_history


def _prediction_limit(scores: Matrix, rate: float) -> float:
    from scipy.special import stdtrit

    n = len(scores)
    limit = scores.mean() + stdtrit(n - 1, 1 - rate) * scores.std(ddof=1) * np.sqrt(1 + 1 / n)
    return float(max(scores.max(), limit))
