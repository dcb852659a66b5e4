"""The commands on the pages: found in blocks of code and in backticks, and taken apart as the shell and argparse do."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from custseg_assets import cli
from custseg_serving import cli as serving_cli
from tests.support.files import REPOSITORY

PARSERS = {"custseg": cli._parser(), "custseg-serving": serving_cli._parser()}
MAKE_TARGETS = set(
    re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
)
SHELL = ("", "sh", "bash", "shell", "console")
"""Languages of blocks of commands; a block without one may be output as well."""

_BLOCK = re.compile(r"^```(?P<language>[\w-]*)\n(?P<text>.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_OURS = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:\S*/)?(?:custseg|custseg-serving|make|curl|python)(?= |$)")


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: Path
    language: str
    text: str

    def commands(self) -> Iterator[str]:
        """The lines that start a program of ours, without comments, each in one line."""
        if self.language in SHELL:
            for line in re.sub(r"\\\n\s*", "", self.text).splitlines():
                command = re.sub(r"\s+#.*", "", line).strip()
                if _OURS.match(command):
                    yield command


def blocks_of(page: Path) -> list[Block]:
    """Every block of code of a page."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, block["language"], block["text"]) for block in found]


def named_in_prose(page: Path) -> list[str]:
    """The commands that stand in backticks."""
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    quoted = (text.replace("\\|", "|") for text in re.findall(r"`([^`\n]+)`", prose))
    return [text for text in quoted if _OURS.match(text) and not text.endswith(("/", ":"))]


def words_of(command: str) -> list[str]:
    """The words of a command, without variables, redirections, and brackets; of alternatives the first."""
    plain = re.sub(r"\[([^\[\]]*)\]", r"\1", re.sub(r"\s+[|>&;].*", "", command))
    words = shlex.split(plain)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    words = [word.rstrip(",").partition("|")[0] for word in words]
    return [Path(words[0]).name, *words[1:]] if words else []


def flaws_of(command: str) -> list[str]:
    """What is wrong with a command: a subcommand, an option or a target that there is not."""
    name, *words = words_of(command)
    if name == "make":
        return [f"no target {word}" for word in words if re.fullmatch(r"[a-z-]+", word) and word not in MAKE_TARGETS]
    if name == "python" and words[:1] == ["-m"]:
        place = REPOSITORY / words[1].replace(".", "/")
        return [] if place.exists() or place.with_suffix(".py").exists() else [f"no module {words[1]}"]
    if name == "python" and words and words[0].endswith(".py"):
        return [] if (REPOSITORY / words[0]).exists() else [f"no file {words[0]}"]
    return _flaws_of_arguments(PARSERS[name], words) if name in PARSERS else []


def _flaws_of_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Walk down the parsers as argparse would; what is required may be missing in prose."""
    flaws = []
    commands = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
    for i, word in enumerate(words):
        if word.startswith("--"):
            if word.partition("=")[0] not in parser._option_string_actions:
                flaws.append(f"no option {word} of {parser.prog}")
        elif commands is not None and not (i and words[i - 1].startswith("--")):
            if word.isupper():
                return flaws
            if word not in commands.choices:
                return [*flaws, f"no command {word} of {parser.prog}"]
            return [*flaws, *_flaws_of_arguments(commands.choices[word], words[i + 1 :])]
    return flaws
