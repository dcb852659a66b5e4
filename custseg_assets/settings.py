"""One frozen settings object, and the pipeline's only reader of ``custseg.toml`` and of ``CUSTSEG_*`` variables.

Precedence: command line over environment over file over defaults. The file is the one that is named, or the one
in the working folder, or the home's own (``home.own_settings``). Unknown keys and impossible values are refused with
the accepted ones named. Each section describes its keys; ``docs/settings.md`` is made from that by ``make docs``.
The service's settings are in ``custseg_serving.settings``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from custseg_assets.domain.bounds import Share
from custseg_assets.domain.drift.report import DriftSettings
from custseg_assets.domain.periods import Cadence, Lookback
from custseg_assets.domain.promotion.promotion import PromotionLimits
from custseg_assets.domain.promotion.retraining import RetrainRules
from custseg_assets.domain.schemas import SCALABLE_FEATURES
from custseg_assets.domain.segments.clustering import Limits
from custseg_assets.domain.segments.model import ModelKind
from custseg_assets.errors import BadInputError, did_you_mean
from custseg_assets.source_settings import Section, SourceSettings

HOME_VARIABLE = "CUSTSEG_HOME"
CONFIG_VARIABLE = "CUSTSEG_CONFIG"
SOURCE_VARIABLE = "CUSTSEG_SOURCE"
UI_PORT_VARIABLE = "CUSTSEG_UI_PORT"
UI_TOKEN_VARIABLE = "CUSTSEG_UI_TOKEN"  # noqa: S105  (the name of a variable)
UI_TOKEN_HEADER = "X-Custseg-Token"  # noqa: S105  (the name of a header)
WEBHOOK_VARIABLE = "CUSTSEG_ALERT_WEBHOOK"
PASSWORD_VARIABLE = "CUSTSEG_SOURCE_PASSWORD"  # noqa: S105  (the name of a variable)
SIGNING_KEY_VARIABLE = "CUSTSEG_SIGNING_KEY"
FROM_ENVIRONMENT = {
    "home": HOME_VARIABLE,
    "ui_port": UI_PORT_VARIABLE,
    "ui_token": UI_TOKEN_VARIABLE,
    "alert_webhook": WEBHOOK_VARIABLE,
    "source_password": PASSWORD_VARIABLE,
    "signing_key": SIGNING_KEY_VARIABLE,
}
DEFAULT_HOME = ".custseg"
DEFAULT_CONFIG = "custseg.toml"
DEMO = "demo"
BIGQUERY = "bq://"
_PERIODS_OF_A_CENTURY: dict[Cadence, int] = {"daily": 36_525, "weekly": 5_218, "monthly": 1_200}
_LARGEST_NUMBER = 2**31 - 1
"""No number of a configuration has a reason to be larger, and libraries take no larger ones."""


_COUNTED_PROPERTIES = (
    "spark.driver.cores",
    "spark.executor.cores",
    "spark.executor.instances",
    "spark.dynamicAllocation.",
    "spark.dataproc.driver.",
    "spark.dataproc.executor.",
)
"""What a batch's cost depends on, by how the names begin."""


class LandingSettings(Section):
    """Where files may be dropped, and when one is taken to be whole.

    Attributes:
        folder: folder that files are dropped into; ``landing`` in the home without it.
        settle_seconds: seconds that a file must not have changed for before it is taken in.
    """

    folder: Path | None = None
    settle_seconds: Annotated[float, Field(ge=0)] = 5.0

    @field_validator("folder")
    @classmethod
    def _make_absolute(cls, folder: Path | None) -> Path | None:
        return folder and folder.expanduser().absolute()


class ReadingSettings(Section):
    """What reading one file may take; a file that needs more is refused, or set aside where it landed.

    Attributes:
        max_memory_gb: memory, in gigabytes; three quarters of this machine's without it.
        max_unpacked_gb: size of a file when it is unpacked, in gigabytes.
        max_minutes: time.
    """

    max_memory_gb: Annotated[float, Field(gt=0, le=1e6)] | None = None
    max_unpacked_gb: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    max_minutes: Annotated[float, Field(gt=0, le=1e5)] = 60.0


