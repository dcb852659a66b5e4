"""``make audit`` tells a known vulnerability, none, and advisories that could not be reached apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.files import REPOSITORY

SOUND: dict[str, Any] = {"name": "flask", "version": "3.1.3", "vulns": []}
VULNERABLE = {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
SKIPPED = {"name": "new", "skip_reason": "Dependency not found on PyPI and could not be audited: new (2.0)"}


def audit(folder: Path, stdout: str, stderr: str = "") -> tuple[int, str]:
    """Exit code and output of the audit, with a ``pip_audit`` that says this."""
    (folder / "pip_audit.py").write_text(
        f"import sys\nsys.stdout.write({stdout!r})\nsys.stderr.write({stderr!r})\nsys.exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".ci" / "audit_locks.py", "requirements/serving.txt"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([SOUND], 0, "No known vulnerability in 1 packages."),
        ([SOUND, VULNERABLE], 1, "old 1.0: PYSEC-1, fixed in 1.1"),
        ([SOUND, SKIPPED], 0, "NOT AUDITED: advisories could not be reached for 1 of 2 packages."),
        ([VULNERABLE, SKIPPED], 1, "PYSEC-1"),
    ],
)
def test_what_was_found_is_told(tmp_path: Path, packages: list[Any], code: int, words: str) -> None:
    found, output = audit(tmp_path, json.dumps({"dependencies": packages, "fixes": []}))
    assert found == code
    assert words in output
    assert ("No known" in output) == (packages == [SOUND])


def test_advisories_that_cannot_be_reached_are_no_finding(tmp_path: Path) -> None:
    said = (
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed\n"
        "ERROR:pip_audit._cli:Tip: your network may be blocking this service.\n"
    )
    found, output = audit(tmp_path, "", said)
    assert found == 0
    assert output.startswith("NOT AUDITED: advisories could not be reached: ")
    assert "No known" not in output


def test_another_failure_is_one(tmp_path: Path) -> None:
    found, output = audit(tmp_path, "", "ERROR:pip_audit._cli:requirements/serving.txt: no such file\n")
    assert found == 1
    assert "pip-audit failed" in output
