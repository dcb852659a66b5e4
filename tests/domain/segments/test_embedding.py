"""The forward pass of a deep model, its scoring, and its JSON; no network is trained here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.segments.clustering import assign_customers, train_model
from custseg_assets.domain.segments.embedding import Embedding, Layer, Matrix, week_columns
from custseg_assets.domain.segments.explain import BY_WEEK, Explainer
from custseg_assets.domain.segments.model import Clusters, SegmentationModel, model_from_json
from custseg_assets.domain.segments.training_tables import measure_snapshot, orders_of, scale_snapshot
from custseg_assets.settings import ModelSettings
from custseg_assets.training import steps
from tests.support.trainings import KEY, features_of

FEATURES = ("recency_days", "frequency_orders", "monetary_net")
LAST_WEEK = Embedding(
    n_weeks=2,
    week_means=(0.0, 0.0),
    week_std=1.0,
    # Features are not looked at; the second output is what the first week has more than the second.
    layers=(
        Layer(((0.0, 0.0),) * 3 + ((1.0, 1.0), (0.0, -1.0)), (0.0, 0.0)),
        Layer(((1.0, 0.0), (0.0, 2.0)), (0.5, 0.0)),
    ),
    centroids=((0.5, 0.0), (2.0, 2.0)),
)


def customers() -> pl.DataFrame:
    """Customers who are alike but for the week of their orders: a half ordered in the newest, a half before it."""
    weeks = [(3.0, 0.0), (0.0, 3.0)] * 60
    features = features_of(120).with_columns(recency_days=5, frequency_orders=3, monetary_net=10.0 + pl.int_range(120))
    return features.hstack(pl.DataFrame(weeks, schema=list(week_columns(2)), orient="row"))


def trained(champion: SegmentationModel | None = None, embedding: Embedding = LAST_WEEK) -> SegmentationModel:
    means = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    reference = champion.reference if champion else measure_snapshot(customers(), FEATURES)
    return train_model(customers(), means, reference, KEY, champion, Clusters(means, embedding=embedding))


def test_the_forward_pass_is_that_of_a_network_by_hand() -> None:
    found = LAST_WEEK.embed(np.zeros((2, 3)), np.array([[1.0, 0.0], [0.0, 1.0]]))
    # log1p(1) = 0.6931; the second customer's second unit is below zero, and is cut off.
    assert found == pytest.approx(np.array([[0.5 + 0.6931, 2 * 0.6931], [0.5, 0.0]]), abs=1e-4)


def test_a_place_does_not_depend_on_the_rows_around_it() -> None:
    rng = np.random.default_rng(0)
    wide = replace(
        LAST_WEEK,
        layers=(_random_layer(rng, 5, 32), _random_layer(rng, 32, 4)),
    )
    scaled, orders = rng.normal(size=(257, 3)), rng.integers(0, 4, (257, 2)).astype(float)
    together = wide.embed(scaled, orders)
    alone = np.concatenate([wide.embed(scaled[[row]], orders[[row]]) for row in range(257)])
    assert np.array_equal(together, alone)


def _random_layer(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    weights: Matrix = rng.normal(size=(n_in, n_out))
    return Layer(tuple(map(tuple, weights.tolist())), tuple(rng.normal(size=n_out).tolist()))


def test_customers_who_differ_in_nothing_but_the_week_are_in_two_segments() -> None:
    model = trained()
    assigned = assign_customers(customers(), pl.Series([], dtype=pl.String), model)
    newest = customers().sort("customer_id")["orders_week_01"] > 0
    assert assigned["cluster"].to_list() == [1 if is_new else 0 for is_new in newest]


def test_a_model_keeps_its_network_in_its_json_and_its_name() -> None:
    model = trained()
    assert model.kind == "deep"
    assert model.inputs == (*FEATURES, "orders_week_01", "orders_week_02")
    assert model_from_json(model.to_json()) == model
    other = trained(embedding=replace(LAST_WEEK, week_std=2.0))
    assert other.model_version != model.model_version


def test_a_deep_model_says_that_the_weeks_decided() -> None:
    model = trained()
    ids = [segment.segment_id for segment in model.segments]
    reasons = Explainer(model).reasons(ids[0], ids[1], customers().row(1, named=True))
    names = [segment.name for segment in model.segments]
    assert reasons[0] == (BY_WEEK, f"orders of the last 2 weeks came more as in {names[0]} than as in {names[1]}")


def test_a_challenger_of_a_deep_model_goes_on_in_its_embedding() -> None:
    """So no network is trained, and the segments go on: this environment could not train one."""
    champion, said = trained(), list[str]()
    settings = ModelSettings(
        kind="deep", k_range=(2, 2), n_bootstraps=2, n_initialisations=1, min_segment_customers=1
    ).model_copy(update={"deep_weeks": 2, "deep_dimensions": 2})
    scaled, _ = scale_snapshot(customers(), FEATURES, champion.reference)
    orders = orders_of(customers(), FEATURES, 2)
    candidates, choice = steps.sweep_snapshot(scaled, KEY, settings, said.append, champion, orders)
    assert "the embedding of the model in force goes on" in said
    challenger = steps.train_snapshot(customers(), candidates, KEY, settings, champion)
    assert choice.k == 2
    assert challenger is not None
    assert challenger.embedding is not None
    assert challenger.embedding.layers == LAST_WEEK.layers
    assert [event.kind for event in challenger.lineage] == ["continued"] * 2
