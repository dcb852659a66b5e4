"""What assets are handed: the locked home, and MLflow's run context."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.stores.registry import ModelRegistry

_PATIENCE_SECONDS = 600.0
"""How long a run waits for ``custseg run`` to leave the home; that takes minutes at most."""


def locked_home(home: OpenHome) -> dg.ResourceDefinition:
    """The home for a Dagster run, which has it to itself.

    A home that is locked already, by the command that executes the run, is used as it is.
    """

    @dg.resource(description="Tables, deliveries, releases and models of the home.")
    def resource(context: dg.InitResourceContext) -> Iterator[LockedHome]:
        if isinstance(home, LockedHome):
            yield home
            return
        if (user := home.paths.user()) and context.log:
            waits = "Waiting: home %s is in use by %s. This run goes on when that ends, and fails after %.0f minutes."
            context.log.warning(waits, home.paths.root, user, _PATIENCE_SECONDS / 60)
        run = context.run
        who = f"Dagster run {run.run_id[:8]} of {run.job_name}" if run else None
        with home.locked(_PATIENCE_SECONDS, who) as locked:
            yield locked

    return resource


class TrainingRun:
    """The MLflow run of a Dagster run, started when something is first trained in it.

    Args:
        start: starts it and returns dagster-mlflow's handle.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._handle: Any = None

    @property
    def run_id(self) -> str:
        """Of the run, which is started by asking."""
        if self._handle is None:
            self._handle = self._start()
        return str(self._handle.active_run().info.run_id)

    def end(self, status: str, **tags: str) -> None:
        """End the run, if one was started and has not ended."""
        if self._handle is not None and self._handle.active_run() is not None:
            self._handle.set_tags(tags)
            self._handle.end_run(status=status)


def mlflow_run(registry: ModelRegistry) -> dg.ResourceDefinition:
    """dagster-mlflow's run context: one MLflow run for every Dagster run that trains.

    It is imported when a run first trains, because it imports all of MLflow. The asset that decides ends the MLflow
    run; one that is still active when the Dagster run is over has failed.
    """
    config_schema = {
        "experiment_name": dg.Field(str, default_value=registry.experiment),
        "mlflow_tracking_uri": dg.Field(str, default_value=registry.uri),
        "env": dg.Field(dg.Permissive(), default_value={}),
        "extra_tags": dg.Field(dg.Permissive(), default_value={}),
    }

    @dg.resource(config_schema=config_schema, description="MLflow run of the Dagster run, through dagster-mlflow.")
    def mlflow(context: dg.InitResourceContext) -> Iterator[TrainingRun]:
        def start() -> Any:
            registry.prepare()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", dg.BetaWarning)
                from dagster_mlflow import mlflow_tracking

                context_of_run: Any = mlflow_tracking.resource_fn
                return next(context_of_run(context))

        run = TrainingRun(start)
        yield run
        run.end("FAILED")

    return mlflow