class EngineSettings(Section):
    """Where work as large as the log is done; the tables are the same with each, so a home may change it at any time.

    Attributes:
        name: ``polars`` needs nothing more, ``duckdb`` less memory for large logs, ``spark`` and ``bigquery`` work on
            other machines, the latter for a ``bq://`` source. ``auto`` takes DuckDB where it is installed and the log
            is large, and Polars otherwise.
        url: address of Spark: ``sc://host:port`` of Spark Connect, or ``spark://host:port`` of a cluster's master; on
            this machine without it.
        dataset: dataset of ``[gcp] project`` that BigQuery keeps lines in meanwhile; that of ``[gcp.bigquery]`` without
            it.
        memory_limit: memory that the engine may use, such as ``4GB``; what the engine takes without it.
    """

    name: Literal["auto", "polars", "duckdb", "spark", "bigquery"] = "auto"
    url: Annotated[str, Field(min_length=1)] | None = None
    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,1024}$")] | None = None
    memory_limit: Annotated[str, Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)? ?([MGT]i?B)$")] | None = None

    @model_validator(mode="after")
    def _check_what_is_one_engines(self) -> EngineSettings:
        if self.url is not None and self.name != "spark":
            raise ValueError(f"url is of Spark, and name = {self.name!r} takes none")
        if self.url is not None and not self.url.startswith(("sc://", "spark://", "local")):
            raise ValueError(f"url = {self.url!r} must be sc://host:port, spark://host:port or local[*]")
        if self.dataset is not None and self.name != "bigquery":
            raise ValueError(f"dataset is of BigQuery, and name = {self.name!r} takes none")
        return self

    def with_name(self, name: str) -> EngineSettings:
        """The same, but for the engine; an address, or a dataset, is only one engine's."""
        others = ("url", "dataset") if name != self.name else ()
        kept = self.model_dump(exclude_unset=True, exclude={"name", *others})
        return EngineSettings.model_validate({**kept, "name": name})


class CleaningSettings(Section):
    """Product-specific rules; a key left out is taken from the source's preset, or is off without one.

    Attributes:
        service_code_max_digits: a product code with at most so many digits is a service, and its lines do not count;
            0 switches the rule off.
        service_descriptions: descriptions that name a service; lines with them do not count.
        cancellation_prefix: how the id of a cancelling invoice starts; without it a negative line is a cancellation.
        duplicates: whether of equal lines of a file only the first counts (``drop``) or all do (``keep``). Without it
            all do where there is no column for the quantity, since each may be one unit. With ``order_amount`` all
            do, or a share of the order's total would be lost. Lines that come again in another file never count.
        negative_prices: whether a negative price is money given back (``keep``) or an entry of the bookkeeping that
            does not count (``reject``).
    """

    service_code_max_digits: Annotated[int, Field(ge=0)] | None = None
    service_descriptions: tuple[str, ...] | None = None
    cancellation_prefix: Annotated[str, Field(min_length=1)] | None = None
    duplicates: Literal["drop", "keep"] | None = None
    negative_prices: Literal["reject", "keep"] | None = None


class SnapshotSettings(Section):
    """How long a period is and how far a snapshot looks back; fixed when a home is made.

    Attributes:
        cadence: length of a period.
        lookback: periods in the observation window of a snapshot; ``all`` looks back to the first.
    """

    cadence: Cadence = "monthly"
    lookback: Lookback = 6

    @field_validator("lookback")
    @classmethod
    def _check_lookback(cls, lookback: Lookback) -> Lookback:
        if lookback != "all" and lookback < 1:
            raise ValueError("must be a number of periods from 1, or 'all'")
        return lookback

    @model_validator(mode="after")
    def _check_span(self) -> SnapshotSettings:
        most = _PERIODS_OF_A_CENTURY[self.cadence]
        if self.lookback != "all" and self.lookback > most:
            raise ValueError(f"lookback = {self.lookback} {self.cadence} periods must be at most {most}, or 'all'")
        return self


