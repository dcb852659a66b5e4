"""What both commands do alike: parse arguments, answer mistakes with the nearest name, and end with one exit code.

The standard library only: ``--help`` must not wait for an import, and the service imports this, too.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.metadata
import itertools
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from custseg_assets.errors import BadInputError, CustsegError, did_you_mean

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes: a run or a machine that failed, input that cannot be used, and Ctrl-C; 0 is all well."""

_DISTRIBUTION = "custseg"
_EXTRAS = ("pipeline", "sql", "serving", "gcp", "spark", "docs", "dev")
"""The smaller first of those that bring the same library."""
_NAMES_OF_MODULES = {"google": "google-cloud-storage", "sklearn": "scikit-learn"}
"""Distributions whose names are not their modules'."""
_OF_THE_MACHINE = frozenset(
    (
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMFILE,
        errno.ENAMETOOLONG,
        errno.ENFILE,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    )
)
"""Errors of the operating system that whoever runs the command can mend; others are ours."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, which names what is nearest to a command or an option that is unknown."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # Of the parsers of a command and its own commands, the innermost says what it did not expect.
        self.set_defaults(parser_=self)

    def add_version(self) -> None:
        """Add ``--version``."""
        self.add_argument("--version", action=_ShowVersion, help="show the version and end")

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse everything; what is left over ends the command."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parsed.parser_.error(f"unexpected argument {unknown[0]!r}")
        return parsed

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse what is known; an unknown option ends the command, also where something else is missing."""
        given = sys.argv[1:] if args is None else list(args)
        commands = {
            name for action in self._actions if action.nargs == argparse.PARSER for name in action.choices or ()
        }
        options = [option for option in self._option_string_actions if option.startswith("--")]
        for text in itertools.takewhile(lambda text: text != "--" and text not in commands, given):
            name = text.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in options):
                near = did_you_mean(name, options)
                self.error(f"unknown option {name}; expected one of {', '.join(options)}. {near}".rstrip())
        return super().parse_known_args(given, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        accepted = [str(choice) for choice in action.choices]
        said = f"{value!r}; expected one of {', '.join(accepted)}. {did_you_mean(str(value), accepted)}".rstrip()
        if action.nargs == argparse.PARSER:
            self.error(f"unknown command {said}")
        raise argparse.ArgumentError(action, said)

    def error(self, message: str) -> NoReturn:
        """End the command with one line."""
        end = "" if message.endswith(("?", ".")) else "."
        self.exit(BAD_INPUT, f"{self.prog}: {message}{end} See '{self.prog} --help'.\n")


class _ShowVersion(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"{parser.prog} {version()}")  # noqa: T201
        parser.exit()


def version() -> str:
    """The version that is installed."""
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout that is not installed"


def run_command(prog: str, command: Callable[[], int], extra: str) -> int:
    """Run a command, and say in one line why it cannot go on.

    Args:
        prog: its name.
        command: what it does; returns the exit code.
        extra: the installation that it is part of.

    Returns:
        The exit code.
    """
    if sys.stderr is sys.__stderr__:
        _own_stderr()
    try:
        status = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough: `custseg status | head`. Python would complain when it flushes at its end.
        _write_to_nobody()
        return 0
    except CustsegError as error:
        return _end(prog, str(error), BAD_INPUT if isinstance(error, BadInputError) else FAILED)
    except KeyboardInterrupt:
        return _end(prog, "interrupted; run it again to go on where it stopped", INTERRUPTED)
    except ModuleNotFoundError as error:
        if (said := missing_library(error.name or "", extra)) is None:
            raise
        return _end(prog, said, FAILED)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        place = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.ENOSPC:
            _write_to_nobody()
        return _end(prog, f"{place}{error.strerror}", FAILED)
    return status


@contextlib.contextmanager
def as_private_as(home: Path) -> Iterator[None]:
    """A block in which everything that is made has no more rights than the home's folder; a new home is its owner's.

    Processes that are started inherit that. What a command writes elsewhere is made within ``with_users_rights``.

    Args:
        home: its folder, which need not be there.
    """
    try:
        theirs = stat.S_IMODE(home.stat().st_mode) & 0o077
    except OSError:
        theirs = 0
    before = os.umask(0o077)
    # What the user does not give to others, custseg does not either.
    os.umask(before | (0o077 & ~theirs))
    _users_umask.append(before)
    try:
        yield
    finally:
        os.umask(_users_umask.pop())


@contextlib.contextmanager
def with_users_rights() -> Iterator[None]:
    """A block in which files are made with the rights that the user's own programs give them."""
    inside = os.umask(_users_umask[-1]) if _users_umask else None
    try:
        yield
    finally:
        if inside is not None:
            os.umask(inside)


_users_umask: list[int] = []
"""The umask that the process was started with, while a command runs."""


def say(line: str) -> None:
    """Write one line of progress to standard error, at once; that nobody reads it is no reason to stop."""
    with contextlib.suppress(BrokenPipeError):
        if sys.stderr is sys.__stderr__:
            os.write(_own_stderr(), f"{line}\n".encode(errors="replace"))
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201


@cache
def _own_stderr() -> int:
    """Standard error as it was when the command began.

    While a step runs Dagster sends standard error into a file that it copies here, and at the step's end it stops
    before the last lines are copied.
    """
    return os.dup(2)


def missing_library(module: str, extra: str) -> str | None:
    """What to install for a module that is not there; ``None`` where it is none of a library that custseg asks for.

    Args:
        module: its name, with dots.
        extra: the extra to name where several bring it.
    """
    root = module.partition(".")[0]
    wanted = _NAMES_OF_MODULES.get(root, root)
    bring_it = {name for library, name in _libraries_of_extras() if _same(library, wanted)}
    chosen = next((name for name in (extra, *_EXTRAS) if name in bring_it), None)
    if chosen is None:
        return None
    return (
        f"the library {module!r} is not installed; it comes with the extra {chosen!r}. "
        f"Do {sys.executable} -m pip install '{_DISTRIBUTION}[{chosen}]', in a checkout with '.[{chosen}]'."
    )


def _libraries_of_extras() -> Iterable[tuple[str, str]]:
    """Every library that an extra asks for, with the extra."""
    try:
        required = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for line in required:
        if found := re.match(r"([\w.-]+).*;.*extra == ['\"](\w+)['\"]", line):
            yield found[1], found[2]


def _same(library: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", library).lower() == re.sub(r"[-_.]+", "-", other).lower()


def _write_to_nobody() -> None:
    """Let what is left in standard output go nowhere."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _end(prog: str, words: str, status: int) -> int:
    say(f"{prog}: {words}")
    return status


def require_free(host: str, port: int) -> None:
    """Refuse an address that something listens on, before it is printed or anything is started.

    Raises:
        BadInputError: it cannot be listened on.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(
            f"{host}, port {port}, cannot be listened on ({reason})",
            "an address of this machine and a free port",
            "Stop what uses it, or name another with --port.",
        ) from None
