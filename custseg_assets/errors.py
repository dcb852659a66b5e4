"""The errors custseg shows to people.

Only errors that a user can act on belong here; a broken invariant stays a plain Python error.
"""


class CustsegError(Exception):
    """Something a user can act on; ``str()`` of it is one complete line."""


class BadInputError(CustsegError):
    """What the user gave cannot be used; the command ends with exit code 2.

    Args:
        got: what was found, with the name of the file, key or option.
        expected: what would have been accepted.
        todo: the next thing to do about it.
    """

    def __init__(self, got: str, expected: str, todo: str) -> None:
        self.got, self.expected, self.todo = got, expected, todo
        super().__init__(f"{got}; expected {expected}. {todo}")


class RunFailedError(CustsegError):
    """A run started and did not end well; the command ends with exit code 1."""
