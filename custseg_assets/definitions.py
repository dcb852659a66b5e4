"""The code location: assembles assets, checks, jobs and resources, and implements nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from custseg_assets import no_telemetry as telemetry

telemetry.switch_off()

import dagster as dg  # noqa: E402  (Dagster reads its telemetry switch when it is imported)

from custseg_assets.defs.assets import every_asset  # noqa: E402
from custseg_assets.defs.automation import TickSource, every_schedule, every_sensor, latest_arrival  # noqa: E402
from custseg_assets.defs.jobs import every_job  # noqa: E402
from custseg_assets.defs.partitions import layout_of  # noqa: E402
from custseg_assets.defs.resources import locked_home, mlflow_run  # noqa: E402
from custseg_assets.home.open import OpenHome  # noqa: E402
from custseg_assets.home.own_settings import require_own_settings  # noqa: E402
from custseg_assets.settings import Settings, load_settings, settings_file  # noqa: E402
from custseg_assets.training.exchange import TrainingLauncher  # noqa: E402
from custseg_assets.training.local import LocalLauncher  # noqa: E402

_EXPECTED_TO_ARRIVE = ("raw_transactions", "serving_release")
_DEMO_WORDS = "This is the demo: a made-up shop, in which nobody's customers are."


def build_defs(
    *,
    settings: Settings | None = None,
    home: OpenHome | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    ticks: TickSource | None = None,
) -> dg.Definitions:
    """Fresh definitions for the data a home holds.

    Args:
        settings: from the environment and ``custseg.toml`` by default.
        home: of these settings, where it is open already.
        resource_overrides: resources to use instead of the configured ones, by name.
        ticks: where sensors and the schedule take the time and the instance from; their own tick by default.
    """
    configured = settings or load_settings()
    home, ticks = home or OpenHome(configured), ticks or TickSource()
    with warnings.catch_warnings():
        # Single-run backfills are beta in Dagster 1.13.
        warnings.simplefilter("ignore", dg.BetaWarning)
        layout = layout_of(home.calendar, configured.snapshots)
        assets, jobs = every_asset(layout, configured), {job.name: job for job in every_job()}
        if configured.gcp.project:
            from custseg_assets.defs.assets.bigquery import gcp_assets, gcp_jobs

            assets += gcp_assets(configured)
            jobs |= {job.name: job for job in gcp_jobs(configured)}
        if configured.versions.dvc:
            from custseg_assets.defs.assets.versions import version_assets, version_jobs

            assets += version_assets(configured)
            jobs |= {job.name: job for job in version_jobs(configured)}
        freshness = latest_arrival(configured.snapshots.cadence)

        def with_what_is_here(spec: dg.AssetSpec) -> dg.AssetSpec:
            if spec.key.to_user_string() not in _EXPECTED_TO_ARRIVE:
                return spec
            described = f"{_DEMO_WORDS}\n\n{spec.description}" if home.is_demo else spec.description
            return spec.replace_attributes(freshness_policy=freshness, description=described)

        return dg.Definitions(
            metadata={"home": dg.MetadataValue.path(str(home.paths.root)), "data": _data_in_words(home)},
            assets=dg.map_asset_specs(with_what_is_here, assets),
            jobs=jobs.values(),
            sensors=every_sensor(home, layout, jobs, ticks),
            schedules=every_schedule(home, layout, jobs, ticks),
            resources={
                "home": locked_home(home),
                "mlflow": mlflow_run(home.registry),
                "trainer": launcher_of(configured),
                **(resource_overrides or {}),
            },
            executor=dg.in_process_executor,
        )


def _data_in_words(home: OpenHome) -> str:
    """What the home holds, for the page of the code location."""
    source = home.deliveries.current()
    if source is None:
        return f"none yet: drop files into {home.landing_zone.folder}, or do 'custseg run --source FILE'"
    return _DEMO_WORDS if home.is_demo else source.description or str(home.landing_zone.folder)


def launcher_of(settings: Settings) -> TrainingLauncher:
    """Who trains: Vertex AI where an image is configured for it, a process on this machine otherwise."""
    if settings.gcp.training.image:
        from custseg_assets.gcp.training import VertexLauncher

        return VertexLauncher(settings.gcp)
    python = settings.training.deep_python if settings.model.kind == "deep" else None
    return LocalLauncher(60 * settings.training.timeout_minutes, python)


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads: with the home's own settings, or with those that were given where it has none.

    Raises:
        BadInputError: settings were given that are not the home's own; nobody can be asked here.
    """
    return build_defs(settings=require_own_settings(load_settings(), settings_file()))