class ModelSettings(Section):
    """What K-means sees, which k are tried, and what makes one eligible.

    Attributes:
        kind: what challengers are: ``kmeans``; ``gaussian_mixture``, whose clusters may be long, small or large; or
            ``deep``, K-means in the embedding of a network that sees orders by week as well, see docs/kinds.md. The
            first model is K-means, so that every other kind has to be better.
        features: customer features that the clusters are made of; fixed when a home is made.
        k_range: lowest and highest number of clusters that is tried.
        margin_rule: how much nearer another segment must be for a customer to move at once, a share of the distance to
            its own; with less it moves when the other is nearest twice in a row. With 0 everybody is in the nearest.
        min_bootstrap_ari: lowest mean adjusted Rand index against the bootstrap refits.
        min_jaccard: lowest mean Jaccard index of the least stable cluster.
        min_segment_share: smallest share of a cluster, among the customers that K-means sees.
        min_segment_customers: smallest number of customers in a cluster.
        n_bootstraps: bootstrap refits for each k.
        n_initialisations: starts of each fit, of which the best is kept.
        seed: start of all random numbers; the same seed and data give the same result.
        deep_weeks: weeks before the end of a snapshot whose orders a deep model sees; before the window there are none.
        deep_dimensions: dimensions of its embedding.
        deep_epochs: passes over the customers by which its network is trained.
        deep_refits: networks that are trained on resamples, for its stability.
    """

    kind: ModelKind = "kmeans"
    features: tuple[str, ...] = ("recency_days", "frequency_orders", "monetary_net")
    k_range: tuple[int, int] = (3, 8)
    margin_rule: Annotated[float, Field(ge=0, lt=1)] = 0.6
    min_bootstrap_ari: Share = 0.8
    min_jaccard: Share = 0.6
    min_segment_share: Share = 0.02
    min_segment_customers: Annotated[int, Field(ge=1)] = 50
    n_bootstraps: Annotated[int, Field(ge=2)] = 20
    n_initialisations: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0)] = 20101201
    deep_weeks: Annotated[int, Field(ge=4, le=99)] = 26
    deep_dimensions: Annotated[int, Field(ge=2, le=32)] = 4
    deep_epochs: Annotated[int, Field(ge=1)] = 40
    deep_refits: Annotated[int, Field(ge=2)] = 5

    @field_validator("features")
    @classmethod
    def _check_features(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in features if name not in SCALABLE_FEATURES]
        if unknown or not features or len(set(features)) < len(features):
            raise ValueError(f"must be different names from {', '.join(SCALABLE_FEATURES)}")
        return features

    @model_validator(mode="after")
    def _check_range(self) -> ModelSettings:
        low, high = self.k_range
        if not 2 <= low <= high <= 30:
            raise ValueError(f"k_range {[low, high]} must be [lowest, highest] with 2 <= lowest <= highest <= 30")
        return self

    def of_training(self) -> dict[str, Any]:
        """What a first model depends on, as JSON values; it is K-means, whatever challengers are."""
        others = {name for name in ModelSettings.model_fields if name.startswith("deep_")}
        return self.model_dump(mode="json", exclude={"margin_rule", "kind", *others})

    def of_challenger(self) -> dict[str, Any]:
        """What a trainer is told, as JSON values: all but how customers are placed by the model in force.

        What only other kinds have is left out, so that a trainer of before there were any understands the rest.
        """
        if self.kind == "kmeans":
            return self.of_training()
        deep = {name for name in ModelSettings.model_fields if name.startswith("deep_")}
        return self.model_dump(mode="json", exclude={"margin_rule", *(deep if self.kind != "deep" else ())})

    def limits(self) -> Limits:
        """What makes a k eligible, for the domain."""
        return Limits(
            min_bootstrap_ari=self.min_bootstrap_ari,
            min_jaccard=self.min_jaccard,
            min_share=self.min_segment_share,
            min_customers=self.min_segment_customers,
        )


class TrainingSettings(Section):
    """How a trainer is run on this machine.

    Attributes:
        timeout_minutes: minutes after which a trainer is stopped; the champion then stays.
        deep_python: interpreter of the environment that a deep model is trained in; the pipeline's own without it.
    """

    timeout_minutes: Annotated[float, Field(gt=0, le=1e6)] = 60.0
    deep_python: Annotated[str, Field(min_length=1)] | None = None


