"""Which model is in force at a snapshot, and what has been trained and decided so far.

What makes a challenger take over belongs in ``domain.promotion``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

import polars as pl

from custseg_assets.domain import schemas
from custseg_assets.domain.segments.model import ScalingReference, SegmentationModel, model_from_json
from custseg_assets.errors import RunFailedError
from custseg_assets.stores.tables import TableReader

Promotions = tuple[tuple[str, str], ...]


class Champions:
    """The history of decisions about models; a value, made anew when a model or a decision is written.

    Args:
        tables: with ``promotion_decision`` and ``segmentation_model``.
    """

    def __init__(self, tables: TableReader) -> None:
        self._tables = tables

    @cached_property
    def _decisions(self) -> pl.DataFrame:
        return self._tables.whole(schemas.PROMOTION_DECISION)

    @cached_property
    def _models(self) -> pl.DataFrame:
        return self._tables.whole(schemas.SEGMENTATION_MODEL)

    @cached_property
    def promotions(self) -> Promotions:
        """Snapshot key and model version of every promotion, oldest first."""
        promoted = self._decisions.filter(pl.col("decision") == "PROMOTE")
        return tuple(promoted.select("period", "model_version").iter_rows())

    def champion_at(self, key: str) -> tuple[str, str] | None:
        """Where the model in force at a snapshot was trained, and its version; ``None`` before the first promotion."""
        return next((entry for entry in reversed(self.promotions) if entry[0] <= key), None)

    def champion_before(self, key: str) -> tuple[str, str] | None:
        """Where the model in force before a snapshot was trained, and its version; ``None`` if it trains the first."""
        return next((entry for entry in reversed(self.promotions) if entry[0] < key), None)

    def segmented(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Those of some snapshots at which a model is in force."""
        return tuple(key for key in keys if self.champion_at(key))

    def model_at(self, key: str) -> SegmentationModel:
        """The model in force at a snapshot.

        Raises:
            RunFailedError: no model has been promoted yet.
        """
        champion = self.champion_at(key)
        if champion is None:
            raise RunFailedError(f"no model is in force at {key}; train and promote one first (the job 'train')")
        model = self._models.filter(pl.col("period") == champion[0])
        return model_from_json(model["model_json"].item())

    def model_before(self, key: str) -> SegmentationModel:
        """The model in force when a snapshot came; for the first model's own snapshot, that model.

        Raises:
            RunFailedError: no model has been promoted yet.
        """
        champion = self.champion_before(key)
        return self.model_at(champion[0] if champion else key)

    def reference_before(self, key: str) -> ScalingReference | None:
        """The scaling of the model in force when a snapshot came; ``None`` if it trains the first one."""
        return self.model_before(key).reference if self.champion_before(key) else None

    def predecessor_of(self, key: str) -> SegmentationModel | None:
        """The model that a challenger trained on a snapshot would follow; ``None`` for the first.

        It counts the segment numbers of every model ever trained, so that none of them comes again as another segment.
        """
        if self.champion_before(key) is None:
            return None
        numbers = (model_from_json(text).n_segment_ids for text in self._models["model_json"])
        return replace(self.model_before(key), n_segment_ids=max(numbers))

    def trained_anew(self, key: str) -> Champions:
        """The history as it would be once a first model was trained anew on a snapshot; its version is not known yet.

        First models of later snapshots go with it, challengers stay as they were decided.
        """
        anew = Champions(self._tables)
        later = (one for one in self.promotions if one[0] > key and self._replaced.get(one[0]) is not None)
        anew.promotions = ((key, "not trained yet"), *later)
        return anew

    @cached_property
    def _replaced(self) -> Mapping[str, str | None]:
        """Snapshots that a challenger was decided about → the model in force before; ``None`` for the first.

        A decision without a challenger is a REJECT because no k was eligible, or the record that nothing was trained.
        """
        is_trained = pl.col("model_version").is_not_null() | (pl.col("decision") == "REJECT")
        return dict(self._decisions.filter(is_trained).select("period", "champion_before").iter_rows())

    @property
    def trainings(self) -> tuple[str, ...]:
        """The snapshots a challenger was trained on, or found impossible, and decided about, oldest first."""
        return tuple(self._replaced)

    def trainings_before(self, key: str) -> tuple[str, ...]:
        """The trainings that were over when a snapshot came."""
        return tuple(trained for trained in self.trainings if trained < key)

    def is_retrained(self, key: str) -> bool:
        """Whether a challenger was trained on a snapshot although a model was in force: that stays as it was decided.

        The first model follows its data instead: late files that change its snapshot train it anew, so that a home
        does not depend on the order in which its files came.
        """
        return self._replaced.get(key) is not None and self.champion_before(key) is not None

    def is_untrained(self, key: str) -> bool:
        """Whether a model was in force when a snapshot came and nothing was trained on it."""
        return self.champion_before(key) is not None and not self.is_retrained(key)

    @property
    def overtaken(self) -> Mapping[str, tuple[str, str]]:
        """Snapshots whose challenger was decided about against a model that is not in force before them any more.

        Of each, the version of that model and of the one in force now: a model before it was trained anew, or a
        person has gone back to another, and what was decided stays.
        """
        now = {key: self.champion_before(key) for key in self._replaced}
        return {
            key: (then, before[1])
            for key, then in self._replaced.items()
            if then is not None and (before := now[key]) is not None and before[1] != then
        }
