"""A home keeps its settings: every command uses them, others have to be wanted, and what they make stale says so."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from custseg_assets.definitions import build_defs, defs
from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.errors import BadInputError
from custseg_assets.home.open import OpenHome
from custseg_assets.home.own_settings import compare_settings, keep_settings, own_settings
from custseg_assets.home.plan import TABLES_OF_JOB
from custseg_assets.settings import load_settings
from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from tests.support.files import REPOSITORY
from tests.support.shops import QUICK, FilledShop, custseg, shop_log, write_log

OTHER = QUICK + "margin_rule = 0.4\n"
RECONFIGURED = "[model] margin_rule: 0.6 → 0.4"


class Terminal(io.StringIO):
    """Standard input of somebody who can be asked."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_what_was_configured_is_kept_in_the_home_and_nothing_else(filled_shop: FilledShop) -> None:
    kept = (filled_shop.home / "custseg.toml").read_text(encoding="utf-8")
    written = [line for line in kept.splitlines() if line and not line.startswith("#")]
    expected = [line for line in QUICK.splitlines() if line]
    assert written[:2] == ["[source]", f'path = "{filled_shop.source}"']
    assert sorted(written[2:]) == sorted(expected)


def test_every_kind_of_setting_is_kept_and_read_back_the_same(tmp_path: Path) -> None:
    config = tmp_path / "all.toml"
    config.write_text(
        """
        [source]
        path = "orders.csv"
        no_customer = ["a \\"guest\\""]
        accepted_doubts = []
        keep_stray_days = false
        currency = "EUR"
        rates = "rates.csv"
        [source.columns]
        customer_id = { first_of = ["Customer", "E-mail"] }
        invoiced_at = ["Date", "Time"]
        line_amount = "Net sales"
        [source.filter]
        "Financial Status" = ["paid"]
        test = { exclude = [true] }
        [source.refunds]
        type = "refund"
        [cleaning]
        service_code_max_digits = 0
        [snapshots]
        lookback = "all"
        [drift]
        min_effect = { psi = 0.02 }
        [retrain]
        is_on = false
        [gcp]
        project = "shop"
        [gcp.bigquery]
        since = 2024-01-01
        """
    )
    given = load_settings(config, home=tmp_path / "home", environment={"CUSTSEG_ALERT_WEBHOOK": "https://h.example/s3"})
    Home(given.home).make()
    keep_settings(given, "/data/orders.csv")
    kept = own_settings(Home(given.home))
    assert kept is not None
    assert compare_settings(given, kept) == ()
    text = (tmp_path / "home" / "custseg.toml").read_text()
    assert kept.source.path == "/data/orders.csv"
    assert f'rates = "{Path.cwd() / "rates.csv"}"' in text
    assert "keep_stray_days = false" in text, "what was configured stays, also where it is the default today"
    assert "s3" not in text


