"""``custseg fire-drill``: what the drift report sees, and what it misses, on this shop's own customers."""

from __future__ import annotations

from datetime import timedelta

from custseg_assets.domain.drift.fire_drill import FireDrillResult, run_fire_drill
from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.domain.segments.clustering import visible_to_kmeans
from custseg_assets.errors import BadInputError
from custseg_assets.home.open import OpenHome
from custseg_assets.pace import Pace
from custseg_assets.stores.sources import Progress

_STEPS = 10


def fire_drill(home: OpenHome, key: str | None, n_customers: int | None, repetitions: int, say: Progress) -> str:
    """Drill a snapshot with the model in force, and say how often each change was seen.

    Args:
        home: with the snapshot.
        key: the snapshot; the newest complete one without it.
        n_customers: drawn for every report; as many as the snapshot has without it.
        repetitions: of every change.
        say: takes each line of progress.

    Raises:
        BadInputError: there is no such snapshot, or no model is in force at it.
    """
    settings, calendar = home.settings, home.calendar
    segmented = home.champions.segmented(calendar.snapshot_keys)
    complete = [one for one in segmented if calendar.is_complete(one)]
    chosen = key or next(reversed(complete or segmented), None)
    if chosen is None or chosen not in segmented:
        raise BadInputError(
            f"snapshot {chosen} of home {home.paths.root}",
            f"one with a model in force: {', '.join(segmented) or 'none yet'}",
            "Do 'custseg run' first, or name one of those with --partition.",
        )
    window, model = calendar.window(chosen), home.champions.model_at(chosen)
    customers = home.tables.read(CUSTOMER_FEATURES, [chosen])
    customers = customers.filter(visible_to_kmeans(customers, model.features))
    shown, pace = set[int](), Pace(repetitions)

    def progress(done: int, to_do: int) -> None:
        step = done * _STEPS // to_do
        if step not in shown:
            shown.add(step)
            say(f"{done:,} of {to_do:,} repetitions{pace.left(done)}")

    result = run_fire_drill(
        customers,
        model,
        n_customers=n_customers or customers.height,
        repetitions=repetitions,
        seed=settings.model.seed,
        period_days=window.last_span / timedelta(days=1),
        window_days=(window.as_of - window.start) / timedelta(days=1),
        settings=settings.drift,
        progress=progress,
    )
    return _report(result, chosen)


def _report(result: FireDrillResult, key: str) -> str:
    lines = [
        f"fire drill on snapshot {key}: {result.n_customers:,} customers in each report",
        f"  {'change':<44}{'alarms':>8}   95 % interval    should be",
    ]
    for row in result.table().iter_rows(named=True):
        interval = f"{row['alarm_rate_low']:.1%} to {row['alarm_rate_high']:.1%}"
        lines.append(f"  {row['scenario']:<44}{row['alarm_rate']:>8.1%}   {interval:<17}{_wanted(row)}")
    sight = (
        "not even the lapse of all active customers"
        if result.smallest_lapse is None
        else (f"a lapse of {result.smallest_lapse:.0%} of the active customers")
    )
    return "\n".join([*lines, f"seen 9 times in 10 at this size: {sight}"])


def _wanted(row: dict[str, object]) -> str:
    if row["limit"] is None:
        return "(open)"
    return f"{'at most' if row['expected'] == 'quiet' else 'at least'} {row['limit']:.0%}"
