"""A deep challenger from its training to the service, in a shop in which only the order of purchases matters."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.promotion.comparison import Comparison
from custseg_assets.domain.schemas import PROMOTION_DECISION, SEGMENT_ASSIGNMENTS
from custseg_assets.domain.segments.clustering import assign_customers
from custseg_assets.domain.segments.embedding import week_columns
from custseg_assets.domain.segments.explain import BY_WEEK
from custseg_assets.domain.segments.model import RFM
from custseg_assets.domain.segments.training_tables import orders_of, scale_snapshot
from custseg_assets.home.inputs import read_inputs
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from custseg_assets.training.steps import sweep_snapshot, train_snapshot
from custseg_serving.settings import ServingSettings
from tests.support.deep_environment import deep_python
from tests.support.rhythm_shop import rhythm_log, rhythm_settings
from tests.support.server import open_app
from tests.support.shops import QUICK, Outcome, custseg, write_log

pytestmark = pytest.mark.deep

KEY, N_WEEKS = "2024-06-01", 8
ANY_LIMITS = dict.fromkeys(("min_bootstrap_ari", "min_jaccard", "min_segment_share", "min_segment_customers"), 0)
"""A refit that misses one would be no challenger, and move nobody."""


@dataclass(frozen=True)
class Shop:
    """The rhythm shop, with K-means at first and then retrained as a deep model.

    Attributes:
        home: its folder.
        retrained: how the retrain ended.
    """

    home: Path
    retrained: Outcome

    def opened(self) -> OpenHome:
        return OpenHome(load_settings(self.home / "custseg.toml", home=self.home))


def copy_home(home: Path, folder: Path) -> Path:
    """A copy whose MLflow writes into it: paths of artifacts are as they were when its database was made."""
    copied = shutil.copytree(home, folder / "home")
    with contextlib.closing(sqlite3.connect(copied / "mlflow" / "mlflow.db")) as database, database:
        moved = "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)"
        database.execute(moved, (str(home), str(copied)))
    return copied


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home as K-means leaves it."""
    folder = tmp_path_factory.mktemp("rhythm")
    source = write_log(rhythm_log(), folder / "log.csv")
    outcome = custseg(folder / "home", "run", "--source", source, config=rhythm_settings("kmeans"))
    assert outcome.status == 0, outcome.err
    return folder / "home"


