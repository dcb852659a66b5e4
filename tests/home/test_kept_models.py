"""What a promoted model was made from stays, whatever is made anew and cleaned up."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.schemas import SEGMENT_ASSIGNMENTS, tables
from custseg_assets.domain.segments.model import model_from_json
from custseg_assets.home.kept_models import LINES, MADE, MADE_FROM, clean_up, disk_use, keep_models, kept_models
from custseg_assets.home.model_exports import write_export
from custseg_assets.home.open import OpenHome
from custseg_assets.stores.exported_model import Manifest
from tests.support.homes import open_quick
from tests.support.shops import QUICK, FilledShop, custseg, shop_log, write_log

KEY = "2024-04-01"


@pytest.fixture
def promoted(shop_home: Path) -> str:
    """A model that a person has promoted, trained on the last snapshot of ``shop_home``."""
    assert custseg(shop_home, "retrain", config=QUICK).status == 0
    (version,) = [
        version for version, model in kept_models(open_quick(shop_home)).items() if model.facts.trained_on == KEY
    ]
    outcome = custseg(shop_home, "promote", version, "--why", "for a test", config=QUICK)
    assert outcome.status == 0, outcome.err
    return version


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


def test_a_challenger_is_kept_with_the_model_it_followed_until_another_is_promoted(shop_home: Path) -> None:
    first = open_quick(shop_home).champions.promotions[0][1]
    assert custseg(shop_home, "retrain", config=QUICK).status == 0
    challenger = kept_models(open_quick(shop_home)).keys() - {first}
    (model,) = (kept_models(open_quick(shop_home))[one] for one in challenger)
    assert not model.is_complete
    assert model.facts.replaces == first
    assert model.champion is not None
    assert model_from_json(model.champion).model_version == first


def test_what_a_promoted_model_was_made_from_stays_when_its_snapshot_is_made_anew(
    shop_home: Path, promoted: str, tmp_path: Path
) -> None:
    before = written(shop_home, promoted, tmp_path / "before")
    take_late_lines(shop_home, datetime(2024, 4, 20))
    kept = kept_models(open_quick(shop_home))[promoted]
    features = open_quick(shop_home).tables.files("customer_features").filter(pl.col("period") == KEY)
    # The table has other files of the snapshot now than the model was made from.
    assert {file[1] for file in kept.files["customer_features"]}.isdisjoint(features["path"])
    was = disk_use(open_quick(shop_home))
    assert min(was.of_models, was.replaced) > 0
    with open_quick(shop_home).locked() as home:
        freed = clean_up(home, retention_hours=0)
    now = disk_use(open_quick(shop_home))
    assert (now.of_models, now.replaced) == (was.of_models, 0)
    assert freed == was.replaced
    assert written(shop_home, promoted, tmp_path / "after").files == before.files
    assert custseg(shop_home, "verify", config=QUICK).status == 0
    # What stays does so because it is on record: without the record the same clean-up takes it.
    (shop_home / "kept_models.json").unlink()
    with open_quick(shop_home).locked() as home:
        assert clean_up(home, retention_hours=0) > 0
    assert disk_use(open_quick(shop_home)).of_models == 0


def test_files_that_were_replaced_a_moment_ago_stay_for_who_reads_them(shop_home: Path) -> None:
    take_late_lines(shop_home, datetime(2024, 4, 20))
    replaced = disk_use(open_quick(shop_home)).replaced
    assert replaced > 0
    with open_quick(shop_home).locked() as home:
        assert clean_up(home) == 0
    assert disk_use(open_quick(shop_home)).replaced == replaced


def test_a_first_model_that_is_trained_anew_leaves_the_one_before_on_record(shop_home: Path) -> None:
    first = open_quick(shop_home).champions.promotions[0][1]
    take_late_lines(shop_home, datetime(2024, 2, 20))
    now = open_quick(shop_home).champions.promotions[0][1]
    assert now != first
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


def test_a_file_of_a_model_that_is_gone_is_said_and_mended(shop_home: Path, promoted: str) -> None:
    take_late_lines(shop_home, datetime(2024, 4, 20))
    path = kept_models(open_quick(shop_home))[promoted].files[SEGMENT_ASSIGNMENTS.name][0][1]
    (shop_home / "tables" / SEGMENT_ASSIGNMENTS.name / path).unlink()
    found = custseg(shop_home, "verify", config=QUICK)
    assert found.status == 1
    assert f"what {promoted} was made from: " in found.out
    assert custseg(shop_home, "verify", "--mend", config=QUICK).status == 0


def take_late_lines(home: Path, since: datetime) -> None:
    """Have a late file change a snapshot, so that its tables are written again."""
    late = shop_log(4).filter(pl.col("invoiced_at") >= since).head(40)
    late = late.with_columns(invoice_id=pl.format("9{}", "invoice_id"), quantity=pl.col("quantity") + 50)
    (home / "landing").mkdir(exist_ok=True)
    write_log(late, home / "landing" / "late.csv")
    ran = custseg(home, "run", "--reconfigure", config=QUICK + "[landing]\nsettle_seconds = 0\n")
    assert ran.status == 0, ran.err


def written(home: Path, model: str, folder: Path) -> Manifest:
    opened: OpenHome = open_quick(home)
    return write_export(opened, kept_models(opened)[model], folder)
