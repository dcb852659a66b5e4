"""What has to be made next: the same plan for ``custseg run`` and for the sensors.

A stage is one Dagster run, a job over an unbroken range of partitions. Stages are worked out one at a time, because
what one of them makes decides what the next one is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from custseg_assets.domain.schemas import PREDICTION_LOG
from custseg_assets.errors import BadInputError
from custseg_assets.home.campaigns import HOLDOUTS, holdouts_digest, holdouts_to_publish
from custseg_assets.home.fingerprints import TRAINED
from custseg_assets.home.open import INGESTED, OpenHome
from custseg_assets.stores import releases
from custseg_assets.stores.publications import HELD_OUT, Publications, state_to_publish
from custseg_assets.stores.tables import fingerprint

SEGMENTED = (
    "segment_assignments",
    "segment_profiles",
    "segment_migrations",
    "product_recommendations",
    "segment_products",
    "value_model",
    "customer_value",
    "drift_report",
    "retrain_decision",
)
TABLES_OF_JOB: Mapping[str, Sequence[str]] = {
    "ingest": INGESTED,
    "features": ("customer_features",),
    "train": ("scaled_features", *TRAINED),
    "scale": ("scaled_features",),
    "hold": TRAINED,
    "segment": SEGMENTED,
    "snapshot": ("customer_features", "scaled_features", *TRAINED, *SEGMENTED),
    "retrain": TRAINED,
}
"""What each job makes, in the order in which a home needs them."""
CAMPAIGNS = "campaigns"
"""The job that writes down and compares the groups of campaigns; its tables follow records, not snapshots."""
EXPORT = "export_models"
"""The job that exports promoted models; it has no table."""
LONGEST_SHUT = timedelta(days=7)
"""Without data at the end of a period that a shop may have been shut; after longer, data are missing."""
PUBLISHED = (
    "segment_assignments",
    "segment_profiles",
    "segment_migrations",
    "segment_products",
    "customer_value",
    "drift_report",
    "retrain_decision",
    "promotion_decision",
)
"""What of a snapshot is published where other programs read it."""


@dataclass(frozen=True)
class Stage:
    """One Dagster run: a job over a range of partitions, or one that has none."""

    job: str
    first_key: str | None = None
    last_key: str | None = None

    def __str__(self) -> str:
        if self.first_key is None:
            return self.job
        span = self.first_key if self.first_key == self.last_key else f"{self.first_key} … {self.last_key}"
        return f"{self.job} {span}"


def next_stage(home: OpenHome, last_period: str, last_snapshot: str) -> Stage | None:
    """The next thing to do; ``None`` where everything is up to date.

    Args:
        home: as it stands now.
        last_period: key of the last period to take in.
        last_snapshot: key of the last snapshot to make.
    """
    champions, stale = home.champions, home.fingerprints.stale
    periods = [key for key in home.calendar.period_keys if key <= last_period]
    snapshots = [key for key in home.calendar.snapshot_keys if key <= last_snapshot]
    untrained = [key for key in snapshots if champions.is_untrained(key)]
    features = stale(("customer_features",), snapshots)
    # A snapshot that nothing is trained on needs one run from its features to its release, unless another comes first.
    is_routine = bool(features) and set(stale(TABLES_OF_JOB["snapshot"], snapshots)) <= set(untrained)
    first = [key for key in snapshots if champions.champion_before(key) is None]
    segmented = champions.segmented(snapshots)
    return (
        _first_range("ingest", periods, stale(INGESTED, periods))
        or (_first_range("snapshot", snapshots, stale(TABLES_OF_JOB["snapshot"], untrained)) if is_routine else None)
        or _first_range("features", snapshots, features)
        or _first_partition("train", stale(TRAINED, first))
        or _first_range("scale", segmented, stale(("scaled_features",), segmented))
        or _first_range("hold", snapshots, stale(TRAINED, untrained))
        or _first_range("segment", segmented, stale(SEGMENTED, segmented))
        or (_first_partition("segment", segmented[-1:]) if segmented and why_not_released(home) else None)
    )


def why_not_released(home: OpenHome) -> str | None:
    """Why the release that is served has to be made again, in words; ``None`` where it is whole and complete."""
    root = home.paths.releases
    try:
        current = releases.current(root)
        if current is None:
            return "there is none"
        manifest = releases.verify(root, current, _digest_once)
    except releases.DamagedReleaseError as error:
        return str(error)
    reasons = {
        "a release was begun and not finished": not home.paths.is_released(),
        "an earlier version made it, without lists of the customers": not manifest.has_lists,
        "other customers are held out of running campaigns than it says": (
            manifest.data_versions.get(HOLDOUTS) != holdouts_digest(home)
        ),
        f"it says {manifest.currency or 'no currency'}, and the home {home.currency or 'none'}": (
            manifest.currency != home.currency
        ),
    }
    return next((words for words, is_so in reasons.items() if is_so), None)


def _digest_once(path: Path) -> str:
    """The digest of a file of a release, computed anew only when the file has changed: sensors ask all the time."""
    found = path.stat()
    return _digest(path, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


@lru_cache(maxsize=256)
def _digest(path: Path, _: tuple[int, ...]) -> str:
    return releases.sha256_of(path)


def closable_key(home: OpenHome) -> str | None:
    """The open snapshot, if the data come so near its period's end that the clock may close it; none otherwise."""
    key = home.calendar.open_key
    if key is None:
        return None
    window = home.calendar.window(key)
    may_be_shut = window.period_end - window.as_of <= LONGEST_SHUT
    return key if may_be_shut and 1 - window.observed_share <= home.settings.drift.max_unobserved_share else None


