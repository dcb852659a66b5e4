"""What a run over snapshots does about models: on which it trains, and which stay as they were decided.

Whether a training is due belongs in ``plan``; here is what happens to snapshots that a person or a plan has chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from custseg_assets.errors import BadInputError
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import require_retrainable


@dataclass(frozen=True)
class Trainings:
    """What is done about each of some snapshots; every one is in exactly one of the three.

    Attributes:
        to_train: the snapshots that a model is trained on, one at most.
        untrained: snapshots that nothing is trained on, because a model is in force.
        unchanged: snapshots that stay as they are, with the reason in words.
    """

    to_train: list[str] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)
    unchanged: dict[str, str] = field(default_factory=dict)


def plan_trainings(home: OpenHome, table: str, keys: Sequence[str], *, is_retrain: bool) -> Trainings:
    """Sort snapshots by what is done about their models.

    A decision stays as it was made, however often its snapshot is asked for, unless a retrain asks for another.

    Args:
        home: as it stands now.
        table: one of ``TRAINED``, which the snapshots are asked of.
        keys: of the snapshots, oldest first.
        is_retrain: whether a challenger was asked for although a model is in force.
    """
    return _plan_retrain(home, keys) if is_retrain else _plan_usual(home, table, keys)


def _plan_retrain(home: OpenHome, keys: Sequence[str]) -> Trainings:
    planned = Trainings()
    for key in keys:
        try:
            require_retrainable(home, key)
        except BadInputError as refusal:
            planned.unchanged[key] = f"nothing was trained, because {refusal.got}; expected {refusal.expected}"
        else:
            planned.to_train.append(key)
    return planned


def _plan_usual(home: OpenHome, table: str, keys: Sequence[str]) -> Trainings:
    planned, champions = Trainings(), home.champions
    for key in keys:
        if champions.is_untrained(key):
            planned.untrained.append(key)
        elif champions.is_retrained(key):
            planned.unchanged[key] = "a challenger was trained on it, and what was decided about it stays"
        elif not home.fingerprints.is_stale(table, key):
            planned.unchanged[key] = "a training on the same data with the same settings would give the same"
        elif planned.to_train:
            planned.unchanged[key] = f"a model is trained on {planned.to_train[0]} first"
        else:
            planned.to_train.append(key)
    return planned
