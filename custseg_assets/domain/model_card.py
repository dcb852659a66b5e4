"""The model card: what a reader needs to know to trust a model, as Markdown.

Only the text is made here. Measures come from ``segments.training_tables``; ``stores`` keeps the card.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from custseg_assets.domain.markdown import as_text
from custseg_assets.domain.segments.model import ModelKind, SegmentationModel

_CARD = """\
# Segmentation model {version}

{how} {k} clusters on {features}, each as log1p of a value clipped at 0 and standardised with the reference
below.{more} Nothing is refitted when customers are scored.

## Data

{data} {n_customers:,} customers; those whose net spend is zero or less, or who only cancelled, are in the rule segment
Refunded, and those with nothing in the window in Lapsed.

## Why this number of clusters

The rule: {rule}.

{choice}

| k | silhouette | Davies-Bouldin | bootstrap ARI | worst Jaccard | smallest | eligible |
|---|---|---|---|---|---|---|
{candidates}

## Segments

| id | name | rule | advice |
|---|---|---|---|
{segments}

## Reference

Measured on {n_reference:,} customers{reference_of}. A model that follows another keeps its scale: segments go on.

| feature | mean of log1p | standard deviation |
|---|---|---|
{scaling}

## What it is not for

It describes what customers did, not what they will do; it is no ground for a decision about credit, prices for a person
or employment. Outside the shop and the months it was trained on it extrapolates.

Code: {code}
"""
_HOW: Mapping[ModelKind, str] = {
    "kmeans": "K-means with",
    "gaussian_mixture": "A Gaussian mixture, with full covariances, of",
    "deep": "K-means in the embedding of a network with",
}
_MORE: Mapping[ModelKind, str] = {
    "kmeans": "",
    "gaussian_mixture": " Everybody is in the most probable cluster.",
    "deep": (
        " The network also sees the number of orders in each of the last {n_weeks} weeks. Drift is measured on the "
        "features: a change of nothing but the order of purchases is not seen."
    ),
}


def model_card(
    model: SegmentationModel,
    candidates: pl.DataFrame,
    *,
    n_customers: int,
    rule: str,
    choice: tuple[str, ...],
    data: str,
    code: str,
) -> str:
    """The model card of a trained model, in Markdown.

    Args:
        model: the model.
        candidates: ``model_candidates`` of its snapshot.
        n_customers: that K-means saw on its snapshot.
        rule: the rule of the choice of k, in words.
        choice: the reasons for its k, one sentence each.
        data: the lines it was trained on, in words.
        code: revision of the code that trained it.
    """
    reference = model.reference
    scaling = zip(reference.features, reference.mean, reference.std, strict=True)
    return _CARD.format(
        version=model.model_version,
        how=_HOW[model.kind],
        more=_MORE[model.kind].format(n_weeks=model.n_weeks),
        k=model.k,
        features=", ".join(model.features),
        data=as_text(data),
        n_customers=n_customers,
        n_reference=reference.n_customers,
        reference_of=" of the first model's snapshot" if model.predecessor else "",
        rule=rule,
        choice="\n".join(f"* {sentence}" for sentence in choice),
        candidates="\n".join(_candidate_row(row) for row in candidates.iter_rows(named=True)),
        segments="\n".join(f"| {s.segment_id} | {s.name} | {s.naming_rule} | {s.advice} |" for s in model.segments),
        scaling="\n".join(f"| {name} | {mean:.4f} | {std:.4f} |" for name, mean, std in scaling),
        code=code,
    )


def _candidate_row(row: dict[str, object]) -> str:
    figures = ("silhouette", "davies_bouldin", "bootstrap_ari", "worst_jaccard")
    cells = ["–" if row[name] is None else f"{row[name]:.3f}" for name in figures]
    smallest, eligible = row["smallest_cluster"] or "–", "yes" if row["is_eligible"] else "no"
    return f"| {row['k']} | {' | '.join(cells)} | {smallest} | {eligible} |"