class RecommendationSettings(Section):
    """What is offered to a customer.

    Attributes:
        n_items: products for each customer.
        half_life_days: days after which a purchase counts half in what is popular lately.
    """

    n_items: Annotated[int, Field(ge=1, le=100)] = 3
    half_life_days: Annotated[float, Field(gt=0)] = 10.0


class PredictionSettings(Section):
    """How long the service's prediction log is kept.

    Attributes:
        keep_days: days that a record is kept.
    """

    keep_days: Annotated[int, Field(ge=14)] = 400


class VersionSettings(Section):
    """Exports of promoted models to a git repository, whose large files DVC keeps.

    Attributes:
        dvc: whether each model is exported by itself once it is promoted.
        repository: folder in the git repository that models are exported to; ``dvc = true`` needs one, and without it
            commands take the working folder.
        remote: name of the DVC remote that large files are sent to; DVC's default one without it.
        executable: the command ``dvc``; the one on the ``PATH`` without it.
    """

    dvc: bool = False
    repository: Path | None = None
    remote: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] | None = None
    executable: Path | None = None

    @field_validator("repository", "executable")
    @classmethod
    def _make_absolute(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()

    @model_validator(mode="after")
    def _check_repository(self) -> VersionSettings:
        if self.dvc and self.repository is None:
            raise ValueError("a repository in [versions], too, with dvc = true")
        return self


class TrackingSettings(Section):
    """Where MLflow keeps runs and models.

    Attributes:
        uri: address of the tracking server or database; an SQLite file in the home without it.
        experiment: name of the experiment that runs are recorded in.
        registered_model: name that the models are registered under.
    """

    uri: str | None = None
    experiment: str = "custseg"
    registered_model: str = "custseg-segmentation"


class AutomationSettings(Section):
    """What runs by itself under ``custseg ui``.

    Attributes:
        enabled: whether sensors and the schedule are on when the pages are first opened; each can be switched there.
        interval_seconds: seconds between two looks of a sensor.
        grace_hours: hours after the end of a period (UTC) before the clock closes it: how late its last files may come.
            Data of the next period close it at once.
        present_hours: hours between two updates of the snapshot of a period that is not over.
        max_attempts: runs that may fail on the same data before a person has to look.
    """

    enabled: bool = True
    interval_seconds: Annotated[int, Field(ge=5)] = 30
    grace_hours: Annotated[int, Field(ge=0, le=23)] = 6
    present_hours: Annotated[int, Field(ge=0)] = 24
    max_attempts: Annotated[int, Field(ge=1)] = 2


class GcpTrainingSettings(Section):
    """How challengers are trained on Vertex AI; without an image they are trained on this machine.

    Attributes:
        image: container image of the trainer.
        machine_type: Compute Engine machine type of a job.
        accelerator_type: kind of accelerator, such as ``NVIDIA_TESLA_T4``; needs an ``accelerator_count`` from 1.
        accelerator_count: accelerators of the machine; above 0 it needs an ``accelerator_type``.
        service_account: account that the job runs as; Vertex AI's own agent without it.
        network: full name of a peered VPC network, ``projects/NUMBER/global/networks/NAME``.
        is_spot: whether jobs run on machines that are cheaper and can be taken away.
        timeout_minutes: minutes after which Vertex AI stops a job; at most a week.
        pending_timeout_minutes: minutes that a job may wait for a machine.
        max_cost: USD; a job that could cost more is not started.
        max_cost_per_quarter: USD; drift starts no job that, with those of 92 days before it, could cost more.
        price_per_hour: USD for an hour of the whole machine; a list price without it.
    """

    image: Annotated[str, Field(min_length=1)] | None = None
    machine_type: str = "n1-standard-4"
    accelerator_type: str | None = None
    accelerator_count: Annotated[int, Field(ge=0, le=16)] = 0
    service_account: str | None = None
    network: str | None = None
    is_spot: bool = False
    timeout_minutes: Annotated[float, Field(gt=0, le=7 * 24 * 60)] = 60.0
    pending_timeout_minutes: Annotated[float, Field(gt=0, le=1e6)] = 30.0
    max_cost: Annotated[float, Field(ge=0)] = 5.0
    max_cost_per_quarter: Annotated[float, Field(ge=0)] = 10.0
    price_per_hour: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check_accelerators(self) -> GcpTrainingSettings:
        if (self.accelerator_type is None) != (self.accelerator_count == 0):
            raise ValueError("accelerator_type and an accelerator_count from 1 come together or not at all")
        return self


class GcpDataprocSettings(Section):
    """How lines are classified as a batch of Dataproc Serverless; without an image they are on the pipeline's machine.

    Attributes:
        image: container image with custseg in it, that Dataproc puts Spark into.
        min_lines: lines from which on they are classified there; fewer are on the pipeline's machine.
        runtime_version: version of Dataproc Serverless, which decides that of Spark.
        max_executors: executors of a batch at most, each with 4 cores.
        properties: further properties of Spark, such as ``"spark.executor.memory" = "24g"``.
        service_account: account that a batch runs as; the project's Compute Engine default without it.
        subnetwork: name of the subnetwork, with Private Google Access; the network ``default`` without it.
        timeout_minutes: minutes after which Dataproc stops a batch; at least 10 and at most two weeks.
        pending_timeout_minutes: minutes that a batch may wait for machines.
        max_cost: USD; a batch that could cost more is not started.
        price_per_dcu_hour: USD for an hour of a Data Compute Unit; a list price without it.
    """

    image: Annotated[str, Field(min_length=1)] | None = None
    min_lines: Annotated[int, Field(ge=1)] = 50_000_000
    runtime_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+$")] = "3.0"
    max_executors: Annotated[int, Field(ge=2, le=2000)] = 8
    properties: dict[str, str] = Field(default_factory=dict)
    service_account: str | None = None
    subnetwork: str | None = None
    timeout_minutes: Annotated[float, Field(ge=10, le=14 * 24 * 60)] = 120.0
    pending_timeout_minutes: Annotated[float, Field(gt=0, le=1e6)] = 30.0
    max_cost: Annotated[float, Field(ge=0)] = 10.0
    price_per_dcu_hour: Annotated[float, Field(gt=0)] | None = None

    @field_validator("properties")
    @classmethod
    def _check_properties(cls, properties: dict[str, str]) -> dict[str, str]:
        for name in properties:
            if not name.startswith("spark."):
                raise ValueError(f"{name!r} is no property of Spark; their names begin with 'spark.'")
            if name.startswith(_COUNTED_PROPERTIES):
                raise ValueError(f"{name} is decided by max_executors, which a batch's cost is worked out from")
        return properties


class GcpServingSettings(Section):
    """The model and the existing endpoint of Vertex AI that ``custseg vertex`` deploys releases to.

    Attributes:
        image: container image of the service, which reads the release that the model names.
        model_id: id of the model whose versions are releases.
        endpoint: number or full name of an existing endpoint; none is ever made.
        machine_type: Compute Engine machine type of a replica.
        n_replicas: replicas of a version, whatever the traffic.
        service_account: account that the container runs as; Vertex AI's own agent without it.
        canary_percent: percent of the traffic that a new version gets first.
    """

    image: Annotated[str, Field(min_length=1)] | None = None
    model_id: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9_-]{0,61}[a-z0-9])?$")] = "custseg-segmentation"
    endpoint: str | None = None
    machine_type: str = "n1-standard-2"
    n_replicas: Annotated[int, Field(ge=1)] = 1
    service_account: str | None = None
    canary_percent: Annotated[int, Field(ge=1, le=99)] = 10


