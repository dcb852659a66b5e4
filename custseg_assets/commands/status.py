"""``custseg status``, and the closing table of a run."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.domain import schemas
from custseg_assets.domain.transactions.features import MICRO
from custseg_assets.home.campaigns import running
from custseg_assets.home.failure import last_failure
from custseg_assets.home.intake import LANDING
from custseg_assets.home.kept_models import disk_use
from custseg_assets.home.model_exports import due_exports
from custseg_assets.home.open import OpenHome
from custseg_assets.home.own_settings import compare_settings, own_settings, settings_before
from custseg_assets.home.plan import Stage, due_retrain, why_not_released
from custseg_assets.home.restored import Restored, read_restored
from custseg_assets.home.staleness import causes_of_stale, stale_partitions, window_made
from custseg_assets.home.unfinished import describe_unfinished, unfinished_stage
from custseg_assets.settings import HOME_VARIABLE
from custseg_assets.stores import releases
from custseg_assets.stores.alerts import AlertLog
from custseg_assets.stores.tables import TableReader

_N_EXAMPLES = 3
_N_NOTES = 6


def closing_table(home: OpenHome, n_runs: int, other_model: str | None = None) -> str:
    """What a run left behind: rows, rejects, segments, drift, and where to look next.

    Args:
        home: after the run.
        n_runs: how many Dagster runs it took.
        other_model: that and why the model is another one than before.
    """
    state = describe_home(home)
    headline = "Nothing has changed: every table is up to date." if n_runs == 0 else "Done."
    lines = ["", headline, *_demo_lines(state), *_rows_lines(state)]
    lines += [f"! model     {other_model}"] if other_model else []
    lines += [*_segment_lines(state), *_retrain_lines(state), *_overtaken_lines(state)]
    return "\n".join([*lines, *_next_lines(state)])


def status(home: OpenHome, *, as_json: bool) -> str:
    """The home in a few lines, or as JSON."""
    if restored := read_restored(home.paths):
        return _describe_restored(home, restored, as_json=as_json)
    state = describe_home(home)
    if as_json:
        return json.dumps(state, indent=2, default=str)
    if state["source"] is None:
        empty = (
            f"home {state['home']} is empty; 'custseg run --source FILE' fills it, and so do files dropped into "
            f"{home.landing_zone.folder}; 'custseg run' alone takes the demo in"
        )
        return "\n".join([empty, *_failure_lines(state), *_landing_lines(state)])
    stale = state["stale"]
    lines = [*_failure_lines(state), *_unfinished_lines(state), *_demo_lines(state), *_rows_lines(state)]
    lines += [*_landing_lines(state), *_segment_lines(state), *_retrain_lines(state), *_overtaken_lines(state)]
    lines += [*_settings_lines(state), *_export_lines(state), _disk_line(state["disk"])]
    lines.append(
        "stale       "
        + ("nothing" if not stale else "; ".join(f"{name}: {', '.join(keys)}" for name, keys in stale.items()))
    )
    lines += [f"  because   {cause}" for cause in state["stale_because"]]
    return "\n".join(lines)


def newest_decision(home: OpenHome) -> str:
    """What was decided about the newest challenger, or that none could be trained, and why."""
    trained = home.tables.read(schemas.PROMOTION_DECISION).filter(pl.col("period").is_in(home.champions.trainings))
    row = trained.row(-1, named=True)
    reasons = json.loads(row["reasons"])
    return "\n".join(
        [f"{row['decision']} {row['model_version'] or 'no model'}", *(f"  {reason}" for reason in reasons)]
    )


def describe_home(home: OpenHome) -> dict[str, Any]:
    """Everything that is worth knowing about a home, as plain values."""
    with home.tables.explained():
        return _describe(home)


def _describe(home: OpenHome) -> dict[str, Any]:
    tables, calendar = home.tables, home.calendar
    current, zone = home.deliveries.current(), home.landing_zone
    waiting = zone.waiting(time.time(), home.settings.landing.settle_seconds)
    snapshots = [key for key in calendar.snapshot_keys if tables.fingerprint_of("segment_assignments", key)]
    last = snapshots[-1] if snapshots else None
    window = window_made(home, last) if last else None
    champion = home.champions.champion_at(last) if last else None
    own, stale = own_settings(home.paths), stale_partitions(home)
    unfinished = unfinished_stage(home.paths)
    return {
        "home": str(home.paths.root),
        "is_demo": home.is_demo,
        "settings": {
            "file": str(home.paths.settings) if own else None,
            "given_instead": [str(change) for change in compare_settings(own, home.settings)] if own else [],
        },
        "unfinished": None
        if unfinished is None
        else f"{unfinished} is being made now"
        if home.paths.is_locked()
        else describe_unfinished(unfinished),
        "source": (current.description or LANDING) if current else None,
        "landing": {
            "n_taken_in": len(current.landed) if current else 0,
            "waiting": [*(file.name for file in waiting.files), *waiting.settling, *waiting.unfinished],
            "unreadable": list(zone.unreadable_files()),
        },
        "notes": _notes(home),
        "doubts": list(current.doubts) if current else [],
        "periods": [calendar.period_keys[0], calendar.period_keys[-1]] if calendar.period_keys else None,
        "rows": {
            "raw": _height(tables, schemas.RAW_TRANSACTIONS),
            "clean": _height(tables, schemas.CLEAN_TRANSACTIONS),
            **_sums(tables),
            "rejected": _counts(tables.scan(schemas.REJECTED_TRANSACTIONS), "reason"),
            "unreadable_examples": unreadable_examples(tables.scan(schemas.REJECTED_TRANSACTIONS)),
        },
        "champion": {"trained_on": champion[0], "model_version": champion[1]} if champion else None,
        "no_model_because": None if champion else _why_no_model(tables),
        "last_snapshot": last,
        "as_of": f"{window.as_of:%Y-%m-%d}" if window else None,
        "window_start": f"{window.start:%Y-%m-%d}" if window else None,
        "is_open": window.is_open if window else None,
        "segments": _segments(tables, last),
        "drift": _drift(tables, last),
        "release": _release(home.paths.releases),
        "campaigns": [
            {"name": one.name, "last_day": (one.starts + timedelta(days=one.days - 1)).isoformat()}
            for one in running(home)
        ],
        "not_exported": due_exports(home),
        "disk": asdict(disk_use(home)),
        "release_stale_because": why_not_released(home) if champion else None,
        "due_retrain": _due_retrain(home),
        "decided_against_others": [
            {"period": key, "decided_against": then, "in_force_before": now}
            for key, (then, now) in home.champions.overtaken.items()
        ],
        "stale": stale,
        "stale_because": causes_of_stale(home, stale, settings_before(home.paths) or own) if stale else [],
        "last_failure": asdict(failure) if (failure := last_failure(home.paths)) else None,
        "last_alert": next(iter(AlertLog(home.paths.alerts).newest(1)), None),
    }


def _notes(home: OpenHome) -> list[str]:
    """What was decided about the source's lines, each once."""
    deliveries = home.calendar.deliveries
    notes = list(dict.fromkeys(note for delivery in deliveries for note in delivery.notes))
    if deliveries and home.cleaning_rules.keeps_equal_lines and home.settings.cleaning.duplicates is None:
        notes.append("equal lines of a file all count, since each may be one unit ([cleaning] duplicates)")
    return notes


