"""Whose data a home holds: own data are replaced only where that was asked for, and the demo says what it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.definitions import build_defs
from custseg_assets.home.intake import Intake
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from custseg_assets.stores import releases
from custseg_serving.app import create_app
from custseg_serving.settings import ServingSettings
from tests.support.homes import forget_databases
from tests.support.live import QUICK_SENSORS, LiveHome
from tests.support.monthly_files import drop_file
from tests.support.shops import OTHERS, QUICK, FilledShop, Outcome, custseg, shop_log, use_small_demo, write_log

PATIENCE_SECONDS = 600


@pytest.fixture(autouse=True)
def _small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of a few hundred customers instead of the large one."""
    use_small_demo(monkeypatch)


def state_of(home: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(custseg(home, "status", "--json").out)
    return state


def test_the_demo_does_not_take_the_place_of_own_data_unless_it_is_asked_for(shop_home: Path) -> None:
    before = state_of(shop_home)
    outcome = custseg(shop_home, "run", "--source", "demo")
    assert outcome.status == 2
    n_rows = f"{shop_log(4).height:,}"
    held = f"source demo; home {shop_home} holds {n_rows} rows, 4 periods and 1 model of {before['source']}"
    assert held in outcome.err
    assert "--replace gives up what this one holds, with its models and history" in outcome.err
    assert state_of(shop_home) == before
    outcome = custseg(shop_home, "run", "--source", "demo", "--replace")
    assert outcome.status == 0, outcome.err
    assert f"--replace: {n_rows} rows, 4 periods and 1 model of {before['source']} are given up" in outcome.err
    after = state_of(shop_home)
    assert (after["is_demo"], after["stale"]) == (True, {})
    assert custseg(shop_home, "run").out.startswith("\nNothing has changed")


def test_another_shops_log_does_not_take_the_place_of_own_data_unless_it_is_asked_for(
    shop_home: Path, tmp_path: Path
) -> None:
    before = state_of(shop_home)
    other = write_log(shop_log(4, kinds=OTHERS), tmp_path / "other.csv")
    outcome = custseg(shop_home, "run", "--source", other)
    assert outcome.status == 2
    assert "has the same lines as the home on 0 of its 121 days" in outcome.err
    assert state_of(shop_home) == before
    assert custseg(shop_home, "run", "--source", other, "--replace").status == 0
    after = state_of(shop_home)
    assert (after["source"], after["stale"]) == (str(other), {})
    # Its model is its own, not the one of who was here before.
    assert after["champion"] != before["champion"]


def test_a_longer_export_under_another_name_continues_the_home(shop_home: Path, tmp_path: Path) -> None:
    before = state_of(shop_home)
    longer = shop_log(5)
    corrected = longer.with_columns(
        quantity=pl.when(pl.col("invoiced_at").dt.month() == 2).then(1).otherwise("quantity")
    )
    longer_log = write_log(corrected, tmp_path / "longer.csv")
    outcome = custseg(shop_home, "run", "--source", longer_log)
    assert outcome.status == 0, outcome.err
    said = f'[source] path: "{before["source"]}" → "{longer_log}": what differs is made again, the model as well where'
    assert said in outcome.err
    model = before["champion"]["model_version"]
    assert f"! model     another one than {model} before, because what it was trained on has changed" in outcome.out
    assert state_of(shop_home)["champion"] is not None
    assert state_of(shop_home)["periods"] != before["periods"]


def test_other_settings_do_not_make_a_longer_export_another_shops(shop_home: Path, tmp_path: Path) -> None:
    longer = write_log(shop_log(5), tmp_path / "longer.csv")
    run = ("run", "--reconfigure", "--source", longer)
    outcome = custseg(shop_home, *run, config=QUICK + '[source]\ntime_zone = "Europe/Berlin"\n')
    assert outcome.status == 0, outcome.err


def test_own_data_take_the_place_of_the_demo_which_says_so(filled_shop: FilledShop, home: Path) -> None:
    assert custseg(home, "run", config=QUICK).status == 0
    forget_databases()
    # Other settings than the demo's are no question: nothing of it is left.
    own = custseg(home, "run", "--source", filled_shop.source, config=QUICK + "margin_rule = 0.4\n")
    assert own.status == 0, own.err
    assert "the home held the demo; it starts afresh for your data" in own.err
    assert state_of(home)["is_demo"] is False


def test_the_demos_campaigns_are_set_aside_and_own_ones_go_on(
    filled_shop: FilledShop, home: Path, tmp_path: Path
) -> None:
    """Customers of two shops may have equal ids, and nobody is held out for what another shop does."""
    assert custseg(home, "run", config=QUICK).status == 0
    begin = ("campaign", "start", "--segment", "S1", "--holdout", "0.5", "--yes", "--out")
    started = custseg(home, *begin, tmp_path / "one.csv", "spring", config=QUICK)
    assert started.status == 0, started.err
    forget_databases()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Intake, "_start_afresh", _fail)
        assert custseg(home, "run", "--source", filled_shop.source, config=QUICK).status == 130
    # Whatever stops it, nothing of the new shop was there before the demo's holdout was gone.
    kept = home / "campaigns_of_earlier_data"
    assert ((kept / "spring" / "groups.parquet").exists(), (home / "campaigns").exists()) == (True, False)
    kept.rename(home / "campaigns")
    own = custseg(home, "run", "--source", filled_shop.source, config=QUICK)
    assert own.status == 0, own.err
    assert f"its campaigns were about other customers; their records are in {kept}" in own.err
    assert (kept / "spring" / "groups.parquet").exists()
    assert custseg(home, "campaign", "list", config=QUICK).out.startswith("no campaign has been started")
    assert state_of(home)["campaigns"] == []
    assert not (home / "tables" / "campaign_groups").exists()
    assert "left out" not in custseg(home, "export", "customers", "--out", tmp_path / "all.csv", config=QUICK).out

    started = custseg(home, *begin, tmp_path / "two.csv", "spring", config=QUICK)
    assert started.status == 0, started.err
    forget_databases()
    other = write_log(shop_log(4, kinds=OTHERS), tmp_path / "other.csv")
    replaced = custseg(home, "run", "--source", other, "--replace", config=QUICK)
    assert replaced.status == 0, replaced.err
    assert "campaign spring goes on with the customers of the new log" in replaced.err
    assert (home / "campaigns" / "spring" / "groups.parquet").exists()
    assert [one["name"] for one in state_of(home)["campaigns"]] == ["spring"]