class GcpStorageSettings(Section):
    """A bucket for what the home shares with other machines.

    Attributes:
        uri: ``gs://bucket/prefix`` of the releases, a landing zone and the service's prediction log.
        tables: whether the pipeline's tables are in the bucket, not on the home's disk; fixed when a home is made.
    """

    uri: Annotated[str, Field(pattern=r"^gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[A-Za-z0-9._-]+)*$")] | None = None
    tables: bool = False

    @model_validator(mode="after")
    def _check_uri(self) -> GcpStorageSettings:
        if self.tables and self.uri is None:
            raise ValueError("tables needs a uri in [gcp.storage], too")
        return self


class GcpBigQuerySettings(Section):
    """How BigQuery is read from and published to.

    Attributes:
        dataset: dataset that tables are published to; nothing is published without it.
        maximum_gib_billed: GiB that one query on a source may bill at most.
        since: first day of the lines that are read from a ``bq://`` source.
        time_zone: time zone of the shop, for a source whose instants are timestamps; that of ``[source]`` goes first.
        looker_report: id of a Looker Studio report to copy for the published views.
    """

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,1024}$")] | None = None
    maximum_gib_billed: Annotated[float, Field(gt=0)] = 100.0
    since: date | None = None
    time_zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+/-]+$")] = "UTC"
    looker_report: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None = None


