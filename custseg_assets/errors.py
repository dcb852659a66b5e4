"""The errors custseg shows to people.

Only errors that a user can act on belong here; a broken invariant stays a plain Python error.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence

_MIN_PREFIX = 3
"""Characters from which on the beginning of a name says more than its spelling."""


class CustsegError(Exception):
    """Something a user can act on; ``str()`` of it is one complete line."""


class BadInputError(CustsegError):
    """What the user gave cannot be used; the command ends with exit code 2.

    Args:
        got: what was found, with the name of the file, key or option.
        expected: what would have been accepted.
        todo: the next thing to do about it.
        lines: section of a configuration → lines of TOML that ``todo`` has for it.
    """

    def __init__(self, got: str, expected: str, todo: str, lines: Mapping[str, Sequence[str]] | None = None) -> None:
        self.got, self.expected, self.todo = got, expected, todo
        self.lines = lines or {}
        super().__init__(f"{got}; expected {expected}. {todo}")


class RunFailedError(CustsegError):
    """A run started and did not end well; the command ends with exit code 1.

    Args:
        words: what failed and why, in one line.
        step: the step that failed, where it was one.
        check: the blocking check that failed, as ``table.check``, where it was one.
        todo: the next thing to do about it, where that is known.
    """

    def __init__(self, words: str, *, step: str | None = None, check: str | None = None, todo: str = "") -> None:
        self.step, self.check, self.todo = step, check, todo
        super().__init__(words)


class MachineFaultError(CustsegError):
    """The machine could not do what was asked, which says nothing about the input; the exit code is 1.

    Args:
        words: what could not be done and why.
        todo: the next thing to do about it.
    """

    def __init__(self, words: str, todo: str) -> None:
        self.words, self.todo = words, todo
        super().__init__(f"{words}. Nothing is lost. {todo}")


class DamagedHomeError(CustsegError):
    """Something that custseg keeps in its home is not as it was written; the exit code is 1.

    Args:
        what: the file or the part of the home.
        why: what is wrong with it.
        todo: the next thing to do about it.
    """

    def __init__(
        self,
        what: object,
        why: str,
        todo: str = "'custseg verify' says what else is, and 'custseg verify --mend' mends what can be made anew.",
    ) -> None:
        self.what, self.why = str(what), why
        super().__init__(f"{what} is damaged: {why}. {todo}")


def did_you_mean(given: str, accepted: Iterable[str]) -> str:
    """A question that names what begins with a name that is not accepted, or is spelled most like it; else empty.

    Args:
        given: the name that was given.
        accepted: the names it could have been.

    >>> did_you_mean("champion", ["Loyal", "Champions"]), did_you_mean("S9", ["S1"])
    ("Did you mean 'Champions'?", '')
    >>> did_you_mean("2025-10", ["2025-01-01", "2025-10-01"])
    "Did you mean '2025-10-01'?"
    """
    by_folded = {name.casefold(): name for name in accepted}
    folded = given.casefold()
    longer = [name for name in by_folded if name.startswith(folded)] if len(folded) >= _MIN_PREFIX else []
    near = longer or difflib.get_close_matches(folded, by_folded, n=1)
    return f"Did you mean {by_folded[near[0]]!r}?" if near else ""
