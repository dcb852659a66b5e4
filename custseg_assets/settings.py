"""One frozen settings object, and the only reader of ``custseg.toml`` and of ``CUSTSEG_*`` variables.

Precedence: command line over environment over file over defaults. Unknown keys and impossible values are refused
with the accepted ones named.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from custseg_assets.domain.drift import report as drift_report
from custseg_assets.domain.periods import Cadence, Lookback
from custseg_assets.domain.promotion.promotion import PromotionLimits
from custseg_assets.domain.promotion.retraining import RetrainRules
from custseg_assets.domain.schemas import MAPPED_NAMES, SCALABLE_FEATURES
from custseg_assets.domain.segments.clustering import Limits
from custseg_assets.errors import BadInputError

HOME_VARIABLE = "CUSTSEG_HOME"
CONFIG_VARIABLE = "CUSTSEG_CONFIG"
SOURCE_VARIABLE = "CUSTSEG_SOURCE"
UI_PORT_VARIABLE = "CUSTSEG_UI_PORT"
WEBHOOK_VARIABLE = "CUSTSEG_ALERT_WEBHOOK"
_FROM_ENVIRONMENT = {"home": HOME_VARIABLE, "ui_port": UI_PORT_VARIABLE, "alert_webhook": WEBHOOK_VARIABLE}
DEFAULT_HOME = ".custseg"
DEFAULT_CONFIG = "custseg.toml"
DEMO = "demo"

_RETRAIN, _PROMOTION = RetrainRules(), PromotionLimits()

Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSettings(_Section):
    """Where the log is and how it is read."""

    path: str | None = None
    preset: Literal["online_retail"] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    date_format: str | None = None
    encoding: str = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."
    sheet: str | None = None

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(columns) - set(MAPPED_NAMES))
        if unknown:
            raise ValueError(f"no such column: {', '.join(unknown)}; accepted are {', '.join(MAPPED_NAMES)}")
        return columns


class LandingSettings(_Section):
    """Where files may be dropped, and when one is taken to be whole."""

    folder: Path | None = None
    settle_seconds: Annotated[float, Field(ge=0)] = 5.0

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: Path | None) -> Path | None:
        return folder and folder.expanduser().absolute()


class CleaningSettings(_Section):
    """Product-specific rules; a key left out is taken from the source's preset, or is off without one."""

    service_code_max_digits: Annotated[int, Field(ge=0)] | None = None
    service_descriptions: tuple[str, ...] | None = None
    cancellation_prefix: Annotated[str, Field(min_length=1)] | None = None


class SnapshotSettings(_Section):
    """How long a period is and how far a snapshot looks back."""

    cadence: Cadence = "monthly"
    lookback: Lookback = 6

    @field_validator("lookback")
    @classmethod
    def _at_least_one(cls, lookback: Lookback) -> Lookback:
        if lookback != "all" and lookback < 1:
            raise ValueError("must be a number of periods from 1, or 'all'")
        return lookback


class ModelSettings(_Section):
    """What K-means sees, which k are tried, and what makes one eligible."""

    features: tuple[str, ...] = ("recency_days", "frequency_orders", "monetary_net")
    k_range: tuple[int, int] = (3, 8)
    min_bootstrap_ari: Share = 0.8
    min_jaccard: Share = 0.6
    min_segment_share: Share = 0.02
    min_segment_customers: Annotated[int, Field(ge=1)] = 50
    n_bootstraps: Annotated[int, Field(ge=2)] = 20
    n_initialisations: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0)] = 20101201

    @field_validator("features")
    @classmethod
    def _known_features(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in features if name not in SCALABLE_FEATURES]
        if unknown or not features or len(set(features)) < len(features):
            raise ValueError(f"must be different names from {', '.join(SCALABLE_FEATURES)}")
        return features

    @model_validator(mode="after")
    def _ordered_range(self) -> ModelSettings:
        low, high = self.k_range
        if not 2 <= low <= high <= 30:
            raise ValueError(f"k_range {[low, high]} must be [lowest, highest] with 2 <= lowest <= highest <= 30")
        return self

    def limits(self) -> Limits:
        """What makes a k eligible."""
        return Limits(
            min_bootstrap_ari=self.min_bootstrap_ari,
            min_jaccard=self.min_jaccard,
            min_share=self.min_segment_share,
            min_customers=self.min_segment_customers,
        )


class TrainingSettings(_Section):
    """How a trainer is run that is not part of the Dagster run."""

    timeout_minutes: Annotated[float, Field(gt=0)] = 60.0