class GcpEndpointSettings(Section):
    """Addresses of Google's services other than their own, such as fakes; no credentials are sent there.

    Attributes:
        aiplatform: address of Vertex AI.
        storage: address of Cloud Storage.
        bigquery: address of BigQuery; its results come over REST only unless ``bigquery_storage`` is set, too.
        bigquery_storage: address of BigQuery's Storage Read API, ``host:port``.
        registry: address of the registry of images.
        dataproc: address of Dataproc.
    """

    aiplatform: str | None = None
    dataproc: str | None = None
    storage: str | None = None
    bigquery: str | None = None
    bigquery_storage: str | None = None
    registry: str | None = None


class GcpSettings(Section):
    """Google Cloud; nothing of it is used, nor imported, without a project.

    Attributes:
        project: id of the project that queries and jobs are billed to.
        location: region of the jobs and the bucket, such as ``europe-west1``.
        bucket: name of the bucket for what is passed to jobs and back.
        prefix: what every name in that bucket starts with.
    """

    project: Annotated[str, Field(min_length=1)] | None = None
    location: Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)+[0-9]$")] | None = None
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")] | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]*$")] = "custseg"
    training: GcpTrainingSettings = GcpTrainingSettings()
    dataproc: GcpDataprocSettings = GcpDataprocSettings()
    serving: GcpServingSettings = GcpServingSettings()
    storage: GcpStorageSettings = GcpStorageSettings()
    bigquery: GcpBigQuerySettings = GcpBigQuerySettings()
    endpoints: GcpEndpointSettings = GcpEndpointSettings()

    @model_validator(mode="after")
    def _check_completeness(self) -> GcpSettings:
        missing = [name for name in ("project", "location", "bucket") if getattr(self, name) is None]
        if (self.training.image or self.serving.image or self.dataproc.image) and missing:
            raise ValueError(f"an image needs {', '.join(missing)} in [gcp], too")
        if self.project is None and (self.location or self.bucket):
            raise ValueError("location and bucket need a project in [gcp], too")
        return self


