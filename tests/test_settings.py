"""Settings: what wins, and what is refused with the accepted ones named."""

from pathlib import Path

import pytest

from custseg_assets.domain.drift.report import DriftSettings, Effects
from custseg_assets.errors import BadInputError
from custseg_assets.settings import load_settings


def configured(tmp_path: Path, text: str, **others):
    path = tmp_path / "custseg.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environment={}, **others)


def test_everything_has_a_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environment={})
    assert settings.home == tmp_path / ".custseg"
    assert settings.snapshots.lookback == 6


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path):
    settings = configured(tmp_path, '[source]\npath = "a.csv"\npreset = "online_retail"', source="b.csv")
    assert (settings.source.path, settings.source.preset) == ("b.csv", "online_retail")
    path = tmp_path / "custseg.toml"
    settings = load_settings(path, environment={"CUSTSEG_SOURCE": "c.csv", "CUSTSEG_HOME": str(tmp_path / "h")})
    assert (settings.source.path, settings.home) == ("c.csv", tmp_path / "h")


def test_what_counts_as_drift_is_the_reports_own_unless_it_is_configured(tmp_path):
    assert configured(tmp_path, "").drift.of_report() == DriftSettings()
    text = "[drift]\nfalse_alarm_rate = 0.05\nmin_history = 12\nmin_effect = { psi = 0.01 }\n"
    assert configured(tmp_path, text).drift.of_report() == DriftSettings(
        false_alarm_rate=0.05, min_history=12, min_effect=Effects(0.01, 0.04, 0.015, 0.05)
    )


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[model]\nk_rang = [3, 4]", ["unknown key 'model.k_rang'", "k_range", "Did you mean 'k_range'?"]),
        ("speed = 1", ["unknown key 'speed'", "source, cleaning, snapshots, model"]),
        ("[model]\nk_range = [9, 4]", ["[9, 4]", "lowest"]),
        ("[model]\nfeatures = ['favourite_hour']", ["favourite_hour", "recency_days"]),
        ("[model]\nmin_jaccard = 1.5", ["model.min_jaccard = 1.5", "less than or equal to 1"]),
        ("[drift]\nfalse_alarm_rate = 0", ["drift.false_alarm_rate = 0", "greater than or equal to 0.001"]),
        ("[drift]\nmin_history = 1", ["drift.min_history = 1", "greater than or equal to 2"]),
        ("[drift.min_effect]\npsy = 0.1", ["unknown key 'drift.min_effect.psy'", "Did you mean 'psi'?"]),
        ("[drift]\nmin_effect.psi = 0.3", ["min_effect.psi 0.3 must not be above large_effect.psi 0.2"]),
        ("[snapshots]\nlookback = 0", ["snapshots.lookback = 0"]),
        ("[snapshots]\nlookback = 'six'", ["snapshots.lookback = 'six'", "valid integer", "or input should be 'all'"]),
        ("[snapshots]\ncadence = 'yearly'", ["'yearly'", "'daily', 'weekly' or 'monthly'"]),
        ("[source.columns]\nshop = 'Shop'", ["shop", "customer_id"]),
        ("[source\n", ["valid TOML"]),
        ("home = 'x'", ["CUSTSEG_HOME"]),
        ("[gcp]\nproject = 'shop'\nregion = 'here'", ["unknown key 'gcp.region'", "location"]),
        ("[gcp]\nbucket = 'shop-data'", ["need a project"]),
        ("[gcp]\nproject = 'shop'\n[gcp.training]\nimage = 'trainer:1'", ["location, bucket", "[gcp]"]),
        ("[gcp]\nproject = 'shop'\nlocation = 'Frankfurt'", ["'Frankfurt'"]),
        ("[gcp.storage]\ntables = true", ["needs a uri"]),
        ("[gcp.training]\naccelerator_type = 'NVIDIA_TESLA_T4'", ["accelerator_count"]),
    ],
)
def test_what_is_wrong_is_named_with_what_is_accepted(tmp_path, text, fragments):
    with pytest.raises(BadInputError) as caught:
        configured(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert all(fragment in message for fragment in fragments), message


def test_a_named_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="No such file"):
        load_settings(tmp_path / "none.toml", environment={})
