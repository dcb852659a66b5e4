"""What each customer will probably do in the next 90 days, by snapshot, and what that rests on."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import MoreCheck
from custseg_assets.defs.materialise import (
    Materialization,
    in_batches,
    materialise,
    of_snapshot,
    snapshot_asset,
    with_model,
)
from custseg_assets.defs.metadata import picture, table_preview
from custseg_assets.domain.schemas import CUSTOMER_VALUE, SEGMENT_ASSIGNMENTS, VALUE_MODEL
from custseg_assets.domain.value.methods import PROBABILITIES, SPEND
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.values import opened_values
from custseg_assets.pictures.look import money, percent
from custseg_assets.pictures.value import calibration

EVERYBODY, TOTAL = "everybody_predicted", "total_near_last_known"


def _everybody_predicted(home: OpenHome) -> dg.AssetCheckResult:
    """Whether every customer that a snapshot knows has a prediction."""
    known, predicted = home.tables.sizes(SEGMENT_ASSIGNMENTS), home.tables.sizes(CUSTOMER_VALUE)
    missing = {key: n - predicted[key] for key, n in known.items() if key in predicted and n != predicted[key]}
    newest = max(predicted.keys() & known.keys(), default=None)
    if newest and not missing:
        ids = home.tables.scan(SEGMENT_ASSIGNMENTS, [newest]).select("customer_id")
        there = home.tables.scan(CUSTOMER_VALUE, [newest]).select("customer_id")
        n_missing = ids.join(there, on="customer_id", how="anti").select(pl.len()).collect().item()
        missing = {newest: int(n_missing)} if n_missing else {}
    return dg.AssetCheckResult(
        asset_key=CUSTOMER_VALUE.name,
        check_name=EVERYBODY,
        passed=not missing,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "summary": f"customers of snapshots with no prediction, or too many: {missing}" if missing else "holds",
            "missing": dg.MetadataValue.json(missing),
        },
    )


def _total_near_last_known(home: OpenHome) -> dg.AssetCheckResult:
    """Whether the customers of the newest snapshot are expected to spend about what they last spent in as many days."""
    newest = max(home.tables.sizes(VALUE_MODEL), default=None)
    rows = home.tables.read(VALUE_MODEL, [newest] if newest else [], ("target", "is_chosen", *_LEVEL))
    row = next(rows.filter(pl.col("is_chosen"), pl.col("target") == SPEND).iter_rows(named=True), None)
    expected = pl.col("expected_spend_90d").sum()
    total = float(home.tables.scan(CUSTOMER_VALUE, [newest] if newest else []).select(expected).collect().item())
    words, is_near = "nothing is known yet to compare with", True
    if row and row["last_seen"] and row["level"]:
        low, high = (row["last_seen"] * row["level"] / row[end] for end in ("level_high", "level_low"))
        is_near = low <= total <= high
        currency = home.currency
        words = (
            f"{newest}: {money(total, currency)} are expected of all customers in 90 days; they last spent "
            f"{money(row['last_seen'], currency)}, of which {money(low, currency)} to {money(high, currency)} are as "
            "far as earlier predictions missed"
        )
    return dg.AssetCheckResult(
        asset_key=CUSTOMER_VALUE.name,
        check_name=TOTAL,
        passed=is_near,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"summary": words, "expected": total if math.isfinite(total) else str(total)},
    )


_LEVEL = ("level", "level_low", "level_high", "last_seen")
_CHECKS = (
    MoreCheck(
        dg.AssetCheckSpec(
            EVERYBODY,
            asset=CUSTOMER_VALUE.name,
            description="Every customer that a snapshot knows has a prediction; totals would lack those who have none.",
            blocking=True,
        ),
        _everybody_predicted,
    ),
    MoreCheck(
        dg.AssetCheckSpec(
            TOTAL,
            asset=CUSTOMER_VALUE.name,
            description="What all customers are expected to spend is near what they last spent in as many days; "
            "further away than earlier predictions missed it is the season, or lines are missing.",
        ),
        _total_near_last_known,
    ),
)


@snapshot_asset(
    VALUE_MODEL.name,
    CUSTOMER_VALUE.name,
    step="value",
    group="value",
    kinds={"numpy", "mlflow", "deltalake"},
    more_checks=_CHECKS,
)
def customer_value(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Iterator[Materialization]:
    """Choose what predicts best at each snapshot, and predict every known customer by it."""
    keys, unchanged = with_model(context, home)
    with opened_values(home, keys) as values:

        def describe() -> Iterator[tuple[str, pl.DataFrame]]:
            for key in keys:
                yield key, of_snapshot(VALUE_MODEL, home.calendar.window(key), values.describe(key))

        def predict() -> Iterator[tuple[str, pl.DataFrame | Iterator[pl.DataFrame]]]:
            for key in keys:
                rows = map(partial(of_snapshot, CUSTOMER_VALUE, home.calendar.window(key)), values.predict(key))
                yield key, rows if values.is_sliced else next(rows)

        yield materialise(
            context,
            home,
            VALUE_MODEL,
            in_batches(describe()),
            unchanged=unchanged,
            metadata={"choice": dg.MetadataValue.json({key: values.fit(key).sentence for key in keys})},
            show=lambda: _show_model(home, keys[-1]),
        )
        _record_choices(home, keys)
        made = materialise(context, home, CUSTOMER_VALUE, in_batches(predict()), unchanged=unchanged)
    more = [check.evaluate(home) for check in _CHECKS]
    yield made._replace(check_results=[*(made.check_results or ()), *more])


def _record_choices(home: LockedHome, keys: Sequence[str]) -> None:
    """Log in MLflow where another method was chosen than at the snapshot before; MLflow is not asked otherwise."""
    earlier = home.snapshots_before(keys[0])[-1:]
    rows = home.tables.read(VALUE_MODEL, [*earlier, *keys])
    methods = dict(rows.filter("is_chosen").select("period", "method").iter_rows())
    for before, key in itertools.pairwise([None, *sorted(methods)]):
        if key in keys and methods.get(str(before)) != methods[key]:
            made_from = f"{home.tables.fingerprint_of(VALUE_MODEL.name, key):x}"
            home.registry.record_value(key, made_from, rows.filter(period=key))


def _show_model(home: OpenHome, key: str) -> Mapping[str, Any]:
    """What predictions rest on and how near earlier ones came, for people to look at."""
    model = home.tables.read(VALUE_MODEL, [key])
    chosen = model.filter("is_chosen")
    by_decile = json.loads(chosen.filter(pl.col("target") == PROBABILITIES[0])["calibration"].item())
    return {
        "calibration": picture("predicted and seen by decile", calibration(model)),
        "shop": _tell_levels(chosen, home.currency),
        "methods": table_preview(model.select(_PREVIEWED), 15),
        "by_decile": table_preview(pl.DataFrame(by_decile), 60) if by_decile else "nothing to compare yet",
    }


_PREVIEWED = ("target", "method", "is_chosen", "n_replays", "log_loss", "auc", "calibration_error", "gini", "n_taught")


def _tell_levels(chosen: pl.DataFrame, currency: str | None) -> str:
    """What is expected of the whole shop, in a sentence."""
    rows = {row["target"]: row for row in chosen.iter_rows(named=True)}
    order, spend = rows[PROBABILITIES[0]], rows[SPEND]
    return (
        f"{percent(order['level'])} of the customers are expected to order within 30 days "
        f"({percent(order['level_low'])} to {percent(order['level_high'])}), and all to spend "
        f"{money(spend['level'], currency)} within 90 ({money(spend['level_low'], currency)} to "
        f"{money(spend['level_high'], currency)}); 9 of 10 such intervals are meant to hold what comes. A shop with "
        "one year of data cannot know its season: they are made of how far earlier predictions missed."
    )


ASSETS = (customer_value,)
