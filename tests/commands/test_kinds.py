"""A Gaussian mixture as a challenger, through a home's whole life; a deep one is in tests/deep."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import get_args

import polars as pl
import pytest

from custseg_assets import cli
from custseg_assets.domain.drift.reference import reference_from_json
from custseg_assets.domain.schemas import SEGMENT_ASSIGNMENTS, SEGMENTATION_MODEL
from custseg_assets.domain.segments.model import RFM, ModelKind
from custseg_assets.home.inputs import read_inputs
from custseg_assets.home.kept_models import keep_models
from custseg_assets.home.model_exports import refit_export, write_export
from custseg_assets.home.open import OpenHome
from custseg_assets.home.staleness import stale_partitions
from custseg_assets.settings import load_settings
from custseg_serving.settings import ServingSettings
from tests.support.server import open_app
from tests.support.shops import QUICK, custseg

KEY = "2024-04-01"


def settings_of(kind: str, more: str = "") -> str:
    return QUICK.replace("[model]", f'[model]\nkind = "{kind}"\n{more}')


def loose_settings() -> str:
    """Of a mixture, whose refits on 160 customers differ too much for the usual limits."""
    loosened = re.sub(r"min_bootstrap_ari = \S+", "min_bootstrap_ari = 0.2\nmin_jaccard = 0.2", QUICK)
    return loosened.replace("[model]", '[model]\nkind = "gaussian_mixture"')


def opened(home: Path) -> OpenHome:
    return OpenHome(load_settings(home / "custseg.toml", home=home))


def test_every_kind_can_be_compared() -> None:
    commands = next(one for one in cli._parser()._actions if isinstance(one, argparse._SubParsersAction))
    kinds = next(one for one in commands.choices["compare"]._actions if one.dest == "kinds")
    assert tuple(kinds.choices or ()) == get_args(ModelKind)


def test_another_kind_makes_nothing_stale_and_a_first_model_is_kmeans(shop_home: Path) -> None:
    for kind in get_args(ModelKind):
        changed = OpenHome(load_settings(config_of(shop_home, settings_of(kind, "deep_weeks = 9")), home=shop_home))
        assert stale_partitions(changed) == {}
    assert custseg(shop_home, "run", "--reconfigure", config=settings_of("deep")).status == 0
    assert {opened(shop_home).champions.model_at(key).kind for key, _ in opened(shop_home).champions.promotions} == {
        "kmeans"
    }


def config_of(home: Path, text: str) -> Path:
    path = home.with_name("other.toml")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def with_mixture(shop_home: Path) -> Path:
    """A home in which a person has put a mixture in force, and every table after it is made."""
    outcome = custseg(shop_home, "retrain", "--reconfigure", config=loose_settings())
    assert outcome.status == 0, outcome.err
    # Between kinds there is nothing but what segments foresee.
    assert "inertia" not in outcome.out
    version = opened(shop_home).tables.read(SEGMENTATION_MODEL, [KEY])["model_version"].item()
    if opened(shop_home).champions.champion_at(KEY) != (KEY, version):
        promoted = custseg(shop_home, "promote", version, "--by", "Ada", "--why", "to see it")
        assert promoted.status == 0, promoted.err
    return shop_home


def test_a_mixture_in_force_is_served_as_it_is_assigned_and_the_home_is_sound(with_mixture: Path) -> None:
    home = opened(with_mixture)
    assert home.champions.model_at(KEY).kind == "gaussian_mixture"
    reference = home.tables.read(SEGMENTATION_MODEL, [KEY])["drift_reference"].item()
    assert reference_from_json(reference).mixture == home.champions.model_at(KEY).mixture
    verified = custseg(with_mixture, "verify")
    assert verified.status == 0, verified.out
    features = read_inputs(home, KEY, 0, ("customer_id", *RFM))
    assigned = home.tables.read(SEGMENT_ASSIGNMENTS, [KEY]).join(features, on="customer_id", how="semi")
    with open_app(ServingSettings(with_mixture, is_open=True, poll_seconds=0.02)) as app:
        client = app.test_client()
        scored = client.post("/v1/score", json={"customers": features.to_dicts()}).get_json()["customers"]
        ids = assigned["customer_id"].to_list()
        looked_up = client.post("/v1/customers/segments", json={"customer_ids": ids}).get_json()["customers"]
    answers = pl.DataFrame(scored).sort("customer_id")
    for name in ("segment_id", "margin", "is_held", "runner_up_segment_id"):
        assert answers[name].to_list() == assigned[name].to_list() == [one[name] for one in looked_up]
    assert all(one["reasons"] for one in scored)


def test_a_mixture_that_follows_a_mixture_is_also_judged_by_fit(with_mixture: Path) -> None:
    """The next month's snapshot does not exist: the same one is looked at again, against the mixture in force."""
    outcome = custseg(with_mixture, "compare", "--kinds", "gaussian_mixture", "kmeans", "--k", "3-4")
    assert outcome.status == 0, outcome.err
    names = re.findall(r"^  (in force|gaussian_mixture \d|kmeans \d) ", outcome.out, flags=re.MULTILINE)
    assert names == ["in force", "gaussian_mixture 3", "gaussian_mixture 4", "kmeans 3", "kmeans 4"]


def test_an_exported_mixture_trained_again_is_the_same_model(with_mixture: Path, tmp_path: Path) -> None:
    home = opened(with_mixture)
    with home.locked() as locked:
        model = keep_models(locked)[home.champions.model_at(KEY).model_version]
    folder = tmp_path / model.facts.model_version
    write_export(home, model, folder)
    refitted = refit_export(folder, [].append)
    assert refitted == home.champions.model_at(KEY)


def test_a_deep_training_without_tensorflow_says_what_to_do_and_the_champion_stays(shop_home: Path) -> None:
    before = opened(shop_home).champions.promotions
    outcome = custseg(shop_home, "compare", "--kinds", "deep")
    assert outcome.status == 2
    assert "where TensorFlow is not installed" in outcome.err
    assert "make deep" in outcome.err
    # It is said before anything is trained.
    assert "k = " not in outcome.err
    assert opened(shop_home).champions.promotions == before
