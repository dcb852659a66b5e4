"""The stage that a command is in the middle of, marked in the home: one that was killed leaves nothing half made.

What was being made is made again in its place in the plan: with what it is made from, and only while it is due. Nothing
is done here by which a home could come to be refused for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from custseg_assets.domain import schemas
from custseg_assets.errors import BadInputError
from custseg_assets.home.fingerprints import TRAINED
from custseg_assets.home.open import INGESTED, LockedHome
from custseg_assets.home.plan import TABLES_OF_JOB, Stage
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home


@contextlib.contextmanager
def mark_unfinished(home: LockedHome, stage: Stage) -> Iterator[None]:
    """Mark a stage as begun until the block is over; after an error or a kill the mark stays.

    A stage that is refused was not begun, and a retrain that fails before it has written anything is over: the champion
    stays, and nothing waits for it.
    """
    paths = home.paths
    before = home.tables.version_of(TRAINED[0]) if stage.job == "retrain" else None
    write_state(paths.unfinished_stage, vars(stage))
    try:
        yield
    except BadInputError:
        paths.unfinished_stage.unlink()
        raise
    except Exception:
        # Whatever failed, a run, a check or the machine: what decides is whether anything has been written.
        if stage.job == "retrain" and home.tables.version_of(TRAINED[0]) == before:
            paths.unfinished_stage.unlink()
        raise
    paths.unfinished_stage.unlink()


def unfinished_stage(paths: Home) -> Stage | None:
    """The stage that an earlier command was in the middle of when it ended; ``None`` where there is none."""
    found = read_state(paths.unfinished_stage, "job", "first_key", "last_key")
    return Stage(found["job"], found["first_key"], found["last_key"]) if found else None


def put_back_unfinished(home: LockedHome) -> Stage | None:
    """Have the plan make again what an earlier command was in the middle of; returns that.

    A training that was decided about stays as it was decided; of one that was not, the record that nothing was trained
    is made again, and nothing waits for it.
    """
    stage = unfinished_stage(home.paths)
    if stage is None:
        return None
    tables, calendar = schemas.tables(home.settings.model.features), home.calendar
    for name in TABLES_OF_JOB.get(stage.job, ()):
        there = calendar.period_keys if name in INGESTED else calendar.snapshot_keys
        within = [key for key in there if (stage.first_key or "") <= key <= (stage.last_key or "")]
        decided = {key for key in within if name in TRAINED and home.champions.is_retrained(key)}
        home.tables.mark_stale(tables[name], [key for key in within if key not in decided])
    home.paths.unfinished_stage.unlink()
    return stage


def describe_unfinished(stage: Stage) -> str:
    """What becomes of an unfinished stage, in a sentence."""
    if stage.job == "retrain":
        return (
            f"an earlier command ended in the middle of {stage}: the next 'custseg run' puts it right; what was "
            "decided about a challenger stays, and 'custseg retrain' trains another"
        )
    return f"an earlier command ended in the middle of {stage}: the next 'custseg run' makes that again"