class Settings(Section):
    """Everything that can be configured.

    Attributes:
        home: folder that holds everything that is made; from the environment only.
        ui_port: port of the pages that started this process; ``custseg ui`` sets it in the environment.
        ui_token: who has it may use those pages; ``custseg ui`` makes a new one at every start where none is set.
        alert_webhook: http or https address that alerts are posted to; a secret, so from the environment only.
        source_password: password for the database that the source is in; a secret, so from the environment only.
        signing_key: file of the private key that releases are signed with; keep it where the bucket is not.
    """

    home: Path = Path(DEFAULT_HOME)
    source: SourceSettings = SourceSettings()
    cleaning: CleaningSettings = CleaningSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    recommendations: RecommendationSettings = RecommendationSettings()
    drift: DriftSettings = DriftSettings()
    retrain: RetrainRules = RetrainRules()
    promotion: PromotionLimits = PromotionLimits()
    predictions: PredictionSettings = PredictionSettings()
    versions: VersionSettings = VersionSettings()
    tracking: TrackingSettings = TrackingSettings()
    landing: LandingSettings = LandingSettings()
    reading: ReadingSettings = ReadingSettings()
    engine: EngineSettings = EngineSettings()
    automation: AutomationSettings = AutomationSettings()
    ui_port: int | None = None
    ui_token: SecretStr | None = None
    alert_webhook: SecretStr | None = None
    source_password: SecretStr | None = None
    signing_key: Path | None = None
    gcp: GcpSettings = GcpSettings()

    @field_validator("drift", mode="before")
    @classmethod
    def _complete_effects(cls, drift: Any) -> Any:
        """Fill in the effect sizes that a table leaves out; ``min_effect`` and ``large_effect`` have different ones."""
        if not isinstance(drift, dict):
            return drift
        defaults = {name: value for name, value in asdict(DriftSettings()).items() if isinstance(value, dict)}
        given = {name: drift[name] for name in defaults if isinstance(drift.get(name), dict)}
        return {**drift, **{name: {**defaults[name], **table} for name, table in given.items()}}

    @field_validator("alert_webhook")
    @classmethod
    def _check_address(cls, webhook: SecretStr | None) -> SecretStr | None:
        if webhook and not webhook.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("must be an http or https address")
        return webhook


def settings_file(
    config: str | Path | None = None,
    *,
    home: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    has_home: bool = True,
) -> Path | None:
    """The file that settings are read from; ``None`` where there is none.

    Args:
        config: the file; ``CUSTSEG_CONFIG``, ``custseg.toml`` in the working folder, then the home's own without it.
        home: wins over ``CUSTSEG_HOME``.
        environment: variables to read, the process' own by default.
        has_home: whether the home's own file counts.
    """
    variables = os.environ if environment is None else environment
    if named := config or variables.get(CONFIG_VARIABLE):
        return Path(named)
    folders = (Path(), home_folder(home, variables)) if has_home else (Path(),)
    return next((path for folder in folders if (path := folder / DEFAULT_CONFIG).exists()), None)


def load_settings(
    config: str | Path | None = None,
    *,
    source: str | None = None,
    home: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    has_home: bool = True,
) -> Settings:
    """Settings from the command line, the environment, the file and the defaults, in that order.

    Args:
        config: the file; see ``settings_file``.
        source: a path or ``demo``; wins over the file's.
        home: wins over ``CUSTSEG_HOME``.
        environment: variables to read, the process' own by default.
        has_home: whether the home's own settings count where no file is named; not for data that are not its own.

    Raises:
        BadInputError: the file is missing or unreadable, or has unknown keys or impossible values.
    """
    variables = os.environ if environment is None else environment
    found = settings_file(config, home=home, environment=variables, has_home=has_home)
    path = found or Path(DEFAULT_CONFIG)
    fields: dict[str, Any] = _read_toml(path) if found else {}
    for name, variable in FROM_ENVIRONMENT.items():
        if name in fields:
            raise BadInputError(f"{path}: key {name!r}", "sections only", f"Set the variable {variable} instead.")
        if value := variables.get(variable):
            fields[name] = value
    fields["home"] = home_folder(home, variables)
    wanted_source = source or variables.get(SOURCE_VARIABLE)
    if wanted_source and isinstance(fields.setdefault("source", {}), dict):
        fields["source"]["path"] = wanted_source
    # Before anything is checked: an error shows what it found.
    _refuse_passwords(fields)
    _refuse_impossible_values(path, fields)
    try:
        return Settings.model_validate(fields)
    except ValidationError as error:
        raise _explain(path, fields, error) from None


