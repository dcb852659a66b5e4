"""``custseg verify``: whether a home is as it was written, part by part; with ``--mend``, what can be mended is.

What is looked at, and how each part is mended, is in ``home.verification``. Here is also the answer to an error that
nobody foresaw: where the home is damaged, that is said instead of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from custseg_assets.errors import BadInputError, CustsegError, DamagedHomeError, MachineFaultError, RunFailedError
from custseg_assets.home.fixed_settings import with_fixed_settings
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.verification import Damage, Verdict, mend_home, verify_home
from custseg_assets.settings import load_settings
from custseg_assets.stores.home import Home, HomeLock

_INDENTED = "\n                "


def verify(paths: Home, config: str | Path | None, *, mends: bool) -> tuple[list[str], list[Verdict]]:
    """Look at every part of a home, and before that mend what can be mended where that is asked for.

    Args:
        paths: of the home.
        config: that was given, for a home without settings of its own.
        mends: whether damage is mended.

    Returns:
        What was mended, in sentences, and what then was found.

    Raises:
        BadInputError: there is no such home, a run is using it, or the configuration cannot be used.
    """
    if not paths.root.is_dir():
        raise BadInputError(
            f"home {paths.root}, which is not there", "a home", "Name it with CUSTSEG_HOME; 'custseg run' makes one."
        )
    # What a run is writing would look damaged.
    with paths.locked() as lock:
        mended = list(mend_home(paths, lambda: _open(paths, config, lock))) if mends else []
        return mended, verify_home(paths, lambda: _open(paths, config, lock))


def _open(paths: Home, config: str | Path | None, lock: HomeLock) -> LockedHome:
    settings = load_settings(config, home=paths.root)
    if not paths.settings.exists():
        # Nothing but what it was made with is known of it: enough to read everything.
        settings = with_fixed_settings(settings)
    return LockedHome(OpenHome(settings), lock)


def describe(mended: Sequence[str], verdicts: Sequence[Verdict]) -> Iterator[str]:
    """What was mended and found, in lines for people."""
    for words in mended:
        yield f"mended        {words}"
    for verdict in verdicts:
        if not verdict.damages:
            yield f"{verdict.part:<14}sound: {verdict.found}"
        for damage in verdict.damages:
            yield f"{verdict.part:<14}! {damage.what}: {damage.why}{_INDENTED}{damage.remedy}"
    damages = [damage for verdict in verdicts for damage in verdict.damages]
    if any(damage.mend for damage in damages):
        yield "'custseg verify --mend' sets aside what is damaged and cannot be read, and mends what can be made anew."
    elif mended:
        yield "'custseg run' makes what is to be made again."


def as_json(home: Path, mended: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    """The same for programs."""
    state = {
        "home": str(home),
        "is_sound": is_sound(verdicts),
        "mended": list(mended),
        "parts": [
            {"part": one.part, "found": one.found, "damages": [_fields_of(damage) for damage in one.damages]}
            for one in verdicts
        ],
    }
    return json.dumps(state, indent=2, ensure_ascii=False)


def is_sound(verdicts: Sequence[Verdict]) -> bool:
    """Whether nothing is damaged."""
    return not any(verdict.damages for verdict in verdicts)


def explain(error: BaseException, paths: Home, config: str | Path | None) -> CustsegError | None:
    """Which damage of the home an error comes from; ``None`` where it is none of that.

    Args:
        error: that ended a command.
        paths: of the command's home.
        config: that was given.
    """
    is_answer = isinstance(error, BadInputError | MachineFaultError | DamagedHomeError)
    if is_answer or (isinstance(error, RunFailedError) and error.check) or not paths.root.is_dir():
        return None
    try:
        _, verdicts = verify(paths, config, mends=False)
    except CustsegError:
        return None
    damage = next((damage for verdict in verdicts for damage in verdict.damages), None)
    return DamagedHomeError(f"home {paths.root}", f"{damage.what}: {damage.why}") if damage else None


def _fields_of(damage: Damage) -> dict[str, Any]:
    fields = {"what": damage.what, "why": damage.why, "remedy": damage.remedy}
    return {**fields, "can_be_mended": damage.mend is not None}
