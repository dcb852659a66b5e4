"""``custseg run`` and ``custseg retrain``: find out what is out of date and have Dagster make it, stage by stage.

The stages are the asset graph's own jobs over ranges of partitions, all in this process, so a run pays for its imports
once and everything it did is in the history that ``custseg ui`` shows. What has to be made next is decided in
``home.plan``.
"""

from __future__ import annotations

import json
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from custseg_assets.commands.estimate import estimate_run
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.home.failure import keep_failure
from custseg_assets.home.intake import STAGE_MARKER, Intake
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.plan import TABLES_OF_JOB, Stage, due_publication, next_stage, require_retrainable
from custseg_assets.stores.files import replace_text
from custseg_assets.stores.prediction_log import finished_files
from custseg_assets.stores.publications import Publications
from custseg_assets.stores.sources import Progress

if TYPE_CHECKING:
    from custseg_assets.instance.execute import JobRunner


_ALWAYS_SHOWN = ("take_in", "prediction_log")
"""Jobs that need not have anything to do; run once all the same, or their assets would look forgotten in the graph."""

_FIRST_OF_RETRAIN = TABLES_OF_JOB["retrain"][0]


class Runner:
    """Brings one home up to date.

    Args:
        home: to bring up to date.
        say: takes each line of progress.
    """

    def __init__(self, home: OpenHome, say: Progress) -> None:
        self.home, self.say = home, say

    @cached_property
    def jobs(self) -> JobRunner:
        """Dagster on this home; importing it takes a second."""
        from custseg_assets.instance.execute import JobRunner

        return JobRunner(self.home, self.say)

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
        with self.home.locked() as home, keep_failure(home.paths, "run"):
            last_key = Intake(home, self.say).take_in(through)
            n_runs = self._resume(home) + len(self.follow(home, last_key))
            if bucket := home.open_bucket():
                bucket.fetch_predictions(home.paths.prediction_log)
            jobs = ["prediction_log"] if finished_files(home.paths.prediction_log) else []
            if n_runs:
                jobs += [job for job in _ALWAYS_SHOWN if job not in jobs and not self.jobs.has_run(job)]
            for job in jobs:
                self.execute(Stage(job), home)
            return n_runs + len(jobs) + self._publish(home)

    def retrain(self) -> None:
        """Train a challenger on the newest closed snapshot, decide about it, and make everything that follows.

        Raises:
            BadInputError: no snapshot is closed yet, there is no model in force, or it came with this very snapshot.
            RunFailedError: a step or a blocking check failed.
        """
        with self.home.locked() as home:
            newest, key = home.newest_snapshot(), home.newest_closed_snapshot()
            if key is None:
                raise BadInputError(
                    f"the period {newest}, which is not over, has the only snapshot",
                    "the snapshot of a period that is over, since models are trained on whole periods",
                    "Wait for lines of the next period.",
                )
            require_retrainable(home, key)
            with keep_failure(home.paths, "retrain"):
                self.execute(Stage("retrain", key, key), home)
                self.follow(home, newest)

    def follow(self, home: LockedHome, last_key: str) -> list[Stage]:
        """Make everything that is out of date up to a period and its snapshot; returns what was run.

        Raises:
            RunFailedError: a step or a blocking check failed; what was made before it stands.
        """
        done: list[Stage] = []
        while stage := next_stage(home, last_key, last_key):
            if stage in done:
                raise RunFailedError(f"{stage} was made and is still out of date")
            if not done:
                estimate = estimate_run(home, stage, last_key)
            self.execute(stage, home, estimate.before(stage.job))
            done.append(stage)
        return done

    def execute(self, stage: Stage, home: LockedHome, remaining: str = "") -> None:
        """Run one stage, marked as begun until it has ended; what remains to be done is said with it.

        A retrain that fails before it has written anything is over, too: the champion stays, and nothing waits for it.

        Raises:
            RunFailedError: a step or a blocking check failed.
        """
        marker = home.paths.root / STAGE_MARKER
        before = home.tables.version_of(_FIRST_OF_RETRAIN) if stage.job == "retrain" else None
        replace_text(marker, json.dumps(vars(stage)))
        try:
            self.jobs.execute(stage, home, remaining)
        except RunFailedError:
            if stage.job == "retrain" and home.tables.version_of(_FIRST_OF_RETRAIN) == before:
                marker.unlink()
            raise
        marker.unlink()

    def _resume(self, home: LockedHome) -> int:
        """Do again what an earlier run was in the middle of when it ended; how many stages that was."""
        marker = home.paths.root / STAGE_MARKER
        unfinished = Stage(**json.loads(marker.read_text(encoding="utf-8"))) if marker.exists() else None
        if unfinished is None or unfinished.last_key not in home.calendar.period_keys:
            return 0
        self.say(f"an earlier run ended in the middle of {unfinished}; doing that again")
        self.execute(unfinished, home)
        return 1

    def _publish(self, home: LockedHome) -> int:
        """Publish what is configured to be; without a marker, so that a destination that fails holds nothing up."""
        if home.settings.gcp.bigquery.dataset is None:
            return 0
        if not due_publication(home, Publications.in_bigquery(home.paths, home.settings)):
            return 0
        self.jobs.execute(Stage("publish"), home)
        return 1