def _sums(tables: TableReader) -> dict[str, Any]:
    """What the lines that count come to."""
    clean = tables.scan(schemas.CLEAN_TRANSACTIONS)
    order = clean.filter(~pl.col("is_cancellation")).select("invoice_id").unique()
    # Whole millionths have one sum, in whatever order threads add them.
    net = (pl.col("line_amount") * MICRO).round().cast(pl.Int64).sum() / MICRO
    facts = [
        clean.select("customer_id").unique().select(customers=pl.len()),
        order.select(orders=pl.len()),
        clean.select(net=net),
    ]
    return pl.concat(pl.collect_all(facts, engine="streaming"), how="horizontal").row(0, named=True)


def _height(tables: TableReader, table: schemas.Table) -> int:
    return sum(tables.sizes(table).values())


def _counts(rows: pl.LazyFrame, column: str) -> dict[str, int]:
    counted = rows.group_by(column).len().sort("len", column, descending=[True, False]).collect(engine="streaming")
    return dict(counted.iter_rows())


def unreadable_examples(rejected: pl.LazyFrame) -> list[str]:
    """The first lines with values that could not be read: where they are, and what is written there."""
    lines = rejected.filter((pl.col("reason") == "unreadable") & pl.col("unreadable_values").is_not_null())
    first = lines.sort("source_file", "source_row").select("source_file", "source_row", "unreadable_values")
    return [
        f"row {row:,} of {file}: " + ", ".join(f"{name} {text!r}" for name, text in json.loads(values).items())
        for file, row, values in first.head(_N_EXAMPLES).collect(engine="streaming").iter_rows()
    ]


