"""Settings: what wins, what is refused with the accepted ones named, and what their page says."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from custseg_assets.domain.drift.report import DriftSettings, Effects
from custseg_assets.domain.promotion.promotion import PromotionLimits
from custseg_assets.domain.promotion.retraining import RetrainRules
from custseg_assets.errors import BadInputError
from custseg_assets.settings import Settings, load_settings

REPOSITORY = Path(__file__).parents[1]


def configured(tmp_path: Path, text: str, **others: Any) -> Settings:
    path = tmp_path / "custseg.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environment={}, **others)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(BadInputError) as caught:
        configured(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path / 'custseg.toml'}: ")


def test_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environment={})
    assert settings.home == tmp_path / ".custseg"
    assert settings.snapshots.lookback == 6


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    settings = configured(tmp_path, '[source]\npath = "a.csv"\npreset = "online_retail"', source="b.csv")
    assert (settings.source.path, settings.source.preset) == ("b.csv", "online_retail")
    path = tmp_path / "custseg.toml"
    settings = load_settings(path, environment={"CUSTSEG_SOURCE": "c.csv", "CUSTSEG_HOME": str(tmp_path / "h")})
    assert (settings.source.path, settings.home) == ("c.csv", tmp_path / "h")


def test_what_counts_as_drift_is_the_reports_own_unless_it_is_configured(tmp_path: Path) -> None:
    assert configured(tmp_path, "").drift == DriftSettings()
    text = "[drift]\nfalse_alarm_rate = 0.05\nmin_history = 12\nmin_effect = { psi = 0.01 }\n"
    assert configured(tmp_path, text).drift == DriftSettings(
        false_alarm_rate=0.05, min_history=12, min_effect=Effects(0.01, 0.04, 0.015, 0.05)
    )


def test_the_rules_of_retraining_and_promotion_are_the_domains_own_unless_they_are_configured(tmp_path: Path) -> None:
    settings = configured(tmp_path, "")
    assert (settings.retrain, settings.promotion) == (RetrainRules(), PromotionLimits())
    settings = configured(tmp_path, "[retrain]\nis_on = false\n[promotion]\nmin_fit_gain = 1\n")
    assert settings.retrain == RetrainRules(is_on=False)
    assert settings.promotion == PromotionLimits(min_fit_gain=1.0)


def test_an_effect_size_that_is_left_out_is_the_default_of_its_own_table(tmp_path: Path) -> None:
    smallest, large = Effects(0.1, 0.04, 0.015, 0.05), Effects(0.1, 0.5, 0.15, 0.3)
    assert configured(tmp_path, "[drift.min_effect]\npsi = 0.1\n").drift == DriftSettings(min_effect=smallest)
    assert configured(tmp_path, "[drift.large_effect]\npsi = 0.1\n").drift == DriftSettings(large_effect=large)
    assert configured(tmp_path, "[drift.min_effect]\n[drift.large_effect]\n").drift == DriftSettings()


def test_fingerprints_hash_the_same_text_as_they_always_did(tmp_path: Path) -> None:
    def hashed(text: str) -> list[str]:
        settings = configured(tmp_path, text)
        return [json.dumps(asdict(section), sort_keys=True) for section in (settings.drift, settings.retrain)]

    assert hashed("") == [
        (
            '{"false_alarm_rate": 0.01, "large_effect": {"correlation_shift": 0.3, "psi": 0.2, "share_shift": 0.15, '
            '"wasserstein": 0.5}, "max_blind_lapse": 0.5, "max_unobserved_share": 0.3333333333333333, "min_effect": '
            '{"correlation_shift": 0.05, "psi": 0.005, "share_shift": 0.015, "wasserstein": 0.04}, "min_history": 6}'
        ),
        '{"cooldown_snapshots": 2, "is_on": true, "max_per_quarter": 2, "min_breaches": 2, "of_last": 3}',
    ]
    # A whole number in the file is a float where a float is expected.
    drift = "[drift]\nmin_history = 12\nmax_blind_lapse = 1\nmin_effect.psi = 0\nlarge_effect = { psi = 1 }\n"
    assert hashed(drift + "[retrain]\nmin_breaches = 1\nis_on = false\n") == [
        (
            '{"false_alarm_rate": 0.01, "large_effect": {"correlation_shift": 0.3, "psi": 1.0, "share_shift": 0.15, '
            '"wasserstein": 0.5}, "max_blind_lapse": 1.0, "max_unobserved_share": 0.3333333333333333, "min_effect": '
            '{"correlation_shift": 0.05, "psi": 0.0, "share_shift": 0.015, "wasserstein": 0.04}, "min_history": 12}'
        ),
        '{"cooldown_snapshots": 2, "is_on": false, "max_per_quarter": 2, "min_breaches": 1, "of_last": 3}',
    ]
    settings = configured(tmp_path, "")
    assert json.dumps(settings.model.of_training(), sort_keys=True) == (
        '{"features": ["recency_days", "frequency_orders", "monetary_net"], "k_range": [3, 8], '
        '"min_bootstrap_ari": 0.8, "min_jaccard": 0.6, "min_segment_customers": 50, "min_segment_share": 0.02, '
        '"n_bootstraps": 20, "n_initialisations": 10, "seed": 20101201}'
    )
    assert json.dumps(settings.recommendations.model_dump(mode="json"), sort_keys=True) == (
        '{"half_life_days": 10.0, "n_items": 3}'
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
def test_what_is_wrong_is_named_with_what_is_accepted(tmp_path: Path, text: str, fragments: list[str]) -> None:
    message = refusal(tmp_path, text)
    assert "\n" not in message
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[drift]\nlarge_effect.psi = -1",
            "drift.large_effect.psi = -1; expected input should be greater than or equal to 0.",
        ),
        (
            "[promotion]\nmin_fit_gain = 2",
            "promotion.min_fit_gain = 2; expected input should be less than or equal to 1.",
        ),
        (
            "[retrain]\nmin_breaches = 4",
            "retrain = {'min_breaches': 4}; expected min_breaches 4 must be at most of_last 3.",
        ),
        ("[model]\nk_range = [3]", "model.k_range.1 = [3]; expected field required."),
    ],
)
def test_what_is_wrong_is_shown_as_it_stands_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == f"{message} Correct the value."


def test_an_effect_size_that_is_left_out_is_not_shown_as_if_it_were_in_the_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[drift]\nmin_effect.psi = 0.3") == (
        "drift = {'min_effect': {'psi': 0.3}}; expected min_effect.psi 0.3 must not be above large_effect.psi 0.2. "
        "Correct the value."
    )


@pytest.mark.parametrize(
    ("section", "key", "accepted", "hint"),
    [
        (
            "drift",
            "n_draws",
            "false_alarm_rate, min_effect, large_effect, min_history, max_unobserved_share, max_blind_lapse",
            "Remove it.",
        ),
        (
            "drift.large_effect",
            "wasserstien",
            "psi, wasserstein, share_shift, correlation_shift",
            "Did you mean 'wasserstein'?",
        ),
        (
            "retrain",
            "of_lats",
            "is_on, min_breaches, of_last, cooldown_snapshots, max_per_quarter",
            "Did you mean 'of_last'?",
        ),
    ],
)
def test_an_unknown_key_of_a_section_that_the_domain_defines_is_refused(
    tmp_path: Path, section: str, key: str, accepted: str, hint: str
) -> None:
    message = refusal(tmp_path, f"[{section}]\n{key} = 1")
    assert message == f"unknown key '{section}.{key}'; expected one of {accepted}. {hint}"


def test_impossible_values_are_refused_without_a_configuration_too() -> None:
    with pytest.raises(ValueError, match=r"min_effect\.psi 0\.3 must not be above large_effect\.psi 0\.2"):
        DriftSettings(min_effect=Effects(0.3, 0, 0, 0))


def test_a_named_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        load_settings(tmp_path / "none.toml", environment={})


@pytest.fixture(scope="module")
def generator() -> dict[str, Callable[..., Any]]:
    return runpy.run_path(str(REPOSITORY / "docs" / "make_settings.py"))


def test_the_page_of_settings_is_made_from_them(generator: dict[str, Callable[..., Any]]) -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == generator["make_page"](), "run `make docs`"


def test_the_page_has_every_key_once_with_a_sentence() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    written: dict[str, list[str]] = {}
    for section in page.split("## [")[1:]:
        name, _, text = section.partition("]")
        written[name] = re.findall(r"^\| `([a-z_]+)` \| .+ \| [A-Z`].+ \|$", text, flags=re.MULTILINE)

    def keys(settings: dict[str, Any], above: str = "") -> dict[str, list[str]]:
        """Section → its keys, from the dump of all settings; tables of ``values`` are no sections."""
        values = ("columns", "filter", "refunds", "properties")
        inner = {name: value for name, value in settings.items() if isinstance(value, dict) and name not in values}
        own = {above.removesuffix("."): [name for name in settings if name not in inner]}
        return own | {key: found for name in inner for key, found in keys(inner[name], f"{above}{name}.").items()}

    expected = keys(Settings().model_dump())
    assert expected.pop("") == ["home", "ui_port", "ui_token", "alert_webhook", "source_password", "signing_key"]
    assert written == expected
    assert sum(map(len, written.values())) == 144


@pytest.mark.parametrize(
    ("part", "sources"), [("pipeline", "custseg_assets/settings.py"), ("service", "custseg_serving/**/*.py")]
)
def test_the_page_has_every_variable_once(part: str, sources: str) -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^## Environment of the {part}$(.+?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL)
    code = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob(sources))
    variables = set(re.findall(r'"((?:CUSTSEG|AIP)_[A-Z_]+)"', code))
    assert sorted(re.findall(r"^\| `(\w+)` \| [A-Z`].+ \|$", text, flags=re.MULTILINE)) == sorted(variables)


def test_a_key_without_a_description_stops_the_page(generator: dict[str, Callable[..., Any]]) -> None:
    docstring = "A thing.\n\nAttributes:\n    size: how large,\n        in cm.\n    colour:\n\nRaises:\n    ValueError."
    described = generator["parse_attributes"](docstring)
    assert described == {"size": "how large, in cm.", "colour": ""}
    assert generator["parse_attributes"]("A thing.") == {}
    generator["check_descriptions"]("[thing]", {"size": {}}, described)
    with pytest.raises(LookupError, match=r"\[thing\] does not describe colour, weight under Attributes:"):
        generator["check_descriptions"]("[thing]", {"size": {}, "colour": {}, "weight": {}}, described)


def test_the_address_of_a_webhook_is_not_read_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"^CUSTSEG_ALERT_WEBHOOK; expected must be an http or https") as refused:
        load_settings(home=tmp_path, environment={"CUSTSEG_ALERT_WEBHOOK": "ftp://hooks.example/s3cret"})
    assert "s3cret" not in str(refused.value)


def test_a_source_that_is_no_section_is_refused_with_a_source_on_the_command_line_too(tmp_path: Path) -> None:
    config = tmp_path / "custseg.toml"
    config.write_text("source = 3\n")
    with pytest.raises(BadInputError, match="source = 3; expected input should be a valid dictionary"):
        load_settings(config, source="demo", home=tmp_path, environment={})
