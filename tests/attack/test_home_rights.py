"""What custseg keeps is its owner's alone, unless its folder was opened to others; what is asked for is the user's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from custseg_assets.command_line import as_private_as, with_users_rights
from custseg_serving.cli import main as serve
from tests.support.shops import FilledShop, custseg


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_can_read_anything_that_a_run_made(filled_shop: FilledShop) -> None:
    """Tables, releases, deliveries, Data Docs, and what Dagster, MLflow and the trainer wrote."""
    made = [filled_shop.home, *filled_shop.home.rglob("*")]
    assert len(made) > 100
    assert [path for path in made if rights(path) & 0o077] == []


@pytest.mark.parametrize(("home", "file"), [(0o700, 0o600), (0o750, 0o640), (0o755, 0o644), (0o2770, 0o640)])
def test_a_home_that_was_opened_to_others_stays_so(tmp_path: Path, home: int, file: int) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(home)
    with as_private_as(folder):
        (folder / "made").touch()
        with with_users_rights():
            (tmp_path / "export").touch()
    assert rights(folder / "made") == file
    assert rights(tmp_path / "export") == 0o644
    assert os.umask(0o022) == 0o022


def test_an_export_has_the_rights_that_the_users_other_files_have(filled_shop: FilledShop, tmp_path: Path) -> None:
    assert custseg(filled_shop.home, "export", "customers", "--out", tmp_path / "list.csv").status == 0
    draft = custseg(filled_shop.home, "inspect", filled_shop.source, "--out", tmp_path / "draft.toml")
    assert draft.status == 0, draft.err
    assert [rights(tmp_path / name) for name in ("list.csv", "draft.toml")] == [0o644, 0o644]
    assert os.umask(0o022) == 0o022


def test_verify_says_who_else_can_read_a_home(shop_home: Path) -> None:
    assert "rights        sound: for its owner alone" in custseg(shop_home, "verify").out
    shop_home.chmod(0o755)
    found = custseg(shop_home, "verify")
    assert found.status == 0
    assert f"for everybody on this machine as well; 'chmod -R go= {shop_home}'" in found.out


def test_the_service_makes_a_home_that_is_its_owners(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    assert serve(["--home", str(home), "keys", "create", "shop"]) == 0
    capsys.readouterr()
    assert [path for path in (home, *home.rglob("*")) if rights(path) & 0o077] == []
