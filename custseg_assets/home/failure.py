"""The last failure of a home: kept from the run that failed until a later one succeeds, so that its status can tell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from custseg_assets.errors import CustsegError, MachineFaultError, RunFailedError
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        command: that failed, such as ``run``.
        step: that failed, where it was one.
        check: that failed, as ``table.check``, where it was one.
        reason: what failed and why, in one line, with an example.
        at: when, in UTC.
        todo: the next thing to do about it.
    """

    command: str
    step: str | None
    check: str | None
    reason: str
    at: str
    todo: str


@contextlib.contextmanager
def keep_failure(paths: Home, command: str) -> Iterator[None]:
    """Keep why the block fails, where it does; forget the last failure where it does not.

    A refusal is neither: nothing was changed, and what failed before is as it was.

    Args:
        paths: of the home.
        command: that the block carries out.
    """
    try:
        yield
    except (RunFailedError, MachineFaultError) as error:
        todo = error.todo or _todo(error, command)
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        step, check = (error.step, error.check) if isinstance(error, RunFailedError) else (None, None)
        failure = Failure(command, step, check, str(error), at, todo)
        write_state(paths.failure, asdict(failure))
        raise
    paths.failure.unlink(missing_ok=True)


def last_failure(paths: Home) -> Failure | None:
    """Why the last run failed; ``None`` where it did not."""
    names = [field.name for field in fields(Failure)]
    found = read_state(paths.failure, *names)
    return Failure(*(found[name] for name in names)) if found else None


def _todo(error: CustsegError, command: str) -> str:
    again = f"then 'custseg {command}' again"
    if isinstance(error, RunFailedError) and error.check:
        return (
            f"Correct these rows in the source, {again}; 'custseg ui' shows all rows that fail {error.check}. If the"
            " source is right, the check is wrong: please report it with its line above."
        )
    return f"Do what the reason says, {again}; without one, the run's log in 'custseg ui' says more."