def home_folder(home: str | Path | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """The home's folder: the one that is given, else the one that ``CUSTSEG_HOME`` names, else ``.custseg``."""
    variables = os.environ if environment is None else environment
    return Path(home or variables.get(HOME_VARIABLE) or DEFAULT_HOME).absolute()


_HIDDEN = r"(?i)[?&;](password|passwd|pwd|passphrase|sslpassword|token|secret|private_?key)="
_FILE_ADDRESS = r"(?i)(duckdb|sqlite3?)://"


def refuse_password(address: str) -> None:
    """Refuse a password inside an address: files, errors and lists of processes would show it.

    Raises:
        BadInputError: there is one; the message has nothing of the address but what it begins with.
    """
    scheme, separator, rest = address.partition("://")
    # The last @ and not the first: a password may have one, and it may have a slash, too.
    user, at, _ = rest.rpartition("@")
    has_password = bool(separator and at and ":" in user) and not re.match(_FILE_ADDRESS, address)
    if has_password or (separator and re.search(_HIDDEN, rest)):
        raise BadInputError(
            f"the source {scheme}://… has a password in it",
            "an address without one, such as postgresql://user@host/database",
            f"Take it out of the address and set the variable {PASSWORD_VARIABLE}.",
        )


def _refuse_passwords(fields: Mapping[str, Any]) -> None:
    section = fields.get("source")
    path = section.get("path") if isinstance(section, dict) else section
    if isinstance(path, str):
        refuse_password(path)


def _refuse_impossible_values(path: Path, value: Any, where: tuple[str, ...] = ()) -> None:
    """Refuse what no key can have, and some libraries would end at."""
    if isinstance(value, dict):
        for name, each in value.items():
            _refuse_impossible_values(path, each, (*where, str(name)))
    elif isinstance(value, list):
        for each in value:
            _refuse_impossible_values(path, each, where)
    elif isinstance(value, str) and "\0" in value:
        raise BadInputError(f"{path}: {_dotted(where)} = {value!r}", "text without zero bytes", "Correct the value.")
    elif isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise BadInputError(
            f"{path}: {_dotted(where)} = {value}", f"a number up to {_LARGEST_NUMBER:,}", "Correct the value."
        )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"configuration {path}: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}",
            "a readable TOML file",
            "Name an existing file with --config, or leave it out for the defaults.",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"configuration {path}: {error}", "valid TOML", "Correct that line.") from None


def _explain(path: Path, fields: dict[str, Any], error: ValidationError) -> BadInputError:
    """The first thing wrong with a configuration, in one line, with what would have been accepted."""
    first, *others = error.errors()
    where, expected = first["loc"], [first["msg"]]
    given: Any = first["input"]
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown_key(path, where)
    if first["type"] == "value_error":
        # One of the checks here or in the domain: what they were given has defaults filled in.
        given = fields
        for part in where:
            given = given[part]
    if _has_alternatives(where[:-1]):
        # One error for each type that the value could have had, with the type's name at the end.
        where = where[:-1]
        expected += [other["msg"] for other in others if other["loc"][:-1] == where]
    messages = [message.removeprefix("Value error, ") for message in expected]
    # The address of a webhook is a secret: nobody reads it in an error.
    got = WEBHOOK_VARIABLE if where == ("alert_webhook",) else f"{path}: {_dotted(where)} = {given!r}"
    return BadInputError(
        got, ", or ".join(message[0].lower() + message[1:] for message in messages), "Correct the value."
    )


def _unknown_key(path: Path, where: tuple[int | str, ...]) -> BadInputError:
    accepted = [name for name in _keys_of(_type_at(where[:-1])) if name not in FROM_ENVIRONMENT]
    todo = did_you_mean(str(where[-1]), accepted) or "Remove it."
    return BadInputError(f"{path}: unknown key {_dotted(where)!r}", f"one of {', '.join(accepted)}", todo)


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _has_alternatives(location: tuple[int | str, ...]) -> bool:
    """Whether what stands there in the configuration may be of several types."""
    expected = _type_at(location)
    return get_origin(expected) in (Union, UnionType) and len(set(get_args(expected)) - {NoneType}) > 1


def _type_at(location: tuple[int | str, ...]) -> Any:
    """The type of what stands there in the configuration; ``None`` inside a value."""
    found: Any = Settings
    for part in location:
        found = _keys_of(found).get(str(part))
    return found


def _keys_of(section: Any) -> dict[str, Any]:
    """The keys of a section with their types; none where it is a value."""
    if is_dataclass(section):
        return get_type_hints(section)
    return {name: field.annotation for name, field in getattr(section, "model_fields", {}).items()}