def _why_no_model(tables: TableReader) -> list[str]:
    decisions = tables.read(schemas.PROMOTION_DECISION)
    return json.loads(decisions["reasons"][-1]) if decisions.height else []


def _segments(tables: TableReader, key: str | None) -> list[dict[str, Any]]:
    if key is None:
        return []
    columns = ["segment_id", "segment_name", "n_customers", "share_customers", "share_revenue"]
    return tables.read(schemas.SEGMENT_PROFILES, [key]).select(columns).to_dicts()


def _drift(tables: TableReader, key: str | None) -> dict[str, Any] | None:
    report = tables.read(schemas.DRIFT_REPORT, [key]) if key else None
    if report is None or report.is_empty():
        return None
    return {"period": key, "verdict": report["verdict"][0], "reasons": json.loads(report["reasons"][0])}


def _release(folder: Path) -> str | None:
    with contextlib.suppress(releases.DamagedReleaseError):
        return releases.current(folder)
    return None


def _due_retrain(home: OpenHome) -> str | None:
    """Key of the snapshot that the next retrain is about, where drift asks for one."""
    due = due_retrain(home, home.tables.read(schemas.RETRAIN_DECISION))
    return due.last_key if isinstance(due, Stage) else None


def _rows_lines(state: dict[str, Any]) -> list[str]:
    rows, rejected = state["rows"], state["rows"]["rejected"]
    examples = {"unreadable": [f"    {example}" for example in rows["unreadable_examples"]]}
    return [
        f"source      {state['source']}, periods {' to '.join(state['periods'])}",
        f"rows in     {rows['raw']:>10,}",
        f"rejected    {sum(rejected.values()):>10,}",
        *(
            line
            for reason, count in rejected.items()
            for line in (f"  {reason:<20} {count:>10,}", *examples.get(reason, []))
        ),
        f"kept        {rows['clean']:>10,}",
        f"  {rows['customers']:,} customers, {rows['orders']:,} orders, {rows['net']:,.2f} in all",
        *(f"  {note}" for note in state["notes"][:_N_NOTES]),
        *([f"  and {len(state['notes']) - _N_NOTES:,} more notes"] if len(state["notes"]) > _N_NOTES else []),
        *(f"! doubtful  {doubt}" for doubt in state["doubts"]),
    ]


def _failure_lines(state: dict[str, Any]) -> list[str]:
    failure, alert = state["last_failure"], state["last_alert"]
    if failure is None:
        # What the sensors started leaves an alert; it is over when nothing is out of date any more.
        return [f"alert       {alert}"] if alert and state["stale"] else []
    return [
        f"failed      'custseg {failure['command']}' of {failure['at']}: {failure['reason']}",
        f"  to do     {failure['todo']}",
    ]


def _unfinished_lines(state: dict[str, Any]) -> list[str]:
    return [f"unfinished  {state['unfinished']}"] if state["unfinished"] else []


def _settings_lines(state: dict[str, Any]) -> list[str]:
    settings = state["settings"]
    if settings["file"] is None:
        return ["settings    as given now; the next command that writes keeps them in the home"]
    given = [f"  but given {change}" for change in settings["given_instead"]]
    return [f"settings    {settings['file']}", *given]


def _export_lines(state: dict[str, Any]) -> list[str]:
    return [
        f"! models    {model} is not exported: 'custseg dvc export {model}' does it" for model in state["not_exported"]
    ]


def _disk_line(disk: dict[str, int]) -> str:
    """How much disk the home takes: what is kept of earlier versions of tables, and until when."""
    now, of_models, replaced, others = (
        f"{disk[name] / 1e6:,.1f}" for name in ("now", "of_models", "replaced", "others")
    )
    return (
        f"disk        {sum(disk.values()) / 1e6:,.1f} MB: tables {now}, what else promoted models were made from "
        f"{of_models}, replaced and removed after a week {replaced}, the rest {others}"
    )