def test_without_a_configuration_every_command_uses_the_homes_own(
    shop_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Nothing has changed" in custseg(shop_home, "run").out
    state = json.loads(custseg(shop_home, "status", "--json").out)
    assert (state["stale"], state["settings"]["given_instead"]) == ({}, [])
    monkeypatch.setenv("CUSTSEG_HOME", str(shop_home))
    assert load_settings().model.k_range == (3, 4)


def test_other_settings_are_shown_and_refused_where_nobody_can_be_asked(shop_home: Path) -> None:
    released = releases.current(shop_home / "releases")
    for command in (["run"], ["retrain"], ["promote", "m", "--why", "x"], ["rollback", "--why", "x"], ["ui"]):
        outcome = custseg(shop_home, *command, config=OTHER)
        assert outcome.status == 2, command
        *shown, last = outcome.err.splitlines()
        assert f"  {RECONFIGURED}" in shown
        assert (
            "  with them out of date: segment_assignments (3), segment_profiles (3), segment_migrations (3), "
            "product_recommendations (3), segment_products (3), value_model (3), customer_value (3)"
        ) in shown
        assert "from now on, or leave it out: name another with --config, or none" in last
        assert "nothing was changed." in last
    assert releases.current(shop_home / "releases") == released
    assert custseg(shop_home, "run").out.startswith("\nNothing has changed")


def test_with_reconfigure_they_are_the_homes_from_then_on(shop_home: Path) -> None:
    assert custseg(shop_home, "run", "--reconfigure", config=OTHER).status == 0
    assert "margin_rule = 0.4" in (shop_home / "custseg.toml").read_text()
    assert custseg(shop_home, "run").out.startswith("\nNothing has changed")
    assert custseg(shop_home, "run", config=OTHER).out.startswith("\nNothing has changed")
    assert custseg(shop_home, "run", config=QUICK).status == 2
    assert not Home(shop_home).settings_before.exists()


PAIRED = QUICK.replace("k_range = [3, 4]", "k_range = [2, 2]")
RETRAINED = "[model] k_range: [3, 4] → [2, 2]"


def test_settings_of_a_training_say_that_the_model_in_force_would_be_another(shop_home: Path) -> None:
    model = json.loads(custseg(shop_home, "status", "--json").out)["champion"]
    outcome = custseg(shop_home, "run", config=PAIRED)
    assert outcome.status == 2
    said = " ".join(outcome.err.split())
    for name in ("model_candidates (3)", "segmentation_model (3)", "promotion_decision (3)"):
        assert name in said
    assert "segment_assignments (3), segment_profiles (3)" in said, "everything after it as well"
    assert (
        f"the model in force, {model['model_version']}, would be trained anew on {model['trained_on']}, so segments "
        "and their names may change, and a snapshot for which no model is found loses them; "
        "to keep it, leave [model] k_range as it is"
    ) in said
    announced = {name for name in TRAINED_AND_AFTER if f"{name} (" in said}
    before = fingerprints_of(shop_home)
    done = custseg(shop_home, "run", "--reconfigure", config=PAIRED)
    assert done.status == 0, done.err
    after = fingerprints_of(shop_home)
    assert {name for name in TRAINED_AND_AFTER if before[name] != after[name]} <= announced
    champion = json.loads(custseg(shop_home, "status", "--json").out)["champion"]
    assert champion["model_version"] != model["model_version"]
    assert (
        f"! model     another one than {model['model_version']} before, because {RETRAINED} has changed"
    ) in done.out.splitlines()
    again = custseg(shop_home, "run")
    assert again.out.startswith("\nNothing has changed")
    assert "! model" not in again.out


TRAINED_AND_AFTER = [*TABLES_OF_JOB["snapshot"]]


def fingerprints_of(home: Path) -> dict[str, list[int | None]]:
    opened = OpenHome(load_settings(home=home, environment={}))
    keys = opened.calendar.snapshot_keys
    return {name: [opened.tables.fingerprint_of(name, key) for key in keys] for name in TRAINED_AND_AFTER}


def test_a_decision_against_a_model_that_is_no_more_says_so(shop_home: Path) -> None:
    assert custseg(shop_home, "retrain").status == 0
    model = json.loads(custseg(shop_home, "status", "--json").out)["champion"]["model_version"]
    assert "! decision" not in custseg(shop_home, "status").out
    assert custseg(shop_home, "run", "--reconfigure", config=PAIRED).status == 0
    state = json.loads(custseg(shop_home, "status", "--json").out)
    now = state["champion"]["model_version"]
    assert state["decided_against_others"] == [
        {"period": "2024-04-01", "decided_against": model, "in_force_before": now}
    ]
    words = f"! decision  of 2024-04-01 was made against {model}, and stays"
    assert f"{words}\n  now {now} is in force there; 'custseg retrain'" in custseg(shop_home, "status").out
    assert state["stale"] == {}
    assert custseg(shop_home, "retrain").status == 0
    assert "! decision" not in custseg(shop_home, "status").out


def test_a_model_that_stays_is_not_announced_as_another(shop_home: Path) -> None:
    said = custseg(shop_home, "run", config=OTHER).err
    assert "trained anew" not in said
    assert "! model" not in custseg(shop_home, "run", "--reconfigure", config=OTHER).out


def test_another_source_in_the_configuration_is_named(filled_shop: FilledShop, shop_home: Path, tmp_path: Path) -> None:
    longer = write_log(shop_log(5), tmp_path / "longer.csv")
    said = custseg(shop_home, "run", config=f'[source]\npath = "{longer}"\n{OTHER}').err
    assert f'  [source] path: "{filled_shop.source}" → "{longer}"' in said.splitlines()
    assert "the model as well where what it was trained on differs" in said


def test_a_file_in_the_folder_that_is_not_the_homes_is_named_with_the_ways_out(
    shop_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "custseg.toml").write_text(OTHER, encoding="utf-8")
    last = custseg(shop_home, "run").err.splitlines()[-1]
    file = tmp_path / "custseg.toml"
    assert f"has other settings than {file}: {RECONFIGURED}" in last
    assert "Give --reconfigure to take it from now on, or leave it out: move it away, or name another" in last
    assert custseg(shop_home, "run", "--config", shop_home / "custseg.toml").status == 0


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_somebody_at_a_terminal_is_asked(
    answer: str, status: int, shop_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    outcome = custseg(shop_home, "run", config=OTHER)
    assert outcome.status == status
    assert "Take these settings from now on? [y/N]" in outcome.err


def test_the_same_settings_in_other_words_are_no_difference(shop_home: Path) -> None:
    same = QUICK.replace("k_range = [3, 4]", 'seed = 20101201\nfeatures = ["recency_days", "frequency_orders", '
                         '"monetary_net"]\n"k_range" = [\n 3,\n 4]')  # fmt: skip
    outcome = custseg(shop_home, "run", config=f"[training]\ntimeout_minutes = 60\n{same}")
    assert (outcome.status, outcome.err) == (0, "")


def test_a_home_of_an_earlier_version_keeps_what_its_next_run_is_given(shop_home: Path) -> None:
    (shop_home / "custseg.toml").unlink()
    assert custseg(shop_home, "run", config=OTHER).status == 0
    assert "margin_rule = 0.4" in (shop_home / "custseg.toml").read_text()


def test_who_only_looks_may_give_other_settings_and_is_told(shop_home: Path, tmp_path: Path) -> None:
    for command in (["status"], ["export", "segment_profiles", "--out", tmp_path / "out.csv"]):
        outcome = custseg(shop_home, *command, config=OTHER)
        assert outcome.status == 0
        assert "which differs from the home's own in [model] margin_rule; 'custseg run --reconfigure' takes it" in (
            outcome.err
        )
    state = json.loads(custseg(shop_home, "status", "--json", config=OTHER).out)
    assert state["settings"]["given_instead"] == [RECONFIGURED]
    assert "margin_rule" not in (shop_home / "custseg.toml").read_text()


def test_the_status_says_which_setting_made_what_stale(shop_home: Path) -> None:
    taken = load_settings(shop_home / "custseg.toml", home=shop_home, environment={})
    model = taken.model.model_copy(update={"margin_rule": 0.4})
    keep_settings(taken.model_copy(update={"model": model}), str(taken.source.path))
    state = json.loads(custseg(shop_home, "status", "--json").out)
    assert next(iter(state["stale"])) == "segment_assignments"
    assert state["stale_because"] == [f"a setting has changed, {RECONFIGURED}"]
    assert f"  because   a setting has changed, {RECONFIGURED}" in custseg(shop_home, "status").out
    assert custseg(shop_home, "run").status == 0
    assert not Home(shop_home).settings_before.exists()


def test_the_status_says_that_other_data_or_another_version_made_something_stale(
    shop_home: Path, tmp_path: Path
) -> None:
    longer = write_log(shop_log(5), tmp_path / "longer.csv")
    assert custseg(shop_home, "run", "--source", longer, "--through", "2024-04-30").status == 0
    state = json.loads(custseg(shop_home, "status", "--json").out)
    assert state["stale_because"][0] == "raw_transactions of 2024-05-01 is not made yet, or not to the end"
    assert custseg(shop_home, "run").status == 0
    made_with = CUSTOMER_FEATURES.code_version
    object.__setattr__(CUSTOMER_FEATURES, "code_version", str(int(made_with) + 1))
    try:
        state = json.loads(custseg(shop_home, "status", "--json").out)
    finally:
        object.__setattr__(CUSTOMER_FEATURES, "code_version", made_with)
    words = "this version of custseg makes customer_features in another way than the one that made it"
    assert state["stale_because"] == [words]


def test_a_relative_source_is_the_same_from_every_folder(
    filled_shop: FilledShop, shop_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(filled_shop.source.parent)
    assert custseg(shop_home, "run", "--source", filled_shop.source.name).status == 0
    monkeypatch.chdir(tmp_path)
    outcome = custseg(shop_home, "run")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"source      {filled_shop.source}," in outcome.out


def test_what_dagster_loads_has_the_homes_own_settings_and_refuses_others(
    filled_shop: FilledShop, shop_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUSTSEG_HOME", str(shop_home))
    monkeypatch.chdir(tmp_path)
    # As a stranger's file in the folder from which Dagster was started.
    (tmp_path / "custseg.toml").write_text(OTHER, encoding="utf-8")
    with pytest.raises(BadInputError, match=r"than custseg.toml: \[model\] margin_rule: 0.6 → 0.4.*--reconfigure"):
        defs()
    (tmp_path / "custseg.toml").write_text(QUICK, encoding="utf-8")
    assert build_defs(home=OpenHome(load_settings())).metadata["data"].value == str(filled_shop.source)


def test_the_commands_that_are_printed_work_from_any_folder(filled_shop: FilledShop, tmp_path: Path) -> None:
    (folder := tmp_path / "a café's own").mkdir()
    shutil.copy(filled_shop.source, folder / "log.csv")
    (folder / "custseg.toml").write_text(QUICK, encoding="utf-8")
    python = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = [sys.executable, "-m", "custseg_assets.cli", "run", "--source", "log.csv"]
    done = subprocess.run(run, env=python, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [serve, export] = [line for line in done.stdout.splitlines() if " export " in line or " demo" in line]
    again = export.partition(" export ")[0] + " run"
    for command in (f"{serve} --help", export, again):
        shell = ["/bin/sh", "-c", command]
        elsewhere = subprocess.run(shell, env=python, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert elsewhere.returncode == 0, elsewhere.stderr
    assert (tmp_path / "customers.csv").exists()
    assert "Nothing has changed" in elsewhere.stdout
