"""``custseg promote`` and ``custseg rollback``: a person overrules the gate's decision about a model.

What a person decides is written over the row that the gate wrote, with who and why, and everything that hangs on it
follows: the registry's alias, the release that is served, and then the tables.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

import polars as pl

from custseg_assets.commands.run import Runner
from custseg_assets.domain.schemas import PROMOTION_DECISION
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.home.decision_record import describe_decision
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.stores import releases

ROLLED_BACK = "ROLLBACK"


@dataclass(frozen=True)
class Decider:
    """Who decided, and why.

    Attributes:
        by: a person's name.
        why: in a sentence.
    """

    by: str
    why: str


def rollback(runner: Runner, decider: Decider) -> str:
    """Put the champion before the present one back in force, with its release at once and every table after it.

    Args:
        runner: of the home.
        decider: who wants it and why.

    Returns:
        What was done, in a sentence.

    Raises:
        BadInputError: there is no champion before.
    """
    with runner.home.locked() as home:
        champions = home.champions.promotions
        if len(champions) < 2:
            raise BadInputError(
                f"{len(champions)} champions so far",
                "a champion before the present one",
                "There is nothing to go back to; 'custseg status' shows what is in force.",
            )
        (_, before), (key, now) = champions[-2:]
        runner.begin(home)
        _overrule(runner, home, key, ROLLED_BACK, decider)
        _record_in_registry(runner, home, before)
        release = _newest_release(home, before)
        if release:
            releases.point_to(home.paths.releases, release)
            if bucket := home.open_bucket():
                bucket.push_release(home.paths.releases, release)
        runner.follow(home, home.newest_snapshot())
    served = f"release {release} was put back, then remade" if release else "no release of it was kept; one was made"
    return f"{before} is in force again instead of {now}; {served}"


def promote(runner: Runner, model_version: str, decider: Decider) -> str:
    """Put a challenger in force that the gate held or rejected.

    Args:
        runner: of the home.
        model_version: of the challenger.
        decider: who wants it and why.

    Returns:
        What was done, in a sentence.

    Raises:
        BadInputError: there is no such challenger, or a later model is in force.
    """
    with runner.home.locked() as home:
        decisions = home.tables.read(PROMOTION_DECISION).filter(pl.col("model_version").is_not_null())
        waiting = dict(decisions.filter(pl.col("decision") != "PROMOTE").select("model_version", "period").iter_rows())
        champions = home.champions.promotions
        newest = champions[-1][0] if champions else ""
        accepted = sorted(version for version, key in waiting.items() if key > newest)
        if model_version not in accepted:
            raise BadInputError(
                f"model {model_version}",
                f"a challenger later than the champion: {', '.join(accepted) or 'there is none'}",
                "Name one of those; 'custseg rollback' goes back to the champion before.",
            )
        runner.begin(home)
        _overrule(runner, home, waiting[model_version], "PROMOTE", decider)
        _record_in_registry(runner, home, model_version)
        runner.follow(home, home.newest_snapshot())
        runner.export_models(home)
    return f"{model_version} is in force" + (f" instead of {champions[-1][1]}" if champions else "")


def _record_in_registry(runner: Runner, home: LockedHome, model_version: str) -> None:
    """Give a model the champion's alias, where MLflow knows it: a registry that was mended began anew without it."""
    try:
        home.registry.promote(model_version)
    except LookupError as error:
        runner.say(f"! {error}: MLflow's record began anew after the model was trained; the home's own tables count")


def _overrule(runner: Runner, home: LockedHome, key: str, decision: str, decider: Decider) -> None:
    """Write a person's decision over the gate's; the gate's reasons stay behind it."""
    row = home.tables.read(PROMOTION_DECISION, [key]).row(0, named=True)
    reasons = [decider.why, f"Before that, {row['decided_by']} decided {row['decision']}:", *json.loads(row["reasons"])]
    changed = {
        **row,
        "decision": decision,
        "reasons": json.dumps(reasons, ensure_ascii=False),
        "decided_by": decider.by,
    }
    made_from = home.tables.fingerprint_of(PROMOTION_DECISION.name, key)
    if made_from is None:
        raise RunFailedError(f"promotion_decision of {key} is not up to date; run 'custseg run' first")
    home.tables.write(PROMOTION_DECISION, pl.DataFrame([changed], schema=PROMOTION_DECISION.schema), {key: made_from})
    shown = {"decision": decision, "decided_by": decider.by, "why": decider.why}
    record = describe_decision(home, changed)
    runner.jobs.record(PROMOTION_DECISION.name, key, {**shown, "origin": record})
    home.registry.note(row["model_version"], {**shown, "replaces": record["replaces"] or "none"})


def _newest_release(home: OpenHome, model_version: str) -> str | None:
    """The newest release of a model that was kept and is whole."""
    root = home.paths.releases
    made = []
    for release_id in releases.releases(root):
        with contextlib.suppress(releases.DamagedReleaseError):
            made.append(releases.verify(root, release_id))
    made = [manifest for manifest in made if manifest.model_version == model_version]
    return max(made, key=lambda manifest: (manifest.period, manifest.as_of)).release_id if made else None
