"""Files that are replaced whole, and the lock that another process has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from custseg_assets.stores.files import UNFINISHED, lock_file, remove_folder, replace_text, replacement_for
from custseg_assets.stores.home import Home

HAS_LOCK = """
import sys
from custseg_assets.stores.files import lock_file
file = open(sys.argv[1], "a")
print(lock_file(file), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path, *, is_durable: bool) -> None:
    path = tmp_path / "state.json"
    replace_text(path, "old", is_durable=is_durable)
    with replacement_for(path, is_durable=is_durable) as unfinished:
        unfinished.write_bytes(b"new")
        assert path.read_text() == "old"
        assert unfinished.name.startswith(".")
        assert unfinished.name.endswith(UNFINISHED)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def write_half() -> None:
        with replacement_for(path) as unfinished:
            unfinished.write_text("half")
            raise error("half way")

    with pytest.raises(error, match="half way"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_a_file_do_not_share_what_they_write(tmp_path: Path) -> None:
    path = tmp_path / "CURRENT"
    with replacement_for(path) as first, replacement_for(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_keeps_the_permissions_it_was_written_with(tmp_path: Path) -> None:
    with replacement_for(tmp_path / "keys.json") as unfinished:
        unfinished.touch(0o600)
        unfinished.write_text("secret")
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_is_removed_also_after_a_process_was_killed_at_it(tmp_path: Path) -> None:
    for name in ("tables/a", ".removing-tables/b"):
        (tmp_path / name).mkdir(parents=True)
    remove_folder(tmp_path / "tables")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_had_by_one_process_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HAS_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process, path.open("a") as file:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not lock_file(file, patience_seconds=0.0)
        process.kill()
        assert lock_file(file, patience_seconds=30.0)


def test_the_lock_of_a_home_is_held_until_its_block_ends(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.locked() as lock:
        assert (lock.is_valid, lock.path, home.is_locked()) == (True, home.root / "lock", True)
        home.alerts.touch()
    assert (lock.is_valid, home.is_locked()) == (False, False)


def test_a_release_that_was_not_finished_stays_marked(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(OSError, match="no room"), home.mark_unreleased():
        raise OSError("no room")
    assert not home.is_released()
    with home.mark_unreleased():
        assert not home.is_released()
    assert home.is_released()
