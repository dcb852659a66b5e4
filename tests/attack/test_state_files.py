"""A file of state that was emptied, cut or garbled is answered with one sentence and a remedy, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from custseg_assets.errors import DamagedHomeError
from custseg_assets.stores import files
from custseg_assets.stores.files import read_state, write_state
from tests.support.shops import custseg

EMPTIED, NUL, CUT, GARBLED, OTHER = (
    b"",
    b"\0" * 64,
    b'{"format": 1, "landed": [{"id": "0',
    b"\xff\x00{garbled",
    b"[1, 2]",
)
DAMAGES = pytest.mark.parametrize(
    "content", [EMPTIED, NUL, CUT, GARBLED, OTHER], ids=["emptied", "nul", "cut", "garbled", "other"]
)


def require_one_sentence(home: Path, command: str) -> None:
    outcome = custseg(home, command)
    assert outcome.status == 1, outcome
    *_, last = outcome.err.splitlines()
    assert last.startswith("custseg: "), outcome.err
    assert "is damaged: " in last
    assert "'custseg verify --mend'" in last
    assert "Traceback" not in outcome.err


def require_mended(home: Path) -> None:
    mended = custseg(home, "verify", "--mend")
    assert mended.status == 0, mended.out
    assert custseg(home, "status").status == 0


@DAMAGES
@pytest.mark.parametrize("name", ["home.json", "shape.json", "closed.json", "stage.json", "deliveries/current.json"])
def test_run_and_status_say_which_file_is_damaged(shop_home: Path, name: str, content: bytes) -> None:
    (shop_home / name).write_bytes(content)
    for command in ("run", "status"):
        require_one_sentence(shop_home, command)
        assert (shop_home / name).read_bytes() == content
    require_mended(shop_home)


@DAMAGES
def test_a_manifest_that_is_damaged_is_said(shop_home: Path, content: bytes) -> None:
    next((shop_home / "deliveries").glob("[0-9a-f]*.json")).write_bytes(content)
    for command in ("run", "status"):
        require_one_sentence(shop_home, command)
    require_mended(shop_home)


@DAMAGES
def test_a_record_of_a_failure_stops_nothing_but_the_status(shop_home: Path, content: bytes) -> None:
    (shop_home / "failure.json").write_bytes(content)
    require_one_sentence(shop_home, "status")
    require_mended(shop_home)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_settings_that_were_cut_are_not_taken_for_all(shop_home: Path, share: float) -> None:
    settings = shop_home / "custseg.toml"
    content = settings.read_bytes()
    settings.write_bytes(content[: int(len(content) * share)])
    for command in ("run", "status"):
        require_one_sentence(shop_home, command)
    require_mended(shop_home)
    assert (shop_home / "damaged" / "custseg.toml").exists()


@DAMAGES
@pytest.mark.parametrize("name", ["bigquery.json", "keys.json"])
def test_other_records_are_verified(shop_home: Path, name: str, content: bytes) -> None:
    (shop_home / name).write_bytes(content)
    found = custseg(shop_home, "verify")
    assert (found.status, f"state         ! {name}: " in found.out) == (1, True), found.out
    mended = custseg(shop_home, "verify", "--mend")
    # Keys are digests of secrets that only their owners have: nothing makes them anew, and nothing moves them away.
    assert mended.status == (1 if name == "keys.json" else 0)
    assert (shop_home / name).exists() == (name == "keys.json")


@pytest.mark.parametrize(
    ("place", "commands"),
    [
        ("tables/clean_transactions/_delta_log/00000000000000000000.json", ["run", "status"]),
        ("tables/segment_profiles/*/*.parquet", ["status"]),
        ("deliveries/*.parquet", ["run"]),
    ],
)
@pytest.mark.parametrize("content", [EMPTIED, GARBLED], ids=["emptied", "garbled"])
def test_what_else_is_damaged_is_found_when_a_command_fails_over_it(
    shop_home: Path, place: str, commands: list[str], content: bytes
) -> None:
    max(shop_home.glob(place)).write_bytes(content)
    for command in commands:
        require_one_sentence(shop_home, command)


def test_a_garbled_record_of_runs_is_one_sentence_and_an_empty_one_is_begun(shop_home: Path) -> None:
    database = shop_home / "dagster" / "history" / "runs.db"
    for content, status in ((GARBLED, 1), (EMPTIED, 0)):
        # Only a run that has something to make opens Dagster; one that is killed as it opens it leaves an empty file.
        (shop_home / "releases" / "CURRENT").unlink(missing_ok=True)
        database.write_bytes(content)
        if status:
            require_one_sentence(shop_home, "run")
        else:
            assert custseg(shop_home, "run").status == 0


def test_an_error_of_a_sound_home_stays_what_it_is(shop_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from custseg_assets.commands import status

    def fail(*_: object, **__: object) -> str:
        raise ZeroDivisionError("a mistake in the program")

    monkeypatch.setattr(status, "status", fail)
    with pytest.raises(ZeroDivisionError):
        custseg(shop_home, "status")


def test_every_record_is_written_whole_and_made_durable_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_durable: list[Path] = []
    monkeypatch.setattr(files, "make_durable", made_durable.append)
    write_state(tmp_path / "state.json", {"a": "ü"})
    assert [path.parent for path in made_durable] == [tmp_path, tmp_path.parent]
    assert made_durable[1] == tmp_path
    assert read_state(tmp_path / "state.json", "a") == {"a": "ü"}
    with pytest.raises(DamagedHomeError, match="it lacks b"):
        read_state(tmp_path / "state.json", "a", "b")
    assert read_state(tmp_path / "none.json") is None


def test_the_release_that_is_lost_or_damaged_is_out_of_date_and_made_again(shop_home: Path) -> None:
    release = json.loads(custseg(shop_home, "status", "--json").out)["release"]
    file = shop_home / "releases" / release / "customers.lmdb"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    state = custseg(shop_home, "status").out
    assert "to be made again, because" in state
    assert "customers.lmdb is not as it was written" in state
    assert custseg(shop_home, "run").status == 0
    assert "to be made again" not in custseg(shop_home, "status").out
    assert file.read_bytes() != bytes(content)