def _describe_restored(home: OpenHome, restored: Restored, *, as_json: bool) -> str:
    """A home that was restored from an export: what it is, and what can be done with it."""
    segments, disk = _segments(home.tables, restored.trained_on), asdict(disk_use(home))
    if as_json:
        state = {"home": str(home.paths.root), "restored": asdict(restored), "segments": segments, "disk": disk}
        return json.dumps(state, indent=2)
    lines = [
        f"restored    from {restored.exported_to}, to be looked at: nothing is made in this home",
        f"model       {restored.model_version}",
        f"snapshot    {restored.trained_on}, as of {restored.as_of}",
        *_segment_table(segments),
        _disk_line(disk),
        "look next",
        "  custseg export segment_assignments --out segment_assignments.csv",
        f"  custseg dvc verify {restored.model_version} --refit",
    ]
    return "\n".join(lines)


def _demo_lines(state: dict[str, Any]) -> list[str]:
    if not state["is_demo"]:
        return []
    return ["! demo      a made-up shop; 'custseg run --source FILE' starts the home afresh with your own data"]


def _retrain_lines(state: dict[str, Any]) -> list[str]:
    if state["due_retrain"] is None:
        return []
    return [
        f"retrain     due on {state['due_retrain']}, because drift lasts: 'custseg ui' begins it by itself",
        "  and releases the new model where it is better; 'custseg retrain' begins it now",
    ]


def _overtaken_lines(state: dict[str, Any]) -> list[str]:
    lines = []
    for one in state["decided_against_others"]:
        lines += [
            f"! decision  of {one['period']} was made against {one['decided_against']}, and stays",
            f"  now {one['in_force_before']} is in force there; 'custseg retrain' decides about a new challenger",
        ]
    return lines


def _landing_lines(state: dict[str, Any]) -> list[str]:
    landing = state["landing"]
    parts = [f"{landing['n_taken_in']:,} files taken in"] if landing["n_taken_in"] else []
    parts += [f"{words}: {', '.join(landing[words])}" for words in ("waiting", "unreadable") if landing[words]]
    return [f"landing     {'; '.join(parts)}"] if parts else []


def _segment_lines(state: dict[str, Any]) -> list[str]:
    if state["champion"] is None:
        reasons = (f"  {reason}" for reason in state["no_model_because"])
        return ["segments    none, because:", *reasons, f"release     {state['release'] or 'none'}"]
    total = sum(segment["n_customers"] for segment in state["segments"])
    so_far = " so far" if state["is_open"] else ""
    lines = [
        f"model       {state['champion']['model_version']}",
        (
            f"snapshot    {state['last_snapshot']}{so_far}, as of {state['as_of']}, {total:,} customers;"
            f" orders since {state['window_start']} count"
        ),
        *_segment_table(state["segments"]),
    ]
    drift = state["drift"]
    if drift:
        lines += [f"drift       {drift['verdict']}", *(f"  {reason}" for reason in drift["reasons"])]
    why = state["release_stale_because"]
    again = [f"  to be made again, because {why}: 'custseg run' does it"] if why else []
    campaigns = [
        f"campaign    {one['name']} is running until {one['last_day']}; its holdout is in no list"
        for one in state["campaigns"]
    ]
    return [*lines, f"release     {state['release'] or 'none'}", *campaigns, *again]


def _segment_table(segments: list[dict[str, Any]]) -> list[str]:
    lines = [f"  {'segment':<28}{'customers':>10}{'share':>8}{'revenue':>9}"]
    for segment in segments:
        label = f"{segment['segment_id']} {segment['segment_name']}"
        lines.append(
            f"  {label:<28}{segment['n_customers']:>10,}{segment['share_customers']:>8.1%}"
            f"{segment['share_revenue'] or 0:>9.1%}"
        )
    return lines


def _next_lines(state: dict[str, Any]) -> list[str]:
    home = Path(state["home"])
    command = f"{HOME_VARIABLE}={shlex.quote(str(home))} {_command()}"
    table = "customers" if state["champion"] else "customer_features"
    return [
        "look next",
        *([f"  {_serving(command)} demo"] if state["release"] else []),
        f"  {command} export {table} --out {table}.csv",
        f"  {command} ui",
        f"  {home / 'data_docs' / 'index.html'}",
    ]


def _serving(command: str) -> str:
    """The command of the service, called like this one."""
    return command.replace("custseg_assets.cli", "custseg_serving.cli") if " -m " in command else f"{command}-serving"


def _command() -> str:
    """The command as it was called, such that it can be called from every folder."""
    invoked = Path(sys.argv[0])
    if invoked.name != "custseg":
        return f"{shlex.quote(sys.executable)} -m custseg_assets.cli" if invoked.name == "cli.py" else "custseg"
    return shlex.quote(str(invoked.absolute())) if len(invoked.parts) > 1 else "custseg"