@pytest.fixture(scope="module")
def shop(before: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    home = copy_home(before, tmp_path_factory.mktemp("deep"))
    settings = rhythm_settings("deep", deep_python())
    return Shop(home, custseg(home, "retrain", "--reconfigure", config=settings))


def comparison_of(shop: Shop) -> dict[str, object]:
    decision = shop.opened().tables.read(PROMOTION_DECISION, [KEY]).row(0, named=True)
    found: dict[str, object] = json.loads(decision["comparison"])
    assert found.keys() >= set(Comparison.__dataclass_fields__)
    return found


def test_where_only_the_order_of_purchases_tells_people_apart_it_is_promoted(shop: Shop) -> None:
    assert shop.retrained.status == 0, shop.retrained.err
    assert "PROMOTE" in shop.retrained.out
    assert "it foresees more" in shop.retrained.out
    gains = {one["outcome"]: one["difference"] for one in comparison_of(shop)["validity"]}  # type: ignore[attr-defined]
    assert gains["return"] >= 0.05
    assert shop.opened().champions.model_at(KEY).kind == "deep"
    # Distances in an embedding say nothing beside those in the features.
    assert comparison_of(shop)["reach"] is None


def test_where_the_order_tells_nothing_it_is_rejected_and_says_why(shop_home: Path) -> None:
    """Of customers who order at random, every network finds others."""
    config = QUICK.replace("min_bootstrap_ari = 0.7", "min_bootstrap_ari = 0.8")
    config = config.replace("[model]", '[model]\nkind = "deep"\ndeep_weeks = 8\ndeep_epochs = 20\ndeep_refits = 3')
    config += f'[training]\ndeep_python = "{deep_python()}"'
    outcome = custseg(shop_home, "retrain", "--reconfigure", config=config)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("REJECT")
    assert "k = 4: mean bootstrap ARI 0." in outcome.out


def test_the_first_model_stays_what_it_was(before: Path, shop: Shop) -> None:
    was = OpenHome(load_settings(before / "custseg.toml", home=before))
    first = shop.opened().champions.promotions[0]
    assert first == was.champions.promotions[0]


def test_a_home_with_it_is_sound_and_up_to_date(shop: Shop) -> None:
    verified = custseg(shop.home, "verify")
    assert verified.status == 0, verified.out
    again = custseg(shop.home, "run")
    assert again.status == 0, again.err
    assert "segment_assignments" not in again.err


@pytest.fixture
def client(shop: Shop) -> Iterator[object]:
    with open_app(ServingSettings(shop.home, is_open=True, poll_seconds=0.02)) as app:
        yield app.test_client()


def score_rows(home: OpenHome) -> list[dict[str, object]]:
    """What an application that counts by itself would send for each customer in the window."""
    inputs = read_inputs(home, KEY, N_WEEKS, ("customer_id", *RFM))
    return [
        {name: row[name] for name in ("customer_id", *RFM)} | {BY_WEEK: [row[week] for week in week_columns(N_WEEKS)]}
        for row in inputs.iter_rows(named=True)
    ]


def test_pipeline_lookup_and_score_agree_for_every_customer(shop: Shop, client: object) -> None:
    home = shop.opened()
    assigned = {row["customer_id"]: row for row in home.tables.read(SEGMENT_ASSIGNMENTS, [KEY]).iter_rows(named=True)}
    rows = score_rows(home)
    scored = client.post("/v1/score", json={"customers": rows}).get_json()["customers"]  # type: ignore[attr-defined]
    ids = [row["customer_id"] for row in rows]
    asked = client.post("/v1/customers/segments", json={"customer_ids": ids})  # type: ignore[attr-defined]
    looked_up = asked.get_json()["customers"]
    assert len(ids) > 500
    for score, lookup in zip(scored, looked_up, strict=True):
        expected = assigned[score["customer_id"]]
        for name in ("segment_id", "segment_name", "margin", "is_held", "runner_up_segment_id"):
            assert score[name] == lookup[name] == expected[name]
        assert score["reasons"] == lookup["reasons"]
    reasons = {reason["feature"] for one in scored for reason in one["reasons"]}
    assert BY_WEEK in reasons


def test_a_score_without_its_weeks_is_refused_with_how_many_there_are(shop: Shop, client: object) -> None:
    row = score_rows(shop.opened())[0]
    for wrong, words in (({BY_WEEK: [1.0] * 7}, "has 7 numbers instead of 8"), ({BY_WEEK: None}, "must not be null")):
        answer = client.post("/v1/score", json={"customers": [row | wrong]})  # type: ignore[attr-defined]
        assert answer.status_code == 422
        assert words in answer.get_json()["error"]["message"]
    del row[BY_WEEK]
    answer = client.post("/v1/score", json={"customers": [row]})  # type: ignore[attr-defined]
    assert "orders_by_week is missing" in answer.get_json()["error"]["message"]


def test_refits_on_resamples_move_hardly_anybody(shop: Shop) -> None:
    """Customers whose segment changes though nothing did: its embedding goes on, as the scale of K-means does."""
    home = shop.opened()
    champion, settings = home.champions.model_at(KEY), home.settings.model
    features = read_inputs(home, KEY, N_WEEKS)
    before = assign_customers(features, features["customer_id"], champion)
    rng, moved = np.random.default_rng(0), []
    for _ in range(5):
        sample = features[rng.integers(features.height, size=features.height)]
        sample = sample.with_columns(customer_id=pl.int_range(pl.len()).cast(pl.String).str.zfill(6))
        scaled, _ = scale_snapshot(sample, champion.features, champion.reference)
        only_k = settings.model_copy(update=ANY_LIMITS | {"k_range": (champion.k, champion.k), "n_bootstraps": 2})
        orders = orders_of(sample, champion.features, N_WEEKS)
        candidates, _ = sweep_snapshot(scaled, KEY, only_k, lambda _: None, champion, orders)
        refit = train_snapshot(sample, candidates, KEY, only_k, champion)
        assert refit is not None
        after = assign_customers(features, features["customer_id"], refit, before, champion, settings.margin_rule)
        moved.append(float((after["segment_id"] != before["segment_id"]).mean()))
    assert np.mean(moved) <= 0.01, moved


def test_all_kinds_stand_side_by_side(before: Path, tmp_path: Path) -> None:
    home = copy_home(before, tmp_path)
    settings = rhythm_settings("kmeans", deep_python())
    asked = ("compare", "--kinds", "kmeans", "gaussian_mixture", "deep", "--k", "4-4")
    outcome = custseg(home, *asked, config=settings)
    assert outcome.status == 0, outcome.err
    lines = re.findall(r"^  (kmeans|gaussian_mixture|deep) 4 +(\d.*)$", outcome.out, flags=re.MULTILINE)
    returns = {kind: float(figures.split()[5]) for kind, figures in lines}
    assert returns.keys() == {"kmeans", "gaussian_mixture", "deep"}
    assert returns["deep"] > returns["kmeans"] + 0.05


def test_an_interpreter_that_is_not_there_is_refused_in_a_sentence_and_the_champion_stays(
    before: Path, tmp_path: Path
) -> None:
    home = copy_home(before, tmp_path)
    outcome = custseg(home, "retrain", "--reconfigure", config=rhythm_settings("deep", "/nowhere/python"))
    assert outcome.status == 1
    assert "deep_python = '/nowhere/python'" in outcome.err
    assert "make deep" in outcome.err
    assert len(OpenHome(load_settings(home / "custseg.toml", home=home)).champions.promotions) == 1
