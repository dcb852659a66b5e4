"""A person's word over the gate's: put the champion before back in force, or put a challenger in force.

What a person decides is written over the row that the gate wrote, with who and why, and everything that hangs on it
follows: the registry's alias, the release that is served, and then the tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import polars as pl

from custseg_assets.commands.run import Runner
from custseg_assets.defs.resources import stores_of
from custseg_assets.domain.schemas import PROMOTION_DECISION
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.home.decision_record import origin_of
from custseg_assets.home.open import bucket_of
from custseg_assets.stores import releases
from custseg_assets.stores.registry import ModelRegistry

ROLLED_BACK = "ROLLBACK"


@dataclass(frozen=True)
class Word:
    """Who decided, and why.

    Attributes:
        by: a person's name.
        why: in a sentence.
    """

    by: str
    why: str


def rollback(runner: Runner, word: Word) -> str:
    """Put the champion before the present one back in force, with its release at once and every table after it.

    Args:
        runner: of the home.
        word: who wants it and why.

    Returns:
        What was done, in a sentence.

    Raises:
        BadInputError: there is no champion before.
    """
    with runner.home.locked():
        champions = runner.provenance.champions
        if len(champions) < 2:
            raise BadInputError(
                f"{len(champions)} champions so far",
                "a champion before the present one",
                "There is nothing to go back to; 'custseg status' shows what is in force.",
            )
        (_, before), (key, now) = champions[-2:]
        _overrule(runner, key, ROLLED_BACK, word)
        _registry(runner).promote(before)
        release = _release_of(runner, before)
        if release:
            releases.point_to(runner.home.releases, release)
            if bucket := bucket_of(runner.settings):
                bucket.push_release(runner.home.releases, release)
        last = runner.provenance.released_key()
        runner.follow(last, last)
    served = f"release {release} was put back, then remade" if release else "no release of it was kept; one was made"
    return f"{before} is in force again instead of {now}; {served}"


def promote(runner: Runner, model_version: str, word: Word) -> str:
    """Put a challenger in force that the gate held or rejected.

    Args:
        runner: of the home.
        model_version: of the challenger.
        word: who wants it and why.

    Returns:
        What was done, in a sentence.

    Raises:
        BadInputError: there is no such challenger, or a later model is in force.
    """
    with runner.home.locked():
        decisions = runner.tables.read(PROMOTION_DECISION).filter(pl.col("model_version").is_not_null())
        waiting = dict(decisions.filter(pl.col("decision") != "PROMOTE").select("model_version", "period").iter_rows())
        champions = runner.provenance.champions
        newest = champions[-1][0] if champions else ""
        accepted = sorted(version for version, key in waiting.items() if key > newest)
        if model_version not in accepted:
            raise BadInputError(
                f"model {model_version}",
                f"a challenger later than the champion: {', '.join(accepted) or 'there is none'}",
                "Name one of those; 'custseg rollback' goes back to the champion before.",
            )
        _overrule(runner, waiting[model_version], "PROMOTE", word)
        _registry(runner).promote(model_version)
        last = runner.provenance.released_key()
        runner.follow(last, last)
    return f"{model_version} is in force" + (f" instead of {champions[-1][1]}" if champions else "")


def _overrule(runner: Runner, key: str, decision: str, word: Word) -> None:
    """Write a person's decision over the gate's; the gate's reasons stay behind it."""
    row = runner.tables.read(PROMOTION_DECISION, [key]).row(0, named=True)
    reasons = [word.why, f"Before that, {row['decided_by']} decided {row['decision']}:", *json.loads(row["reasons"])]
    changed = {
        **row,
        "decision": decision,
        "reasons": json.dumps(reasons, ensure_ascii=False),
        "decided_by": word.by,
    }
    made_from = runner.tables.fingerprint_of(PROMOTION_DECISION.name, key)
    if made_from is None:
        raise RunFailedError(f"promotion_decision of {key} is not up to date; run 'custseg run' first")
    runner.tables.write(PROMOTION_DECISION, pl.DataFrame([changed], schema=PROMOTION_DECISION.schema), {key: made_from})
    said = {"decision": decision, "decided_by": word.by, "why": word.why}
    origin = origin_of(stores_of(runner.settings), changed)
    runner.engine.record(PROMOTION_DECISION.name, key, {**said, "origin": origin})
    _registry(runner).note(row["model_version"], {**said, "replaces": origin["replaces"] or "none"})


def _release_of(runner: Runner, model_version: str) -> str | None:
    """The newest release of a model that was kept."""
    root = runner.home.releases
    manifests = [releases.read_manifest(root, one) for one in releases.releases(root)]
    made = [manifest for manifest in manifests if manifest.model_version == model_version]
    return max(made, key=lambda manifest: manifest.period).release_id if made else None


def _registry(runner: Runner) -> ModelRegistry:
    return ModelRegistry(runner.settings.tracking, runner.home.mlflow)
