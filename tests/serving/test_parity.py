"""Parity: for every customer of the real log, the pipeline's assignment, the lookup and the score are equal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flask.testing import FlaskClient

from custseg_assets.defs.materialise import of_snapshot
from custseg_assets.domain import schemas
from custseg_assets.domain.periods import window_of
from custseg_assets.domain.segments.clustering import (
    Limits,
    assign_customers,
    choose_k,
    sweep,
    train_model,
    visible_to_kmeans,
)
from custseg_assets.domain.segments.model import SegmentationModel, measure_reference
from custseg_assets.domain.segments.profiles import profile_segments
from custseg_assets.stores.release_writer import ReleaseContent
from custseg_assets.stores.releases import point_to, release_id_of, sha256_of
from tests.support.releases import FEATURES, MARGIN_RULE, make_content, make_release
from tests.support.server import ROW, StartApp, is_error

PERIOD = "2011-11-01"
LIMITS = Limits(min_bootstrap_ari=0.5, min_jaccard=0.3, min_share=0.02, min_customers=50)


@pytest.fixture
def features(shared: Path) -> pl.DataFrame:
    """Features of the customers of a real snapshot."""
    return pl.read_parquet(shared / "goldens" / "customer_features_2011-12-01_6m.parquet").with_columns(
        pl.col("customer_id").cast(pl.String), pl.col(FEATURES[:2]).cast(pl.Int64)
    )


def make_real_content(features: pl.DataFrame, known: pl.Series) -> tuple[ReleaseContent, pl.DataFrame]:
    """Make the content of a release of real customers with the pipeline's own functions; return their assignments too.

    The first model is trained on all customers, the second, which is released, on a random half of them. At the
    snapshot before everybody had somebody else's features, so that the margin rule holds some and others move.
    """
    first = train_real_model(features)
    model = train_real_model(features.sample(fraction=0.5, seed=1), first)
    window = window_of(PERIOD, "2011-06-01", 6, "monthly")
    earlier = features.with_columns(pl.col("customer_id").reverse())
    before = assign_customers(earlier, known, first)
    assigned = assign_customers(features, known, model, before, first, MARGIN_RULE)
    held = assigned.filter("is_held")
    assert 100 < held.height < (assigned["segment_id"] != before["segment_id"]).sum()
    content = replace(
        make_content(model),
        window=window,
        assignments=of_snapshot(schemas.SEGMENT_ASSIGNMENTS, window, assigned).lazy(),
        customer_features=features,
        segment_profiles=of_snapshot(schemas.SEGMENT_PROFILES, window, profile_segments(assigned, features, model)),
        later_customers=None,
    )
    return content, assigned


def train_real_model(features: pl.DataFrame, champion: SegmentationModel | None = None) -> SegmentationModel:
    """Train a model of four clusters, with the scaling of the champion where there is one."""
    seen = features.filter(visible_to_kmeans(features, FEATURES))
    values = seen.select(FEATURES).cast(pl.Float64).to_numpy()
    reference = champion.reference if champion else measure_reference(values, FEATURES)
    [candidate] = sweep(reference.scale(values), (4, 4), LIMITS, n_bootstraps=2, n_initialisations=2, seed=1)
    assert choose_k([candidate], LIMITS).k == 4
    assert candidate.centroids is not None
    return train_model(features, candidate.centroids, reference, PERIOD, champion)


def count_agreeing(client: FlaskClient, features: pl.DataFrame, assigned: pl.DataFrame) -> int:
    """Count the customers whose three answers are equal; fail at the first whose are not."""
    values = {row["customer_id"]: row for row in features.select("customer_id", *FEATURES).iter_rows(named=True)}
    n_agreeing = 0
    for part in assigned.iter_slices(1_000):
        ids = part["customer_id"].to_list()
        looked_up = client.post("/v1/customers/segments", json={"customer_ids": ids}).get_json()["customers"]
        rows = [values[customer_id] for customer_id in ids if customer_id in values]
        scored = client.post("/v1/score", json={"customers": rows}).get_json()["customers"] if rows else []
        of_score = {one["customer_id"]: one for one in scored}
        for expected, found in zip(part.iter_rows(named=True), looked_up, strict=True):
            answers = [found, of_score.get(expected["customer_id"], found)]
            for answer in answers:
                for name in ("customer_id", "segment_id", "segment_name", "margin", "is_held", "runner_up_segment_id"):
                    assert answer[name] == expected[name], (expected, answer)
            assert found["reasons"] == answers[-1]["reasons"]
            n_agreeing += 1
    return n_agreeing


def test_lookup_score_and_assignment_agree_for_every_real_customer(
    shared: Path, features: pl.DataFrame, served_home: Path, start_app: StartApp
) -> None:
    everybody = pl.read_parquet(shared / "goldens" / "customer_features_2012-01-01_all.parquet")
    content, assigned = make_real_content(features, everybody["customer_id"].cast(pl.String))
    make_release(served_home / "releases", content)
    assert count_agreeing(start_app().test_client(), features, assigned) == assigned.height > 4_000


def test_without_the_id_a_held_customers_row_is_scored_as_anybodys(
    features: pl.DataFrame, served_home: Path, start_app: StartApp
) -> None:
    content, assigned = make_real_content(features, features["customer_id"])
    make_release(served_home / "releases", content)
    held = assigned.filter("is_held").head(900)
    rows = features.join(held.select("customer_id"), on="customer_id").sort("customer_id").select(FEATURES).to_dicts()
    scored = start_app().test_client().post("/v1/score", json={"customers": rows}).get_json()["customers"]
    assert [one["segment_id"] for one in scored] == held["runner_up_segment_id"].to_list()
    assert all(one["margin"] >= 0 for one in scored)
    assert not any(one["is_held"] for one in scored)


def score_all(client: FlaskClient, features: pl.DataFrame) -> dict[str, tuple[str, bool]]:
    """Segment and ``is_held`` of the scores of customers' features with their ids, by customer."""
    rows = features.select("customer_id", *FEATURES).to_dicts()
    scored = client.post("/v1/score", json={"customers": rows}).get_json()["customers"]
    return {one["customer_id"]: (one["segment_id"], one["is_held"]) for one in scored}


