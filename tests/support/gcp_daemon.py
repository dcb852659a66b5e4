"""Do in this process what Dagster's daemon does on a home: evaluate the sensors and run what they request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from custseg_assets.definitions import build_defs
from custseg_assets.defs.automation import TickSource
from custseg_assets.home.open import OpenHome
from custseg_assets.instance.execute import JobRunner
from custseg_assets.settings import Settings

_SENSORS = ("landing", "stale_partitions", "retrain_on_drift", "prediction_log", "publishing")


def run_sensors(settings: Settings, now: datetime) -> Iterator[str]:
    """Evaluate the sensors and run the first request, until no sensor requests a run.

    Args:
        settings: of the home.
        now: the time that the sensors see.

    Returns:
        Each run that succeeded, with the sensor that requested it.

    Raises:
        RunFailedError: a run failed.
    """
    with dg.DagsterInstance.ephemeral() as instance:
        jobs = JobRunner(OpenHome(settings), lambda _: None, instance)
        while True:
            # Loaded again after every run, as the daemon does when there are new periods.
            definitions = build_defs(settings=settings, ticks=TickSource(lambda: now, instance))
            sensor, request = next(_requests(definitions, instance), (None, None))
            if request is None:
                return
            words = f"{request.job_name} {request.partition_key or ''}".strip()
            jobs.launch(definitions, request, words)
            yield f"{words} ({sensor})"


def _requests(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[tuple[str, dg.RunRequest]]:
    loaded = definitions.get_repository_def()
    for sensor in filter(loaded.has_sensor_def, _SENSORS):
        context = dg.build_sensor_context(instance=instance, repository_def=loaded)
        for request in loaded.get_sensor_def(sensor).evaluate_tick(context).run_requests or ():
            yield sensor, request
