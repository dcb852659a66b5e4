"""A home of another format is refused or upgraded before anything of it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from custseg_assets.definitions import build_defs
from custseg_assets.errors import BadInputError
from custseg_assets.settings import load_settings
from tests.support.homes import require_same_tables
from tests.support.shops import FilledShop, custseg

COMMANDS = (
    ("run",),
    ("status",),
    ("ui", "--port", "0"),
    ("export", "customers", "--out", "customers.csv"),
    ("retrain",),
    ("promote", "m-1", "--why", "x"),
    ("rollback", "--why", "x"),
    ("fire-drill",),
    ("replay",),
    ("verify", "--mend"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_home_of_a_later_format_is_refused_in_one_sentence(
    shop_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (shop_home / "home.json").write_text('{"format": 2, "more": true}')
    # Nothing of a later version is read before its format: here settings that this one does not know.
    (shop_home / "custseg.toml").write_text("[not_yet_invented]\n")
    before = sorted(shop_home.rglob("*"))
    outcome = custseg(shop_home, *command)
    assert outcome.status == 2, outcome.err
    (line,) = outcome.err.splitlines()
    assert line == (
        f"custseg: home {shop_home} of format 2; expected format 1 or earlier. A later version of custseg has written "
        "it: upgrade custseg, or name another home with CUSTSEG_HOME."
    )
    assert sorted(shop_home.rglob("*")) == before


def test_dagster_does_not_load_a_home_of_a_later_format(shop_home: Path) -> None:
    settings = load_settings(home=shop_home)
    (shop_home / "home.json").write_text('{"format": 2}')
    with pytest.raises(BadInputError, match="upgrade custseg"):
        build_defs(settings=settings)


def test_a_home_without_a_format_is_todays_and_gets_it_with_the_next_run(
    filled_shop: FilledShop, shop_home: Path
) -> None:
    (shop_home / "home.json").unlink()
    settings = shop_home / "custseg.toml"
    settings.write_text("\n".join(settings.read_text().splitlines()[:-1]))
    assert "stale       nothing" in custseg(shop_home, "status").out
    assert not (shop_home / "home.json").exists()
    assert "Nothing has changed" in custseg(shop_home, "run").out
    assert json.loads((shop_home / "home.json").read_text()) == {"format": 1}
    assert settings.read_text() == (filled_shop.home / "custseg.toml").read_text()


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_home_from_before_files_could_land_is_upgraded_in_words(
    filled_shop: FilledShop, shop_home: Path, command: str
) -> None:
    (shop_home / "home.json").unlink()
    current = shop_home / "deliveries" / "current.json"
    fields = json.loads(current.read_text())
    current.write_text(
        json.dumps({"deliveries": [one["id"] for one in fields["source"]], "description": fields["description"]})
    )
    outcome = custseg(shop_home, command)
    assert outcome.status == 0, outcome.err
    assert (
        f"home {shop_home} is of format 1 now; format 0 lacked a record of which files landed in it; its source stays "
        "what it was"
    ) in outcome.err
    upgraded = json.loads(current.read_text())
    assert (upgraded["source"], upgraded["landed"]) == (fields["source"], [])
    again = custseg(shop_home, "run")
    assert (again.status, "of format" in again.err) == (0, False)
    assert "stale       nothing" in custseg(shop_home, "status").out
    require_same_tables(shop_home, filled_shop.home)