def test_changed_features_are_scored_as_the_pipeline_would_at_the_next_snapshot_but_for_what_lasts(
    features: pl.DataFrame, served_home: Path, start_app: StartApp
) -> None:
    content, assigned = make_real_content(features, features["customer_id"])
    make_release(served_home / "releases", content)
    changed = features.with_columns(pl.col("recency_days") + 20, pl.col("monetary_net") * 0.8).head(900)
    # Nobody held: no move can last, so the pipeline's next snapshot has what a score can know.
    before = assigned.with_columns(is_held=pl.lit(value=False))
    expected = assign_customers(changed, changed["customer_id"], content.model, before, content.model, MARGIN_RULE)
    rows = expected.select("customer_id", "segment_id", "is_held").iter_rows()
    found = score_all(start_app().test_client(), changed)
    assert found == {name: (segment, is_held) for name, segment, is_held in rows}
    new = expected.join(assigned, on="customer_id").filter(pl.col("is_held") & ~pl.col("is_held_right"))
    assert new.height > 10


def test_a_release_without_a_margin_rule_keeps_whom_it_kept_and_only_beside_the_border(
    features: pl.DataFrame, served_home: Path, start_app: StartApp
) -> None:
    content, assigned = make_real_content(features, features["customer_id"])
    # As it was before: held are those whose runner-up the own segment is, by less than 0.1.
    nearest = assign_customers(features, features["customer_id"], content.model)
    held = assigned.join(nearest, on="customer_id", suffix="_nearest").filter(
        pl.col("is_held") & (pl.col("runner_up_segment_id_nearest") == pl.col("segment_id")) & (pl.col("margin") > -0.1)
    )
    assert 10 < held.height < assigned.filter("is_held").height
    rows = assigned.filter(pl.col("customer_id").is_in(held["customer_id"].implode()))
    others = nearest.join(rows, on="customer_id", how="anti")
    old = of_snapshot(schemas.SEGMENT_ASSIGNMENTS, content.window, pl.concat([rows, others]))
    release_id = make_release(served_home / "releases", replace(content, assignments=old.lazy()))
    forget_the_margin_rule(served_home / "releases", release_id)
    client = start_app().test_client()
    assert count_agreeing(client, features.head(900), old.join(features.head(900), on="customer_id", how="semi")) == 900
    # Elsewhere now: nobody is kept who is not beside the border, or was not kept before.
    changed = features.with_columns(pl.col("recency_days") + 20, pl.col("monetary_net") * 0.8).head(900)
    is_held = {name for name, (_, kept) in score_all(client, changed).items() if kept}
    assert is_held < set(held["customer_id"])
    # Within 0.1 of the nearest, but with a third between: moved.
    name = held["customer_id"][0]
    rows = rows_with_own_third(content.model, held["segment_id"][0], customer_id=name)
    assert not any(one["is_held"] for one in client.post("/v1/score", json={"customers": rows}).get_json()["customers"])


