"""Every command on the pages exists, and every one in a block of code is run here, or says where else it is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from custseg_assets.domain.schemas import SEGMENT_PROFILES
from custseg_assets.domain.segments.naming import VOCABULARY
from custseg_serving.keys import KeyFile
from tests.support.doc_commands import SHELL, Block, blocks_of, flaws_of, named_in_prose, words_of
from tests.support.files import REPOSITORY
from tests.support.homes import open_quick
from tests.support.pages import PRESENT
from tests.support.releases import make_release
from tests.support.server import serving
from tests.support.shops import QUICK, FilledShop, custseg

BLOCKS = [block for page in PRESENT for block in blocks_of(page)]
COMMANDS = sorted({command for block in BLOCKS for command in block.commands()})
ADDRESS = "http://127.0.0.1:8080"
ASKS_THE_SERVICE = [block for block in BLOCKS if ADDRESS in block.text and block.language in (*SHELL[1:], "python")]

ELSEWHERE = {
    r"make (run|lint|site|sbom|audit|test|test-deep|test-gcp|test-spark)( .*)?": ".ci/run calls it",
    r"make deep": "make test-deep makes the same environment",
    r"make (ui|serve)": "runs until it is stopped; tests/commands/test_ui.py and tests/serving start what it calls",
    r"make (format|docs|pictures)( .*)?": "changes the repository; tests hold what it makes",
    r"make bench( .*)?": "takes minutes; tests/test_bench.py runs its parts",
    r"custseg (retrain|promote|rollback)( .*)?": "tests/commands/test_decide.py",
    r"custseg compare( .*)?": "tests/commands/test_compare.py",
    r"(CUSTSEG_HOME=\S+ )?custseg dvc .*": "tests/commands/test_dvc.py",
    r"custseg campaign .*": "tests/commands/test_campaign.py",
    r"custseg verify( .*)?": "tests/attack/test_home_verify.py",
    r"custseg vertex .*": "needs Google Cloud; tests/gcp/test_vertex_models.py runs it against a fake",
    r"(CUSTSEG_HOME=\S+ )?\S*custseg-serving keys .*": "tests/serving/test_access.py",
    r'curl -H "X-API-Key: …" "\$\(terraform .*': "needs Google Cloud",
}
"""Commands that are not run here, and the reason."""


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    commands = [*(command for block in blocks_of(page) for command in block.commands()), *named_in_prose(page)]
    assert {command: flaws for command in commands if (flaws := flaws_of(command))} == {}


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`custseg run [--source PATH|demo] [--sorce X]`, `custseg exprot`, `make tset`, `custseg.toml`, `custseg ui`\n"
        "```\ncustseg-serving keys --sope x   # a comment\nKEY=1 .venv/bin/custseg export x \\\n  --al --out x.csv\n"
        "a table of output\npython -m benchmarks.nothing\n```\n```python\nmake nothing\n```\n",
        encoding="utf-8",
    )
    commands = [*(command for block in blocks_of(page) for command in block.commands()), *named_in_prose(page)]
    assert [flaw for command in commands for flaw in flaws_of(command)] == [
        "no option --sope of custseg-serving keys",
        "no option --al of custseg export",
        "no module benchmarks.nothing",
        "no option --sorce of custseg run",
        "no command exprot of custseg",
        "no target tset",
    ]


def test_every_command_that_is_not_run_here_has_a_reason_and_every_reason_a_command() -> None:
    patterns = {pattern: [one for one in COMMANDS if re.fullmatch(pattern, one)] for pattern in ELSEWHERE}
    assert [pattern for pattern, commands in patterns.items() if not commands] == []
    assert [command for command in COMMANDS if not _is_run_here(command) and not _reason(command)] == []


def _reason(command: str) -> str | None:
    return next((reason for pattern, reason in ELSEWHERE.items() if re.fullmatch(pattern, command)), None)


def _is_run_here(command: str) -> bool:
    return (
        command.startswith(("custseg inspect", "custseg run", "custseg status", "custseg export")) or ADDRESS in command
    )


@pytest.fixture(scope="module")
def shop(filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shop's log, its configuration, and the home that was made of them."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(filled_shop.source, folder / "orders.csv")
    shutil.copytree(filled_shop.home, folder / ".custseg")
    (folder / "shop.toml").write_text(f'[source]\npath = "orders.csv"\n{QUICK}', encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.startswith("custseg ") and _is_run_here(command)]
)
def test_a_command_in_a_block_does_what_it_says(command: str, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of segments and keys of partitions are the small shop's own."""
    monkeypatch.chdir(shop)
    profiles = open_quick(shop / ".custseg").tables.read(SEGMENT_PROFILES)
    largest = profiles.sort("n_customers")["segment_name"][-1]
    own = {name: largest for name, *_ in VOCABULARY}
    words = [own.get(word, re.sub(r"^20\d\d-\d\d-\d\d$", "2024-04-01", word)) for word in words_of(command)]
    # What open_quick has left there is no file that the command may replace.
    (shop / "custseg.toml").unlink(missing_ok=True)
    outcome = custseg(shop / ".custseg", *words[1:], config=shop / "shop.toml")
    assert outcome.status == 0, outcome.err
    if words[1] == "export":
        assert Path(words[words.index("--out") + 1]).stat().st_size > 0
    else:
        assert outcome.out


@pytest.mark.parametrize("block", ASKS_THE_SERVICE, ids=lambda block: f"{block.page.name}-{block.language}")
def test_what_asks_the_service_is_answered(block: Block, tmp_path: Path) -> None:
    if block.language != "python" and shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    make_release(tmp_path / "releases")
    key = KeyFile(tmp_path / "keys.json").create("docs", ["lookup", "score"], 1000)
    with serving(tmp_path) as server:
        text = block.text.replace(ADDRESS, f"http://127.0.0.1:{server.port}")
        text = re.sub(r"\bcurl\b", "curl --fail-with-body", text)
        command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*command, text], env={**os.environ, "KEY": key}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