class RecommendationSettings(_Section):
    """What is offered to a customer."""

    n_items: Annotated[int, Field(ge=1, le=100)] = 3
    half_life_days: Annotated[float, Field(gt=0)] = 10.0


_DRIFT = drift_report.DriftSettings()
Effect = Annotated[float, Field(ge=0)]


class MinEffectSettings(_Section):
    """The smallest score of each kind worth knowing."""

    psi: Effect = _DRIFT.min_effect.psi
    wasserstein: Effect = _DRIFT.min_effect.wasserstein
    share_shift: Effect = _DRIFT.min_effect.share_shift
    correlation_shift: Effect = _DRIFT.min_effect.correlation_shift


class LargeEffectSettings(_Section):
    """The score of each kind from which on an alert is a breach."""

    psi: Effect = _DRIFT.large_effect.psi
    wasserstein: Effect = _DRIFT.large_effect.wasserstein
    share_shift: Effect = _DRIFT.large_effect.share_shift
    correlation_shift: Effect = _DRIFT.large_effect.correlation_shift


class DriftSection(_Section):
    """What counts as drift; ``domain.drift_report.DriftSettings`` says what each key means.

    A false-alarm rate below one in a thousand cannot be told apart from none by the resamples that calibrate it.
    """

    false_alarm_rate: Annotated[float, Field(ge=0.001, le=0.5)] = _DRIFT.false_alarm_rate
    min_effect: MinEffectSettings = MinEffectSettings()
    large_effect: LargeEffectSettings = LargeEffectSettings()
    min_history: Annotated[int, Field(ge=2)] = _DRIFT.min_history
    max_unobserved_share: Share = _DRIFT.max_unobserved_share
    max_blind_lapse: Share = _DRIFT.max_blind_lapse

    @model_validator(mode="after")
    def _ordered_effects(self) -> DriftSection:
        for kind, smallest in self.min_effect.model_dump().items():
            large = getattr(self.large_effect, kind)
            if smallest > large:
                raise ValueError(f"min_effect.{kind} {smallest:g} must not be above large_effect.{kind} {large:g}")
        return self

    def of_report(self) -> drift_report.DriftSettings:
        """The same as drift reports take it."""
        return drift_report.DriftSettings(
            false_alarm_rate=self.false_alarm_rate,
            min_effect=drift_report.Effects(**self.min_effect.model_dump()),
            large_effect=drift_report.Effects(**self.large_effect.model_dump()),
            min_history=self.min_history,
            max_unobserved_share=self.max_unobserved_share,
            max_blind_lapse=self.max_blind_lapse,
        )


class RetrainSettings(_Section):
    """When drift leads to a training; see ``RetrainRules``."""

    is_on: bool = _RETRAIN.is_on
    min_breaches: Annotated[int, Field(ge=1)] = _RETRAIN.min_breaches
    of_last: Annotated[int, Field(ge=1)] = _RETRAIN.of_last
    cooldown_snapshots: Annotated[int, Field(ge=0)] = _RETRAIN.cooldown_snapshots
    max_per_quarter: Annotated[int, Field(ge=0)] = _RETRAIN.max_per_quarter

    @model_validator(mode="after")
    def _possible(self) -> RetrainSettings:
        if self.min_breaches > self.of_last:
            raise ValueError(f"min_breaches {self.min_breaches} must be at most of_last {self.of_last}")
        return self

    def rules(self) -> RetrainRules:
        """The same for the domain."""
        return RetrainRules(**self.model_dump())


class PromotionSettings(_Section):
    """What a challenger must keep, and what counts as better; see ``PromotionLimits``."""

    min_validity_gain: Share = _PROMOTION.min_validity_gain
    max_validity_loss: Share = _PROMOTION.max_validity_loss
    min_fit_gain: Share = _PROMOTION.min_fit_gain
    min_coverage_gain: Share = _PROMOTION.min_coverage_gain
    min_same_segment: Share = _PROMOTION.min_same_segment

    def limits(self) -> PromotionLimits:
        """The same for the domain."""
        return PromotionLimits(**self.model_dump())


class PredictionSettings(_Section):
    """How long the service's prediction log is kept."""

    keep_days: Annotated[int, Field(ge=14)] = 400


class TrackingSettings(_Section):
    """Where MLflow keeps runs and models; an SQLite file in the home without a URI."""

    uri: str | None = None
    experiment: str = "custseg"
    registered_model: str = "custseg-segmentation"