def _fail(_: Intake) -> None:
    raise KeyboardInterrupt


def test_files_that_land_in_the_demos_home_start_it_afresh_at_the_next_run(home: Path) -> None:
    assert custseg(home, "run", config=QUICK + "[landing]\nsettle_seconds = 0\n").status == 0
    forget_databases()
    drop_file(shop_log(3), home / "landing", "log")
    # Not even what a home keeps for ever is kept of the demo.
    outcome = custseg(home, "run", config=QUICK.replace("lookback = 2", "lookback = 1"))
    assert outcome.status == 0, outcome.err
    assert "the home held the demo; it starts afresh for your data" in outcome.err
    assert (state_of(home)["source"], state_of(home)["is_demo"]) == ("landing", False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Outcome]]:
    home = tmp_path_factory.mktemp("demo") / "home"
    with pytest.MonkeyPatch.context() as patch:
        use_small_demo(patch)
        yield home, custseg(home, "run", config=QUICK)


def test_the_demo_says_that_it_is_the_demo_everywhere(demo: tuple[Path, Outcome], filled_shop: FilledShop) -> None:
    home, outcome = demo
    assert outcome.status == 0, outcome.err
    words = "! demo      a made-up shop; 'custseg run --source FILE' starts the home afresh with your own data"
    assert words in outcome.out.splitlines()
    assert words in custseg(home, "status").out.splitlines()
    definitions = build_defs(home=OpenHome(load_settings(home=home, environment={})))
    graph = definitions.resolve_asset_graph()
    for name in ("raw_transactions", "serving_release"):
        assert (
            graph.get(next(key for key in graph.get_all_asset_keys() if key.path == [name])).description or ""
        ).startswith("This is the demo: a made-up shop")
    assert definitions.metadata["data"].value.startswith("This is the demo")
    served = {}
    for one in (home, filled_shop.home):
        manifest = releases.read_manifest(one / "releases", str(releases.current(one / "releases")))
        client = create_app(ServingSettings(one, log_predictions=False, is_open=True)).test_client()
        served[one] = (
            manifest.is_demo,
            "is_demo" in manifest.to_json(),
            client.get("/v1/model").json["is_demo"],
            client.get("/dashboard/data").json["is_demo"],
        )
    assert list(served.values()) == [(True,) * 4, (False,) * 4]


def test_pages_on_an_empty_home_wait_for_data_and_take_in_what_lands(tmp_path: Path) -> None:
    home, config = tmp_path / "home", tmp_path / "custseg.toml"
    config.write_text(QUICK + QUICK_SENSORS, encoding="utf-8")
    live = LiveHome(home, config, [sys.executable, "-m", "custseg_assets.cli"])
    try:
        live.start()
        assert live.wait(live.answers, PATIENCE_SECONDS), live.log.read_text()
        assert f"the home has no data yet and waits: drop files into {home / 'landing'}" in live.log.read_text()
        assert (home / "landing").is_dir()
        assert state_of(home)["source"] is None
        drop_file(shop_log(3), home / "landing", "log")
        assert live.wait(lambda: live.due() is None, PATIENCE_SECONDS), live.log.read_text()[-3000:]
        state = state_of(home)
        assert (state["source"], state["is_demo"], state["stale"]) == ("landing", False, {})
        assert state["champion"] is not None
    finally:
        assert live.stop()
