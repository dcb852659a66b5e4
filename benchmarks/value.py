"""How well the values of a home's customers were predicted: every snapshot against what came after it.

    custseg run --source online_retail.csv.gz --through …    (fills a home)
    python -m benchmarks.value HOME
    python -m benchmarks.value --cdnow CDNOW_sample.txt CSV  (writes that log as a source that custseg reads)

Predictions and intervals are those that stand in ``customer_value`` and ``value_model``; what came is counted from
``clean_transactions``. The methods that were not chosen, and recency alone, are predicted again for comparison. All
customers known at a snapshot count, also those who have lapsed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.schemas import CUSTOMER_VALUE, SEGMENT_ASSIGNMENTS, VALUE_MODEL
from custseg_assets.domain.value.days import known_at, seen_within
from custseg_assets.domain.value.methods import PROBABILITIES, SPEND, TARGETS, horizon_of, outcome_of
from custseg_assets.domain.value.replay import find_segments, measure_auc, measure_calibration_error, measure_gini
from custseg_assets.domain.value.tables import COLUMNS
from custseg_assets.home.open import OpenHome
from custseg_assets.home.values import Values
from custseg_assets.settings import load_settings

WORST_AUC_BEHIND = 0.005
CALIBRATION_ERROR = 0.05
HOLDING = 0.8
AUC_90D, GINI_90D, TOTAL_90D = 0.73, 0.75, (0.8, 1.25)
DATE_90D = "2011-08-01"


def compare(home: OpenHome) -> dict[str, pl.DataFrame]:
    """Target → a row per closed snapshot whose horizon is over: what was predicted, and what came.

    Args:
        home: with the tables.
    """
    keys = home.champions.segmented(home.calendar.snapshot_keys)
    if not keys:
        raise SystemExit("no snapshot of this home has segments: expected one that `custseg run` has filled")
    rows: dict[str, list[dict[str, Any]]] = {target: [] for target in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        values = Values(home, keys, Path(folder))
    days = values.days
    if days is None:
        raise SystemExit("a home of more than 2,000,000 customers: nothing here works in slices")
    for key in keys:
        at = values.as_of(key)
        known = known_at(days, at)
        released = home.tables.read(CUSTOMER_VALUE, [key])
        models = home.tables.read(VALUE_MODEL, [key]).filter("is_chosen")
        placed = find_segments(
            released["customer_id"], home.tables.read(SEGMENT_ASSIGNMENTS, [key], ("customer_id", "segment_id"))
        )
        fitted = {name: one for name, one in values.fit(key).candidates.items() if one is not None}
        predicted = {name: one.predict(known, placed) for name, one in fitted.items()}
        for target in TARGETS:
            if at + horizon_of(target) <= int(days.day.max()) + 1 and key != home.calendar.open_key:
                others = {"recency": -known.recency} | {name: one[target] for name, one in predicted.items()}
                seen = outcome_of(target, seen_within(days, known, horizon_of(target)))
                model = models.filter(target=target).row(0, named=True)
                figures = released[COLUMNS[target]].to_numpy()
                rows[target].append({"snapshot": key} | _row(target, figures, seen, model, others))
    return {target: pl.DataFrame(of_one, infer_schema_length=None) for target, of_one in rows.items()}


def _row(
    target: str,
    released: NDArray[np.float64],
    seen: NDArray[np.float64],
    model: Mapping[str, Any],
    others: Mapping[str, NDArray[np.float64]],
) -> dict[str, Any]:
    came = float(seen.sum() if target == SPEND else seen.mean())
    name, measure = ("AUC", measure_auc) if target in PROBABILITIES else ("Gini", measure_gini)
    return {
        "customers": len(seen),
        "method": model["method"],
        name: measure(released, seen),
        **{f"{name} {other}": measure(figures, seen) for other, figures in others.items()},
        **({"ECE": measure_calibration_error(released, seen)} if target in PROBABILITIES else {}),
        "predicted": model["level"],
        "low": model["level_low"],
        "high": model["level_high"],
        "seen": came,
        "is_held": model["level_low"] <= came <= model["level_high"],
    }


def judge(tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """What the project asks of these figures, and whether it is so."""
    lines = []
    first = tables["order_30d"]
    others = [f"AUC {name}" for name in ("recency", "segment_mean", "bg_nbd") if f"AUC {name}" in first.columns]
    behind = (first.select(pl.max_horizontal(others)).to_series() - first["AUC"]).to_list()
    error = float(np.mean(first["ECE"].to_numpy()))
    lines.append(f"AUC of p_order_30d behind the best of {', '.join(others)}: {max(behind):.4f} (≤ {WORST_AUC_BEHIND})")
    lines.append(f"mean calibration error of p_order_30d: {error:.4f} (≤ {CALIBRATION_ERROR})")
    lines.append(f"interval of the shop's rate holds it: {first['is_held'].sum()} of {first.height} (≥ {HOLDING:.0%})")
    of_date = {target: frame.filter(snapshot=DATE_90D) for target, frame in tables.items()}
    if of_date["order_90d"].height:
        order, spend = (of_date[target].row(0, named=True) for target in ("order_90d", SPEND))
        ratio = spend["predicted"] / spend["seen"]
        lines.append(f"90 days after {DATE_90D}: AUC {order['AUC']:.4f} (≥ {AUC_90D})")
        lines.append(
            f"90 days after {DATE_90D}: spend predicted × {ratio:.3f} of what came ({TOTAL_90D[0]}–{TOTAL_90D[1]})"
        )
        lines.append(f"90 days after {DATE_90D}: Gini of spend {spend['Gini']:.4f} (≥ {GINI_90D})")
    return lines


def write_cdnow(source: Path, target: Path) -> None:
    """Write CDNOW's text file, of the whole log or the tenth of it, as CSV with headers.

    Args:
        source: ``CDNOW_master.txt`` or ``CDNOW_sample.txt``, as Fader and Hardie publish them.
        target: the CSV.
    """
    rows = [line.split()[-4:] for line in source.read_text().splitlines() if len(line.split()) in (4, 5)]
    rows = [row for row in rows if row[1].isdigit()]
    frame = pl.DataFrame(rows, schema=["customer_id", "date", "quantity", "amount"], orient="row")
    sample_ids = [line.split()[1] for line in source.read_text().splitlines() if len(line.split()) == 5]
    if sample_ids:
        frame = frame.with_columns(customer_id=pl.Series(sample_ids))
    frame.with_columns(
        invoiced_at=pl.col("date").str.to_date("%Y%m%d"),
        quantity=pl.col("quantity").cast(pl.Int64),
        line_amount=pl.col("amount").cast(pl.Float64),
    ).select("customer_id", "invoiced_at", "quantity", "line_amount").write_csv(target)


def main() -> None:
    """Print the tables of a home, or write CDNOW's log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--cdnow", type=Path, metavar="TXT")
    arguments = parser.parse_args()
    if arguments.cdnow:
        write_cdnow(arguments.cdnow, arguments.home)
        return
    home = OpenHome(load_settings(home=arguments.home, environment={}))
    tables = compare(home)
    with pl.Config(tbl_rows=50, tbl_cols=30, tbl_width_chars=250, float_precision=4, tbl_formatting="MARKDOWN"):
        for target, frame in tables.items():
            print(f"\n{target}\n{frame if frame.height else 'no snapshot whose days are over'}")
    print("\n" + "\n".join(judge(tables)))


if __name__ == "__main__":
    main()
