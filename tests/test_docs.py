"""The pages lead to files that exist, and name modules and functions that exist."""

from __future__ import annotations

import ast
import re
import runpy
from functools import cache
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY
from tests.support.pages import PAGES, PRESENT

PACKAGES = ("custseg_assets", "custseg_serving")
DOCS = REPOSITORY / "docs"
FILE_ENDINGS = (".py", ".toml", ".json", ".md", ".txt", ".yaml", ".ipynb")
NAMED = [DOCS / "architecture.md", DOCS / "glossary.md"]


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> list[str]:
    """What stands in backticks, in prose and tables."""
    return re.findall(r"`([^`\n]+)`", prose_of(page))


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file."""
    links = re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]+`", "", prose_of(page)))
    paths = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    return [path for path in paths if path and not (page.parent / path).exists()]


def missing_files(page: Path, root: Path = REPOSITORY) -> list[str]:
    """The Python files that a page names with their folder and that are in none of those a reader would look in."""
    places = (root, root / "custseg_assets", root / "custseg_serving", page.parent)
    named = {path for text in quoted(page) for path in re.findall(r"\b[\w/]+/\w+\.py\b", text)}
    return sorted(path for path in named if not any((place / path).exists() for place in places))


def unknown_names(page: Path) -> list[str]:
    """The dotted names of a page that are no module of the packages, nor anything in one."""
    names = {text.removesuffix("()") for text in quoted(page) if not text.endswith(FILE_ENDINGS)}
    return sorted(name for name in names if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name) and not is_known(name))


@cache
def is_known(name: str) -> bool:
    """Whether a name such as ``home.plan.Stage.job`` is in the code; without a package it is in ``custseg_assets``."""
    parts = name.split(".")
    place, rest = (REPOSITORY / parts[0], parts[1:]) if parts[0] in PACKAGES else (REPOSITORY / PACKAGES[0], parts)
    while rest and (place / rest[0]).is_dir():
        place, rest = place / rest[0], rest[1:]
    if not rest:
        return True
    module, names = (place / f"{rest[0]}.py", rest[1:])
    if not module.exists():
        module, names = place / "__init__.py", rest
    return module.exists() and is_in(ast.parse(module.read_text(encoding="utf-8")).body, names)


def is_in(body: list[ast.stmt], names: list[str]) -> bool:
    """Whether statements define a name, and what that is a class of the next one."""
    if not names:
        return True
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == names[0]:
            return is_in(statement.body, names[1:]) if isinstance(statement, ast.ClassDef) else names[1:] == []
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            if names[0] in found and not names[1:]:
                return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_python_file_that_a_page_names_exists(page: Path) -> None:
    assert missing_files(page) == []


@pytest.mark.parametrize("page", NAMED, ids=lambda page: page.name)
def test_every_name_of_the_code_exists(page: Path) -> None:
    assert unknown_names(page) == []


def test_what_is_wrong_on_a_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[here](page.md#top), [there](nowhere.md), [away](https://example.org/nowhere.md), ![a picture](no.png)\n"
        "`custseg_assets/home/plan.py`, `home/provenance.py`, `home.plan.Stage.job`, `home.plan.Stage.jobs`,\n"
        "`home.where`, `home.open.OpenHome.locked()`, `domain.drift`, `custseg_serving.swap`, `engine.Engine`,\n"
        "`custseg.toml`\n"
        "```\n[in code](nowhere.md) `home.where`\n```\n",
        encoding="utf-8",
    )
    assert broken_links(page) == ["nowhere.md", "no.png"]
    assert missing_files(page) == ["home/provenance.py"]
    assert unknown_names(page) == ["engine.Engine", "home.plan.Stage.jobs", "home.where"]


def test_the_index_names_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS.rglob("*.md") if f"({page.relative_to(DOCS)})" not in index]
    assert missing == ["index.md"]


def test_every_room_has_a_line_in_the_table_and_a_place_in_the_picture() -> None:
    script = runpy.run_path(str(DOCS / "make_rooms_picture.py"))
    rooms = {room for floor in script["read_floors"](script["CONTRACTS"]) for room in floor}
    table = (DOCS / "architecture.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.+?) \|", table, flags=re.MULTILINE)
    assert rooms <= {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
