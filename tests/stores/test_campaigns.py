"""Records of campaigns: one step, kept for ever, never twice, and refused where they are not as they were written."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from custseg_assets.errors import BadInputError, DamagedHomeError
from custseg_assets.stores.campaigns import ENDED, GROUPS, RECORD, CampaignStore, Ending, require_name
from tests.support.campaigns import CAMPAIGN, GROUPS_OF_IT
from tests.support.files import REPOSITORY

_KILLED = """
import os, sys
from pathlib import Path
from tests.support.campaigns import CAMPAIGN, GROUPS_OF_IT
from custseg_assets.stores.campaigns import CampaignStore

left = int(sys.argv[2])
def count(event, arguments):
    global left
    # Every change of the disk that another process could see: files opened, renamed, folders made.
    if event in ("open", "os.rename", "os.mkdir", "os.remove") and sys.argv[1] in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(count)
CampaignStore(Path(sys.argv[1])).write(CAMPAIGN, GROUPS_OF_IT)
"""


@pytest.fixture
def store(tmp_path: Path) -> CampaignStore:
    return CampaignStore(tmp_path / "campaigns")


def test_what_is_written_is_read_again(store: CampaignStore) -> None:
    assert (store.all(), store.names()) == ((), ())
    written = store.write(CAMPAIGN, GROUPS_OF_IT)
    assert written == replace(CAMPAIGN, groups_sha256=written.groups_sha256)
    assert store.get("autumn") == store.get("AUTUMN") == store.all()[0] == written
    assert store.groups(written).equals(GROUPS_OF_IT)
    assert store.holdout_ids(written).to_list() == ["a", "c"]
    assert (written.start, written.end) == (datetime(2024, 5, 1), datetime(2024, 5, 31))


def test_a_name_is_given_once_in_large_or_small_letters(store: CampaignStore) -> None:
    store.write(CAMPAIGN, GROUPS_OF_IT)
    with pytest.raises(BadInputError, match="there is already"):
        store.write(replace(CAMPAIGN, name="AUTUMN", salt="other"), GROUPS_OF_IT.head(1))
    assert store.groups(store.get("autumn")).equals(GROUPS_OF_IT)
    with pytest.raises(BadInputError, match="'winter'; expected one of this home: Autumn"):
        store.get("winter")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a b", "-a", "ä", "a.b", "a\n", "a\0", "x" * 41, "²"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(store: CampaignStore, name: str) -> None:
    with pytest.raises(BadInputError, match="1 to 40 letters"):
        require_name(name)
    with pytest.raises(BadInputError, match="1 to 40 letters"):
        store.write(replace(CAMPAIGN, name=name), GROUPS_OF_IT)
    assert not store.folder.exists()


def test_a_kill_between_any_two_steps_neither_loses_nor_doubles_a_group(tmp_path: Path) -> None:
    seen = set()
    for step in range(1, 100):
        folder = tmp_path / f"killed-{step}"
        command = [sys.executable, "-c", _KILLED, str(folder), str(step)]
        status = subprocess.run(command, cwd=REPOSITORY, check=False, timeout=60).returncode
        killed = CampaignStore(folder)
        there = killed.all()
        seen.add((status, len(there)))
        if there:
            assert killed.groups(there[0]).equals(GROUPS_OF_IT)
            with pytest.raises(BadInputError, match="there is already"):
                killed.write(CAMPAIGN, GROUPS_OF_IT)
        else:
            killed.write(CAMPAIGN, GROUPS_OF_IT)
        assert [one.name for one in killed.all()] == ["Autumn"]
        # Nothing of the killed one is left beside it.
        if not there:
            assert [one.name for one in folder.iterdir()] == ["autumn"]
        if status == 0:
            break
    # Killed before the record was there, and after; and at last not any more.
    assert seen == {(-signal.SIGKILL, 0), (-signal.SIGKILL, 1), (0, 1)}


def test_an_ending_is_recorded_beside_it(store: CampaignStore) -> None:
    written = store.write(CAMPAIGN, GROUPS_OF_IT)
    assert store.ending(written) is None
    ending = Ending("Bob", "2024-05-10T10:00:00", "sold out", "2024-05-10")
    store.end(written, ending)
    assert store.ending(written) == ending


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        (GROUPS, b"", "it is not as it was written"),
        (GROUPS, None, "No such file"),
        (RECORD, b"{", "no JSON"),
        (RECORD, b"{}", "it lacks name"),
        (RECORD, None, "it is gone"),
        (ENDED, b"", "it is empty"),
    ],
)
def test_a_damaged_record_is_never_guessed(store: CampaignStore, file: str, content: bytes | None, why: str) -> None:
    store.write(CAMPAIGN, GROUPS_OF_IT)
    path = store.folder / "autumn" / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedHomeError, match=why):
        store.require_whole("autumn")


def test_a_record_with_other_values_is_no_record(store: CampaignStore) -> None:
    store.write(CAMPAIGN, GROUPS_OF_IT)
    path = store.folder / "autumn" / RECORD
    path.write_text(path.read_text().replace("2024-05-01", "soon", 1))
    with pytest.raises(DamagedHomeError, match="it is no record of a campaign"):
        store.all()
