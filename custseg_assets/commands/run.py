"""``custseg run``: take files in, find out what is out of date, and have Dagster make it, stage by stage.

The stages are the asset graph's own jobs over ranges of partitions, all in this process, so a run pays for its imports
once and everything it did is in the history that ``custseg ui`` shows.
"""

from __future__ import annotations

import json
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from custseg_assets.errors import RunFailedError
from custseg_assets.home.fingerprints import Provenance
from custseg_assets.home.intake import STAGE_MARKER, Intake, Say
from custseg_assets.home.open import bucket_of, tables_of
from custseg_assets.home.plan import Stage, due_publication, next_stage
from custseg_assets.settings import Settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.files import replace_text
from custseg_assets.stores.home import Home
from custseg_assets.stores.prediction_log import finished_files
from custseg_assets.stores.publications import Publications
from custseg_assets.stores.tables import TableStore

if TYPE_CHECKING:
    from custseg_assets.instance.execute import Engine


_ALWAYS_SHOWN = ("take_in", "prediction_log")
"""Jobs that need not have anything to do; run once all the same, or their assets would look forgotten in the graph."""


class Runner:
    """Brings one home up to date with its source.

    Args:
        settings: what to run, and where.
        say: takes each line of progress.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        self.settings, self.say = settings, say
        self.home = Home(settings.home)
        self.deliveries = DeliveryStore(self.home.deliveries)

    @cached_property
    def tables(self) -> TableStore:
        """Of the home, which taking a source in may have moved to another place: it starts afresh after the demo."""
        return tables_of(self.settings)

    @property
    def provenance(self) -> Provenance:
        """What is made from what, as the home stands now."""
        return Provenance(self.settings, self.deliveries, self.tables)

    def run(self, through: date | None = None) -> int:
        """Take the source in and make every partition that is out of date; then take in what the service recorded.

        Args:
            through: stop at the period that holds this day; the source's last without it.

        Returns:
            How many Dagster runs it took; 0 where everything was up to date.

        Raises:
            BadInputError: the source, the home or ``through`` cannot be used; nothing was changed.
            RunFailedError: a step or a blocking check failed; what was made before it stands.
        """
        with self.home.locked():
            last_key = self.take_in(through)
            n_runs = len(self._execute_abandoned()) + len(self.follow(last_key, last_key))
            if bucket := bucket_of(self.settings):
                bucket.fetch_predictions(self.home.prediction_log)
            jobs = ["prediction_log"] if finished_files(self.home.prediction_log) else []
            if n_runs:
                jobs += [job for job in _ALWAYS_SHOWN if job not in jobs and not self.engine.has_run(job)]
            for job in jobs:
                self.execute(Stage(job))
            return n_runs + len(jobs) + self._publish()

    def _publish(self) -> int:
        """Publish what is configured to be; without a marker, so that a destination that fails holds nothing up."""
        if self.settings.gcp.bigquery.dataset is None:
            return 0
        publications = Publications.in_bigquery(self.home, self.settings)
        if not due_publication(self.provenance, self.tables, publications):
            return 0
        self.engine.execute(Stage("publish"))
        return 1

    def take_in(self, through: date | None = None) -> str:
        """Read the source and what has landed, and make it the home's; see ``Intake.take_in``."""
        return Intake(self.settings, self.say).take_in(through)

    def _execute_abandoned(self) -> list[Stage]:
        """Do again what an earlier run was in the middle of when it ended."""
        marker = self.home.root / STAGE_MARKER
        abandoned = Stage(**json.loads(marker.read_text(encoding="utf-8"))) if marker.exists() else None
        if abandoned and abandoned.last_key in self.provenance.period_keys:
            self.say(f"an earlier run ended in the middle of {abandoned}; doing that again")
            self.execute(abandoned)
            return [abandoned]
        return []

    def execute(self, stage: Stage) -> None:
        """Run one stage; only for who holds the home's lock.

        Raises:
            RunFailedError: a step or a blocking check failed.
        """
        marker = self.home.root / STAGE_MARKER
        replace_text(marker, json.dumps(vars(stage)))
        self.engine.execute(stage)
        marker.unlink()

    @cached_property
    def engine(self) -> Engine:
        """Dagster on this home; importing it takes a second."""
        from custseg_assets.instance.execute import Engine

        return Engine(self.settings, self.home, self.say)

    def retrain(self) -> Stage:
        """Train a challenger on the newest snapshot, judge it, and make everything that follows.

        Returns:
            What was run first.

        Raises:
            RunFailedError: there is no model in force, it came with this very snapshot, or a step failed.
        """
        with self.home.locked():
            key = self.provenance.released_key()
            stage = Stage("retrain", key, key)
            self.execute(stage)
            self.follow(key, key)
            return stage

    def follow(self, last_period: str, last_snapshot: str) -> list[Stage]:
        """Make everything that is out of date up to a period and a snapshot; only for who holds the home's lock.

        Raises:
            RunFailedError: a step or a blocking check failed; what was made before it stands.
        """
        done: list[Stage] = []
        while stage := next_stage(self.provenance, last_period, last_snapshot, is_released=self.home.is_released()):
            if stage in done:
                raise RunFailedError(f"{stage} was made and is still out of date")
            self.execute(stage)
            done.append(stage)
        return done