class AutomationSettings(_Section):
    """What runs by itself under ``custseg ui``.

    Attributes:
        enabled: whether sensors and the schedule are on when the pages are first opened; each can be switched there.
        interval_seconds: between two looks of a sensor.
        grace_hours: after its end, before a period is closed: how late the last files of a period come.
        max_attempts: runs that may fail on the same data before a person has to look.
    """

    enabled: bool = True
    interval_seconds: Annotated[int, Field(ge=5)] = 30
    grace_hours: Annotated[int, Field(ge=0, le=23)] = 6
    max_attempts: Annotated[int, Field(ge=1)] = 2


class GcpTrainingSettings(_Section):
    """Where a challenger is trained on Vertex AI; on this machine without an image.

    Attributes:
        service_account: the job runs as; Vertex AI's own agent without it.
        network: full name of a peered VPC network, ``projects/NUMBER/global/networks/NAME``.
        is_spot: on machines that are cheaper and can be taken away.
        pending_timeout_minutes: how long a job may wait for a machine.
        max_cost: a job that could cost more is not started, USD.
        max_cost_per_quarter: drift starts no job that, with those of 92 days before it, could cost more, USD.
        price_per_hour: of the whole machine, USD; a list price by default.
    """

    image: Annotated[str, Field(min_length=1)] | None = None
    machine_type: str = "n1-standard-4"
    accelerator_type: str | None = None
    accelerator_count: Annotated[int, Field(ge=0, le=16)] = 0
    service_account: str | None = None
    network: str | None = None
    is_spot: bool = False
    timeout_minutes: Annotated[float, Field(gt=0, le=7 * 24 * 60)] = 60.0
    pending_timeout_minutes: Annotated[float, Field(gt=0)] = 30.0
    max_cost: Annotated[float, Field(ge=0)] = 5.0
    max_cost_per_quarter: Annotated[float, Field(ge=0)] = 10.0
    price_per_hour: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _counted_accelerators(self) -> GcpTrainingSettings:
        if (self.accelerator_type is None) != (self.accelerator_count == 0):
            raise ValueError("accelerator_type and an accelerator_count from 1 come together or not at all")
        return self


class GcpServingSettings(_Section):
    """Which model and which existing endpoint of Vertex AI a champion is deployed to.

    Attributes:
        image: of the service, which reads the release the model names.
        endpoint: number or full name of an endpoint that is there; none is ever made.
        canary_percent: share of the traffic a new model gets first.
    """

    image: Annotated[str, Field(min_length=1)] | None = None
    model_id: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")] = "custseg-segmentation"
    endpoint: str | None = None
    machine_type: str = "n1-standard-2"
    n_replicas: Annotated[int, Field(ge=1)] = 1
    service_account: str | None = None
    canary_percent: Annotated[int, Field(ge=1, le=99)] = 10


class GcpStorageSettings(_Section):
    """A bucket that releases go to and files come from, besides the home; its tables, where they are wanted there.

    Attributes:
        uri: ``gs://bucket/prefix``; releases, landing zone and the service's prediction log are below it.
        tables: whether the pipeline's tables are below it, too, and not on the home's disk.
    """

    uri: Annotated[str, Field(pattern=r"^gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[A-Za-z0-9._-]+)*$")] | None = None
    tables: bool = False

    @model_validator(mode="after")
    def _somewhere(self) -> GcpStorageSettings:
        if self.tables and self.uri is None:
            raise ValueError("tables needs a uri in [gcp.storage], too")
        return self


class GcpBigQuerySettings(_Section):
    """How BigQuery is read from and published to.

    Attributes:
        dataset: where tables are published; nothing is published without it.
        maximum_gib_billed: the most that one query on a source may bill.
        since: of a ``bq://`` source only lines from this day on are read.
        time_zone: the shop's, for a source whose instants are timestamps.
        looker_report: id of a Looker Studio report to open on the published views.
    """

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,1024}$")] | None = None
    maximum_gib_billed: Annotated[float, Field(gt=0)] = 100.0
    since: date | None = None
    time_zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+/-]+$")] = "UTC"
    looker_report: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None = None


class GcpEndpointSettings(_Section):
    """Where Google's services answer, when not at their own addresses; asked without credentials then."""

    aiplatform: str | None = None
    storage: str | None = None
    bigquery: str | None = None


class GcpSettings(_Section):
    """Google Cloud; nothing of it is used, nor imported, without a project.

    Attributes:
        location: region of the jobs and the bucket, such as ``europe-west1``.
        bucket: for what is passed to jobs and back; ``prefix`` goes before every name in it.
    """

    project: Annotated[str, Field(min_length=1)] | None = None
    location: Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)+[0-9]$")] | None = None
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")] | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]*$")] = "custseg"
    training: GcpTrainingSettings = GcpTrainingSettings()
    serving: GcpServingSettings = GcpServingSettings()
    storage: GcpStorageSettings = GcpStorageSettings()
    bigquery: GcpBigQuerySettings = GcpBigQuerySettings()
    endpoints: GcpEndpointSettings = GcpEndpointSettings()

    @model_validator(mode="after")
    def _complete(self) -> GcpSettings:
        missing = [name for name in ("project", "location", "bucket") if getattr(self, name) is None]
        if (self.training.image or self.serving.image) and missing:
            raise ValueError(f"an image needs {', '.join(missing)} in [gcp], too")
        if self.project is None and (self.location or self.bucket):
            raise ValueError("location and bucket need a project in [gcp], too")
        return self


