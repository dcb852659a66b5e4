"""The tables that training passes from step to step, between a snapshot's features and a challenger.

Here are only the conversions between tables and the domain's values. K-means is fitted in ``clustering``, the order of
the steps belongs in ``custseg_assets.training``, the text about a model in ``domain.model_card``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import polars as pl

from custseg_assets.domain.schemas import MODEL_CANDIDATES, scaled_features_table
from custseg_assets.domain.segments.clustering import Candidate, KChoice, feature_values, visible_to_kmeans
from custseg_assets.domain.segments.embedding import week_columns
from custseg_assets.domain.segments.model import (
    Clusters,
    Matrix,
    ScalingReference,
    clusters_from_json,
    measure_reference,
)

OFF_REFERENCE = "_off_reference"
"""Ending of the columns of ``measure_off_reference``."""


def scale_snapshot(
    features: pl.DataFrame, names: tuple[str, ...], reference: ScalingReference | None
) -> tuple[pl.DataFrame, ScalingReference]:
    """The matrix K-means sees, with the columns of ``scaled_features``, and the reference it was scaled with.

    Args:
        features: ``customer_features`` of one snapshot.
        names: the segmentation features, in the model's order.
        reference: of the model in force; without one the snapshot's own becomes the reference.

    Raises:
        BadInputError: a segmentation feature has no value for a customer with orders.
    """
    visible = features.filter(visible_to_kmeans(features, names)).sort("customer_id")
    values = feature_values(visible, names)
    reference = reference or measure_reference(values, names)
    scaled = pl.DataFrame(reference.scale(values), schema=dict.fromkeys(names, pl.Float64), orient="row")
    table = visible.select("period", "customer_id").hstack(scaled)
    return table.cast(scaled_features_table(names).schema), reference


def measure_snapshot(features: pl.DataFrame, names: tuple[str, ...]) -> ScalingReference:
    """The reference that a snapshot's own customers give.

    Args:
        features: ``customer_id``, the segmentation features and what ``visible_to_kmeans`` reads, of everybody in the
            snapshot: sums of floating point numbers depend on their order, so they are never added up by slices.
        names: the segmentation features, in the model's order.

    Raises:
        BadInputError: a segmentation feature has no value for a customer with orders.
    """
    visible = features.filter(visible_to_kmeans(features, names)).sort("customer_id")
    return measure_reference(feature_values(visible, names), names)


def measure_off_reference(
    scaled: pl.DataFrame, features: pl.DataFrame, references: Mapping[str, ScalingReference], names: Sequence[str]
) -> pl.DataFrame:
    """How far scaled values, taken off the scale again, are from the features they stand for; infinite without any.

    However far customers lie from the reference, this is 0. Another model's reference, or none, is seen at once.

    Args:
        scaled: rows of ``scaled_features``, of one or more snapshots.
        features: ``customer_features`` of those snapshots.
        references: of the models in force, by snapshot.
        names: the segmentation features.

    Returns:
        One row for each of ``scaled``, in its order; per feature a column with ``OFF_REFERENCE``, in ``log1p`` units.
    """
    scales = pl.DataFrame(
        [
            {
                "period": key,
                **{f"{name} mean": mean for name, mean in zip(one.features, one.mean, strict=True)},
                **{f"{name} std": std for name, std in zip(one.features, one.std, strict=True)},
            }
            for key, one in references.items()
        ],
        schema={"period": pl.String} | {f"{name} {part}": pl.Float64 for name in names for part in ("mean", "std")},
    )
    key = ["period", "customer_id"]
    together = scaled.select(*key, *names).join(
        features.select(*key, *names), on=key, how="left", suffix=" value", maintain_order="left"
    )
    together = together.join(scales, on="period", how="left", maintain_order="left")
    return together.select(
        (pl.col(name) * pl.col(f"{name} std") + pl.col(f"{name} mean") - _logged(f"{name} value"))
        .abs()
        .fill_null(float("inf"))
        .alias(f"{name}{OFF_REFERENCE}")
        for name in names
    )


def _logged(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64).clip(lower_bound=0.0).log1p()


def matrix_of(scaled: pl.DataFrame, names: Sequence[str]) -> Matrix:
    """A ``scaled_features`` snapshot as an array, shape (customers, features)."""
    return scaled.select(names).to_numpy()


def orders_of(features: pl.DataFrame, names: Sequence[str], n_weeks: int) -> Matrix:
    """Orders by week of the customers that K-means sees, in the order of ``scale_snapshot``; shape (customers, weeks).

    Args:
        features: ``customer_features`` of one snapshot, with orders by week.
        names: the segmentation features.
        n_weeks: weeks there are.
    """
    visible = features.filter(visible_to_kmeans(features, names)).sort("customer_id")
    return feature_values(visible, week_columns(n_weeks))


def candidate_table(key: str, candidates: Sequence[Candidate], choice: KChoice) -> pl.DataFrame:
    """The candidates of a sweep and the choice among them, with the columns of ``model_candidates``."""
    table = pl.DataFrame(
        [_candidate_row(one) for one in candidates],
        schema_overrides=dict(MODEL_CANDIDATES.schema),
        infer_schema_length=None,
    )
    chosen = pl.lit(choice.k, pl.Int64)
    return table.with_columns(
        pl.lit(key).alias("period"),
        (pl.col("k") == chosen).fill_null(value=False).alias("is_chosen"),
        pl.lit(json.dumps(choice.reasons, ensure_ascii=False)).alias("choice"),
    ).select(MODEL_CANDIDATES.schema.names())


def _candidate_row(candidate: Candidate) -> dict[str, object]:
    clusters = candidate.clusters or (candidate.centroids and Clusters(candidate.centroids))
    row = asdict(replace(candidate, clusters=None)) | {"centroids": clusters.to_json() if clusters else None}
    return {name: value for name, value in row.items() if name != "clusters"}


def chosen_clusters(candidates: pl.DataFrame) -> Clusters | None:
    """The clusters of the chosen k, from ``model_candidates``; ``None`` where none was chosen."""
    chosen = candidates.filter("is_chosen")
    return clusters_from_json(chosen["centroids"].item()) if chosen.height else None


def chosen_centroids(candidates: pl.DataFrame) -> list[list[float]] | None:
    """Centroids of the chosen k, on the model's scale, from ``model_candidates``; ``None`` where none was chosen."""
    clusters = chosen_clusters(candidates)
    return [list(row) for row in clusters.centroids] if clusters else None


def choice_in_words(candidates: pl.DataFrame) -> tuple[str, ...]:
    """The reasons for the chosen k, or why none was chosen, from a snapshot's ``model_candidates``."""
    return tuple(json.loads(candidates["choice"][0]))


def metrics_of(candidates: pl.DataFrame) -> dict[str, float | None]:
    """The measures of the chosen k, by name, from a snapshot's ``model_candidates``."""
    names = [name for name, dtype in candidates.schema.items() if dtype == pl.Float64 or name == "smallest_cluster"]
    chosen = candidates.filter("is_chosen").select(names)
    return chosen.row(0, named=True) if chosen.height else {}
