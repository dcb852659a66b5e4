"""MLflow: the record of training runs, and the registry of their models.

The pipeline never reads a model from here, but from its own tables; MLflow is for people, and for services that load
models from a registry. Every step can be repeated: a model version is looked up by its custseg name before it is made.
MLflow stores the path of this module with each model, so the module must not move.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from custseg_assets.domain.segments.model import SegmentationModel, model_from_json
from custseg_assets.settings import TrackingSettings
from custseg_assets.stores.files import replacement_for
from custseg_assets.stores.mlflow_tables import follow_folder, make_tables, migrate_new_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER, CHAMPION = "challenger", "champion"
VERSION_TAG = "custseg.model_version"
REQUIREMENTS = ("custseg",)
"""Packages that a registered model needs besides MLflow."""
_CANDIDATE_METRICS = (
    "silhouette",
    "davies_bouldin",
    "calinski_harabasz",
    "inertia",
    "bootstrap_ari",
    "worst_jaccard",
    "smallest_cluster",
    "smallest_share",
)

VALUE_TAG = "custseg.value"
_VALUE_METRICS = ("log_loss", "auc", "calibration_error", "gini", "level", "level_low", "level_high", "n_taught")


def _quieten() -> None:
    """Keep MLflow, and the migrations of its tables, from telling of what goes well, whenever it was imported."""
    level = os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(level.upper())


class ModelRegistry:
    """One MLflow tracking store and registry.

    Args:
        settings: where it is; without a URI, an SQLite file in ``folder``.
        folder: of that file and the artifacts.
    """

    def __init__(self, settings: TrackingSettings, folder: Path) -> None:
        self.experiment = settings.experiment
        self.registered_model = settings.registered_model
        self._folder = folder
        self._database = None if settings.uri else folder / "mlflow.db"
        self.uri = settings.uri or f"sqlite:///{self._database}"

    def client(self) -> MlflowClient:
        """A client of the store."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def prepare(self) -> None:
        """Make the store and the experiment where they are missing, artifacts beside the database."""
        _quieten()
        artifacts = None
        if self._database is not None:
            artifacts = str(self._folder / "artifacts")
            if not self._database.exists():
                self._make_database(self._database)
            follow_folder(self._database, self.experiment, artifacts)
        client = self.client()
        if client.get_experiment_by_name(self.experiment) is None:
            client.create_experiment(self.experiment, artifact_location=artifacts)

    def _make_database(self, path: Path) -> None:
        """Make MLflow's tables in a new file first: a database whose migration was killed cannot be opened."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacement_for(path, is_durable=True) as unfinished:
            if not make_tables(unfinished):
                migrate_new_file(unfinished)

    def log_candidates(self, run_id: str, candidates: pl.DataFrame) -> None:
        """Log each number of clusters that was tried as a nested run, with its metrics and whether it was eligible.

        Args:
            run_id: of the parent run.
            candidates: rows of ``model_candidates``.
        """
        from mlflow.entities import Metric, Param, RunTag

        client = self.client()
        experiment_id = client.get_run(run_id).info.experiment_id
        for row in candidates.iter_rows(named=True):
            nested = client.create_run(experiment_id, run_name=f"k={row['k']}", tags={"mlflow.parentRunId": run_id})
            started_at = nested.info.start_time
            metrics = [
                Metric(name, float(row[name]), started_at, 0) for name in _CANDIDATE_METRICS if row[name] is not None
            ]
            tags = [
                RunTag("is_eligible", str(row["is_eligible"])),
                RunTag("is_chosen", str(row["is_chosen"])),
                RunTag("reason", row["reason"]),
            ]
            client.log_batch(nested.info.run_id, metrics, [Param("k", str(row["k"]))], tags)
            client.set_terminated(nested.info.run_id)

    def record_comparison(self, key: str, rows: Iterable[Mapping[str, Any]], files: Mapping[str, str | bytes]) -> None:
        """Log candidates that were compared and not kept: a run, and a nested one for each with its figures.

        Args:
            key: of the snapshot that they were fitted on.
            rows: of each, its name and its figures.
            files: text or bytes to keep with the run, by file name.
        """
        from mlflow.entities import Metric

        self.prepare()
        client = self.client()
        experiment = client.get_experiment_by_name(self.experiment)
        assert experiment is not None  # noqa: S101  # made just now
        parent = client.create_run(experiment.experiment_id, run_name=f"compare {key}", tags={"custseg.compare": key})
        for row in rows:
            tags = {"mlflow.parentRunId": parent.info.run_id}
            nested = client.create_run(experiment.experiment_id, run_name=row["name"], tags=tags)
            figures = {name: value for name, value in row.items() if isinstance(value, int | float)}
            metrics = [Metric(name, float(value), nested.info.start_time, 0) for name, value in figures.items()]
            client.log_batch(nested.info.run_id, metrics)
            client.set_terminated(nested.info.run_id)
        for name, content in files.items():
            self._log_file(client, parent.info.run_id, name, content)
        client.set_terminated(parent.info.run_id)

    def record_value(self, key: str, made_from: str, rows: pl.DataFrame) -> None:
        """Log the choice of what predicts customers' value as a run, with the figures of every method that was tried.

        A choice that was logged already is not logged again.

        Args:
            key: of the snapshot.
            made_from: stands for all that it was made from.
            rows: of ``value_model``, of that snapshot.
        """
        from mlflow.entities import Metric, Param

        self.prepare()
        client = self.client()
        experiment = client.get_experiment_by_name(self.experiment)
        assert experiment is not None  # noqa: S101  # made just now
        tags = {VALUE_TAG: key, f"{VALUE_TAG}.made_from": made_from}
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        if client.search_runs([experiment.experiment_id], wanted, max_results=1):
            return
        chosen = rows.filter(pl.col("is_chosen"))
        run = client.create_run(experiment.experiment_id, run_name=f"value {key}", tags=tags)
        started_at = run.info.start_time
        metrics = [
            Metric(f"{row['method']}.{row['target']}.{name}", float(row[name]), started_at, 0)
            for row in rows.iter_rows(named=True)
            for name in _VALUE_METRICS
            if row[name] is not None
        ]
        params = [
            Param("snapshot", key),
            Param("method", str(chosen["method"][0])),
            Param("taught_until", str(chosen["taught_until"][0])),
        ]
        client.log_batch(run.info.run_id, metrics, params)
        client.set_tag(run.info.run_id, "reason", str(chosen["reason"][0]))
        client.set_terminated(run.info.run_id)

    def register(
        self,
        run_id: str,
        model: SegmentationModel,
        *,
        examples: pl.DataFrame,
        files: Mapping[str, str | bytes],
        params: Mapping[str, object],
    ) -> str:
        """Log a model with signature, input example and files, register it, and give it the challenger's alias.

        Args:
            run_id: the run that trained it.
            model: the model.
            examples: a few raw rows, the model's inputs as columns.
            files: text or bytes to keep beside it, by file name.
            params: what it was trained with.

        Returns:
            The registry's version number; the existing one where this model is registered already.
        """
        import mlflow

        client = self.client()
        known = self._find(client, model.model_version)
        if known is None:
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            for name, value in params.items():
                client.log_param(run_id, name, value)
            for name, content in files.items():
                self._log_file(client, run_id, name, content)
            source = self._log_model(model, examples)
            self._ensure_registered_model(client)
            known = client.create_model_version(
                self.registered_model, source, run_id, tags={VERSION_TAG: model.model_version}
            ).version
        client.set_registered_model_alias(self.registered_model, CHALLENGER, known)
        return str(known)

    def promote(self, model_version: str) -> None:
        """Give a registered model the champion's alias.

        Raises:
            LookupError: the model is not registered.
        """
        client = self.client()
        version = self._find(client, model_version)
        if version is None:
            raise LookupError(f"model {model_version} is not registered as {self.registered_model}")
        client.set_registered_model_alias(self.registered_model, CHAMPION, version)

    def note(self, model_version: str, tags: Mapping[str, str]) -> None:
        """Tag the run that trained a model with what was decided about the model later.

        Args:
            model_version: of a registered model.
            tags: by name; earlier ones of that name are replaced.
        """
        client = self.client()
        version = self._find(client, model_version)
        if version is not None:
            run_id = str(client.get_model_version(self.registered_model, version).run_id)
            for name, value in tags.items():
                client.set_tag(run_id, name, value)

    def close_abandoned(self, dagster_run_ids: list[str]) -> None:
        """Mark MLflow runs as killed whose Dagster run was killed."""
        if self._database is not None and not self._database.exists():
            return
        client = self.client()
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return
        for dagster_run_id in dagster_run_ids:
            runs = client.search_runs([experiment.experiment_id], f"tags.dagster_run_id = '{dagster_run_id}'")
            for run in runs:
                if run.info.status == "RUNNING":
                    client.set_terminated(run.info.run_id, "KILLED")

    def _find(self, client: MlflowClient, model_version: str) -> str | None:
        found = client.search_model_versions(
            f"name = '{self.registered_model}' and tags.`{VERSION_TAG}` = '{model_version}'"
        )
        return str(found[0].version) if found else None

    def _ensure_registered_model(self, client: MlflowClient) -> None:
        if not client.search_registered_models(f"name = '{self.registered_model}'"):
            client.create_registered_model(
                self.registered_model, description="Customer segmentation models of custseg."
            )

    def _log_file(self, client: MlflowClient, run_id: str, name: str, content: str | bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            client.log_artifact(run_id, str(path))

    def _log_model(self, model: SegmentationModel, examples: pl.DataFrame) -> str:
        """Log the model as an MLflow pyfunc that this module loads from JSON; no pickle is involved.

        Returns:
            The URI of the logged model.
        """
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema

        inputs = Schema([ColSpec(DataType.double, name) for name in model.inputs])
        segment = [ColSpec(DataType.string, name) for name in ("segment_id", "segment_name")]
        signature = ModelSignature(inputs, Schema([*segment, ColSpec(DataType.double, "margin")]))
        with tempfile.TemporaryDirectory() as folder, _knowing_packages(REQUIREMENTS):
            path = Path(folder) / "model.json"
            path.write_text(model.to_json(), encoding="utf-8")
            info = mlflow.pyfunc.log_model(
                name="segmentation",
                loader_module="custseg_assets.stores.registry",
                data_path=str(path),
                signature=signature,
                input_example=examples.to_pandas(),
                pip_requirements=[*REQUIREMENTS],
            )
        return str(info.model_uri)


@contextlib.contextmanager
def _knowing_packages(names: Iterable[str]) -> Iterator[None]:
    """A block in which MLflow takes these packages, and itself, for all that there are.

    For a warning about requirements that are not met it lists the modules of every installed package, from tens of
    thousands of files: a CPU second or two. Nor does it warn that it found no pip, which environments that uv makes do
    not have: that would stand in the middle of a run's own words.
    """
    from mlflow.utils import requirements_utils

    logger = logging.getLogger("mlflow.utils.environment")
    level = logger.level
    logger.setLevel(logging.ERROR)
    known: Any = vars(requirements_utils)
    before = known["_MODULES_TO_PACKAGES"]
    known["_MODULES_TO_PACKAGES"] = {name: [name] for name in ("mlflow", *names)}
    try:
        yield
    finally:
        known["_MODULES_TO_PACKAGES"] = before
        logger.setLevel(level)


class ScoringModel:
    """A segmentation model with MLflow's ``predict``: raw feature rows in, segments out."""

    def __init__(self, model: SegmentationModel) -> None:
        self._model = model

    def predict(self, rows: Any) -> Any:
        """Segment id, name and margin of each row.

        Args:
            rows: a pandas frame with the model's inputs as columns, business units.
        """
        import pandas as pd

        scores = self._model.score(np.asarray(rows[list(self._model.inputs)], dtype=np.float64))
        segments = [self._model.segments[cluster] for cluster in scores.cluster]
        return pd.DataFrame(
            {
                "segment_id": [segment.segment_id for segment in segments],
                "segment_name": [segment.name for segment in segments],
                "margin": scores.margin,
            }
        )


def _load_pyfunc(path: str) -> ScoringModel:
    """Load a model that ``_log_model`` logged, from its JSON file; MLflow calls this function by its name."""
    return ScoringModel(model_from_json(Path(path).read_text(encoding="utf-8")))
