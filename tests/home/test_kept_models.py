"""What a promoted model was made from stays, whatever is made anew and cleaned up."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from custseg_assets.domain.schemas import tables
from custseg_assets.home.kept_models import LINES, MADE, MADE_FROM, clean_up, disk_use, keep_models, kept_models
from tests.support.homes import open_quick, take_late_lines
from tests.support.shops import QUICK, FilledShop, custseg

KEY = "2024-04-01"


def test_the_files_of_a_first_model_are_recorded_when_it_is_released(filled_shop: FilledShop) -> None:
    home = open_quick(filled_shop.home)
    (model,) = kept_models(home).values()
    assert model.is_complete
    assert model.champion is None
    assert model.facts.replaces is None
    assert (model.facts.periods, model.facts.as_of) == (("2024-01-01", "2024-02-01"), "2024-03-01 00:00:00")
    assert {name: sorted({file[0] for file in files}) for name, files in model.files.items()} == {
        LINES: ["2024-01-01", "2024-02-01"],
        **{name: ["2024-02-01"] for name in (*MADE_FROM, *MADE)},
    }
    assert (filled_shop.home / "kept_models.json").exists()


def test_a_first_model_that_is_trained_anew_leaves_the_one_before_on_record(shop_home: Path) -> None:
    first = open_quick(shop_home).champions.promotions[0][1]
    take_late_lines(shop_home, datetime(2024, 2, 20))
    now = open_quick(shop_home).champions.promotions[0][1]
    assert now != first
    replaced = disk_use(open_quick(shop_home)).replaced
    assert replaced > 0
    # Who reads what was replaced a moment ago goes on reading it.
    with open_quick(shop_home).locked() as home:
        assert clean_up(home) == 0
    assert disk_use(open_quick(shop_home)).replaced == replaced
    assert [version for version, model in kept_models(open_quick(shop_home)).items() if model.is_complete] == [
        first,
        now,
    ]


def test_a_home_of_an_earlier_version_keeps_what_its_tables_have(shop_home: Path) -> None:
    recorded = kept_models(open_quick(shop_home))
    (shop_home / "kept_models.json").unlink()
    assert kept_models(open_quick(shop_home)) == recorded
    with open_quick(shop_home).locked() as home:
        keep_models(home)
    assert (shop_home / "kept_models.json").exists()


def test_status_says_how_much_disk_a_home_takes_and_what_for(filled_shop: FilledShop) -> None:
    home = open_quick(filled_shop.home)
    use = disk_use(home)
    assert use.total == sum(
        path.lstat().st_size for path in filled_shop.home.rglob("*") if path.is_file() and not path.is_symlink()
    )
    assert use.now == sum(
        int(home.tables.files(name)["size_bytes"].sum()) for name in tables(home.settings.model.features)
    )
    said = custseg(filled_shop.home, "status", config=QUICK).out
    (line,) = [line for line in said.splitlines() if line.startswith("disk")]
    assert line.startswith(f"disk        {use.total / 1e6:,.1f} MB: tables {use.now / 1e6:,.1f}, ")


def test_a_record_that_is_no_record_is_said_and_mended(shop_home: Path) -> None:
    (shop_home / "kept_models.json").write_text('{"models": [{"facts": 3}]}')
    found = custseg(shop_home, "verify", config=QUICK)
    assert found.status == 1
    assert "kept_models.json" in found.out
    assert custseg(shop_home, "verify", "--mend", config=QUICK).status == 0
    assert [*kept_models(open_quick(shop_home))] == [open_quick(shop_home).champions.promotions[0][1]]