def due_retrain(home: OpenHome, decisions: pl.DataFrame) -> Stage | str:
    """The retrain that is due, or why there is none; the open snapshot has no part in it.

    Args:
        home: as it stands now.
        decisions: rows of ``retrain_decision``, oldest first.
    """
    closed = [row for row in decisions.iter_rows(named=True) if row["period"] != home.calendar.open_key]
    if not closed:
        return "no drift report of a period that is over has been decided about yet"
    newest, newest_closed = closed[-1], home.newest_closed_snapshot()
    key = newest["period"]
    reasons = [
        (newest["decision"] != "RETRAIN", f"{key}: {newest['decision']}, {'; '.join(json.loads(newest['reasons']))}"),
        (key != newest_closed, f"{key} asks for a retrain, but {newest_closed} is the newest closed snapshot"),
        (key in home.champions.trainings, f"a challenger was trained on {key} and decided about already"),
    ]
    before = next_stage(home, home.calendar.period_keys[-1], key)
    reasons.append((before is not None, f"{before} comes first"))
    return next((words for is_so, words in reasons if is_so), Stage("retrain", key, key))


def require_retrainable(home: OpenHome, key: str) -> None:
    """Refuse a retrain on a snapshot that cannot have one, before anything is begun.

    Raises:
        BadInputError: no model is in force before it, or it is not the newest closed snapshot.
    """
    before, champion = home.champions.champion_before(key), home.champions.champion_at(key)
    if champion is None or champion != before:
        why = f"the model in force came with {key} itself" if champion else "no model is in force"
        raise BadInputError(
            f"a retrain on {key}: {why}",
            "a snapshot later than the one that the model in force was trained on",
            "Wait for the next period to be over; nothing was changed.",
        )
    newest = home.newest_closed_snapshot()
    if key != newest:
        raise BadInputError(
            f"a retrain on {key}",
            f"the newest closed snapshot with segments, {newest}",
            "Retrain on that; nothing was changed.",
        )


def digest_inputs(stage: Stage, home: OpenHome) -> str:
    """A digest of what a stage would be made from: the same again means that nothing has changed since."""
    keys = home.calendar.period_keys if stage.job == "ingest" else home.calendar.snapshot_keys
    within = [key for key in keys if (stage.first_key or "") <= key <= (stage.last_key or "")]
    expected = [home.fingerprints.expected(name, key) for name in TABLES_OF_JOB[stage.job] for key in within]
    return f"{fingerprint(str(stage), expected):x}"


def due_publication(home: OpenHome, publications: Publications) -> Mapping[str, Sequence[object]]:
    """What is published otherwise than the tables have it, by table; empty where nothing is to be done.

    Args:
        home: as it stands now.
        publications: what is published.
    """
    due: dict[str, Sequence[object]] = {}
    for name in PUBLISHED:
        here = {key: state_to_publish(home.tables, name, key) for key in home.calendar.snapshot_keys}
        due[name] = sorted({key: state for key, state in here.items() if state}.items() ^ publications.of(name).items())
    due[HELD_OUT.name] = sorted(holdouts_to_publish(home).items() ^ publications.of(HELD_OUT.name).items())
    log = home.tables.version_of(PREDICTION_LOG.name)
    due[PREDICTION_LOG.name] = [log] if log != publications.version_of(PREDICTION_LOG.name) else []
    return {name: what for name, what in due.items() if what}


def _first_range(job: str, keys: Sequence[str], stale: Sequence[str]) -> Stage | None:
    """The job over the first run of partitions that are out of date, unbroken among all keys that there are."""
    if not stale:
        return None
    start = end = keys.index(stale[0])
    while end + 1 < len(keys) and keys[end + 1] in stale:
        end += 1
    return Stage(job, keys[start], keys[end])


def _first_partition(job: str, stale: Sequence[str]) -> Stage | None:
    return Stage(job, stale[0], stale[0]) if stale else None