def rows_with_own_third(model: SegmentationModel, segment_id: str, **more: str) -> list[dict[str, object]]:
    """Feature rows to which two other centroids are nearer than a segment's own, none by a tenth of the distance."""
    reference, own = model.reference, model.cluster_of[segment_id]
    places = np.random.default_rng(0).normal(size=(20_000, 3))
    distances = np.linalg.norm(places[:, None] - np.array(model.centroids), axis=2)
    is_third = np.argsort(distances, axis=1)[:, 2] == own
    values = np.expm1(places * np.array(reference.std) + np.array(reference.mean))
    is_near = distances.min(axis=1) > 0.9 * distances[:, own]
    found = values[is_third & is_near & (values > 0).all(axis=1)][:20]
    assert len(found)
    return [{**dict(zip(model.features, row, strict=True)), **more} for row in found.tolist()]


def forget_the_margin_rule(root: Path, release_id: str) -> None:
    """Make of a release one of an earlier version, which names no margin rule, and point to that."""
    path, manifest_path = root / release_id / "migrations.json", root / release_id / "manifest.json"
    migrations, manifest = json.loads(path.read_text()), json.loads(manifest_path.read_text())
    path.write_text(json.dumps({name: migrations[name] for name in ("before", "moves", "causes")}))
    manifest["files"]["migrations.json"] = {"sha256": sha256_of(path), "n_bytes": path.stat().st_size}
    manifest["release_id"] = release_id_of(manifest)
    manifest_path.write_text(json.dumps(manifest))
    (root / release_id).rename(root / manifest["release_id"])
    point_to(root, manifest["release_id"])


def test_parity_is_really_compared(features: pl.DataFrame, served_home: Path, start_app: StartApp) -> None:
    content, assigned = make_real_content(features, features["customer_id"])
    make_release(served_home / "releases", content)
    moved = features.with_columns(pl.col("recency_days") + 1)
    with pytest.raises(AssertionError):
        count_agreeing(start_app().test_client(), moved, assigned)


def test_a_customer_with_orders_and_an_unknown_feature_cannot_be_placed(client: FlaskClient) -> None:
    response = client.post("/v1/score", json={"customers": [{**ROW, "recency_days": None}]})
    assert is_error(response, 422, "features_missing")
    without_orders = {"recency_days": None, "frequency_orders": 0, "monetary_net": -5}
    answer = client.post("/v1/score", json={"customers": [without_orders]}).get_json()["customers"][0]
    assert (answer["segment_name"], answer["margin"]) == ("Refunded", None)