class Settings(_Section):
    """Everything that can be configured.

    Attributes:
        home: folder that holds everything that is made.
        ui_port: of the pages that started this process; from the environment.
        alert_webhook: where alerts are posted; a secret, so from the environment only.
    """

    home: Path = Path(DEFAULT_HOME)
    source: SourceSettings = SourceSettings()
    cleaning: CleaningSettings = CleaningSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    recommendations: RecommendationSettings = RecommendationSettings()
    drift: DriftSection = DriftSection()
    retrain: RetrainSettings = RetrainSettings()
    promotion: PromotionSettings = PromotionSettings()
    predictions: PredictionSettings = PredictionSettings()
    tracking: TrackingSettings = TrackingSettings()
    landing: LandingSettings = LandingSettings()
    automation: AutomationSettings = AutomationSettings()
    ui_port: int | None = None
    alert_webhook: SecretStr | None = None

    @field_validator("alert_webhook")
    @classmethod
    def _is_address(cls, webhook: SecretStr | None) -> SecretStr | None:
        if webhook and not webhook.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("must be an http or https address")
        return webhook

    gcp: GcpSettings = GcpSettings()


def load_settings(
    config: str | Path | None = None,
    *,
    source: str | None = None,
    home: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from the command line, the environment, the file and the defaults, in that order.

    Args:
        config: the file; ``CUSTSEG_CONFIG``, then ``custseg.toml`` in the working folder where it exists.
        source: a path or ``demo``; wins over the file's.
        home: wins over ``CUSTSEG_HOME``.
        environment: variables to read, the process' own by default.

    Raises:
        BadInputError: the file is missing or unreadable, or has unknown keys or impossible values.
    """
    variables = os.environ if environment is None else environment
    named = config or variables.get(CONFIG_VARIABLE)
    path = Path(named or DEFAULT_CONFIG)
    fields: dict[str, Any] = _read_toml(path) if named or path.exists() else {}
    for name, variable in _FROM_ENVIRONMENT.items():
        if name in fields:
            raise BadInputError(f"{path}: key {name!r}", "sections only", f"Set the variable {variable} instead.")
        if value := variables.get(variable):
            fields[name] = value
    fields["home"] = Path(home or variables.get(HOME_VARIABLE) or DEFAULT_HOME).absolute()
    wanted_source = source or variables.get(SOURCE_VARIABLE)
    if wanted_source:
        fields["source"] = {**fields.get("source", {}), "path": wanted_source}
    try:
        return Settings.model_validate(fields)
    except ValidationError as error:
        raise _explained(path, error) from None


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


def _explained(path: Path, error: ValidationError) -> BadInputError:
    """The first thing wrong with a configuration, in one line, with what would have been accepted."""
    first, *others = error.errors()
    where, expected = first["loc"], [first["msg"]]
    if _has_alternatives(where[:-1]):
        # One error for each type that the value could have had, with the type's name at the end.
        where = where[:-1]
        expected += [other["msg"] for other in others if other["loc"][:-1] == where]
    key = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        accepted = list(_section_at(first["loc"][:-1]))
        near = difflib.get_close_matches(str(first["loc"][-1]), accepted, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Remove it."
        return BadInputError(f"{path}: unknown key {key!r}", f"one of {', '.join(accepted)}", hint)
    messages = [message.removeprefix("Value error, ") for message in expected]
    return BadInputError(
        f"{path}: {key} = {first['input']!r}",
        ", or ".join(message[0].lower() + message[1:] for message in messages),
        "Correct the value.",
    )


def _has_alternatives(location: tuple[int | str, ...]) -> bool:
    """Whether what stands there in the configuration may be of several types."""
    expected: Any = Settings
    for part in location:
        fields = getattr(expected, "model_fields", {})
        expected = fields[part].annotation if part in fields else None
    is_union = get_origin(expected) in (Union, UnionType)
    return is_union and len(set(get_args(expected)) - {NoneType}) > 1


def _section_at(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Settings
    for part in location:
        section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return [name for name in section.model_fields if name not in _FROM_ENVIRONMENT]
