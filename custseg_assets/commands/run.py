"""``custseg run`` and ``custseg retrain``: find out what is out of date and have Dagster make it, stage by stage.

The stages are the asset graph's own jobs over ranges of partitions, all in this process, so a run pays for its imports
once and everything it did is in the history that ``custseg ui`` shows. What has to be made next is decided in
``home.plan``.
"""

from __future__ import annotations

from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from custseg_assets.commands.estimate import estimate_run
from custseg_assets.commands.settings_change import adopt_settings
from custseg_assets.domain.schemas import SEGMENT_ASSIGNMENTS
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.home.campaigns import has_due_campaigns, unexplained_names
from custseg_assets.home.failure import keep_failure
from custseg_assets.home.intake import Intake
from custseg_assets.home.model_exports import due_exports
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.plan import CAMPAIGNS, EXPORT, Stage, due_publication, next_stage, require_retrainable
from custseg_assets.home.staleness import stale_partitions, why_other_model
from custseg_assets.home.unfinished import mark_unfinished, put_back_unfinished
from custseg_assets.stores.prediction_log import finished_files
from custseg_assets.stores.publications import Publications
from custseg_assets.stores.sources import Progress

if TYPE_CHECKING:
    from custseg_assets.instance.execute import JobRunner


_ALWAYS_SHOWN = ("take_in", "prediction_log")
"""Jobs that need not have anything to do; run once all the same, or their assets would look forgotten in the graph."""


class Runner:
    """Brings one home up to date.

    Args:
        home: to bring up to date.
        say: takes each line of progress.

    Attributes:
        other_model: that and why the last run has put another model in the place of the one in force.
    """

    def __init__(self, home: OpenHome, say: Progress) -> None:
        self.home, self.say = home, say
        self.other_model: str | None = None

    @cached_property
    def jobs(self) -> JobRunner:
        """Dagster on this home; importing it takes a second."""
        from custseg_assets.instance.execute import JobRunner

        return JobRunner(self.home, self.say)

    def run(self, through: date | None = None, *, replaces: bool = False) -> int:
        """Take the source in and make every partition that is out of date; then take in what the service recorded.

        Args:
            through: stop at the period that holds this day; the source's last without it.
            replaces: whether the source may take the place of other data, with all that was made of them.

        Returns:
            How many Dagster runs it took; 0 where everything was up to date.

        Raises:
            BadInputError: the source, the home or ``through`` cannot be used; nothing was changed.
            RunFailedError: a step or a blocking check failed; what was made before it stands.
        """
        with self.home.locked() as home, keep_failure(home.paths, "run"):
            last_key = Intake(home, self.say).take_in(through, replaces=replaces)
            self.put_back_unfinished(home)
            promotions = home.champions.promotions
            n_runs = len(self.follow(home, last_key))
            if bucket := home.open_bucket():
                bucket.fetch_predictions(home.paths.prediction_log)
            jobs = ["prediction_log"] if finished_files(home.paths.prediction_log) else []
            if n_runs:
                jobs += [job for job in _ALWAYS_SHOWN if job not in jobs and not self.jobs.has_run(job)]
            jobs += [CAMPAIGNS] * has_due_campaigns(home)
            for name in unexplained_names(home):
                self.say(f"! campaign {name} has no record any more, and nobody of it is held out: 'custseg verify'")
            for job in jobs:
                self.execute(Stage(job), home)
            self.other_model = why_other_model(home, promotions)
            if home.paths.settings_before.exists() and not stale_partitions(home):
                home.paths.settings_before.unlink()
            return n_runs + len(jobs) + self._publish(home) + self.export_models(home)

    def retrain(self) -> None:
        """Train a challenger on the newest closed snapshot, decide about it, and make everything that follows.

        Raises:
            BadInputError: no snapshot is closed yet, there is no model in force, or it came with this very snapshot.
            RunFailedError: a step or a blocking check failed.
        """
        with self.home.locked() as home:
            key = _retrainable_key(home)
            require_retrainable(home, key)
            with keep_failure(home.paths, "retrain"):
                self.begin(home)
                # What a challenger is trained on, and compared with, is up to date.
                self.follow(home, home.newest_snapshot())
                key = _retrainable_key(home)
                require_retrainable(home, key)
                self.execute(Stage("retrain", key, key), home)
                self.follow(home, home.newest_snapshot())
                self.export_models(home)

    def begin(self, home: LockedHome) -> None:
        """What comes before a command that takes no data in writes anything, once nothing refuses it any more."""
        adopt_settings(home)
        self.put_back_unfinished(home)

    def put_back_unfinished(self, home: LockedHome) -> None:
        """Have the plan make again what an earlier command was in the middle of when it ended."""
        if stage := put_back_unfinished(home):
            self.say(f"an earlier run ended in the middle of {stage}; making that again where it is still due")

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

        Raises:
            RunFailedError: a step or a blocking check failed.
        """
        # Before the mark: what cannot even begin leaves none.
        jobs = self.jobs
        with mark_unfinished(home, stage):
            jobs.execute(stage, home, remaining)

    def export_models(self, home: LockedHome) -> int:
        """Export the models that were promoted, where that is configured; a repository that cannot take them is said.

        Returns:
            How many Dagster runs it took.
        """
        if not due_exports(home):
            return 0
        try:
            self.jobs.execute(Stage(EXPORT), home)
        except RunFailedError as error:
            self.say(f"! not exported: {error}; it is tried again with the next run")
            return 0
        return 1

    def _publish(self, home: LockedHome) -> int:
        """Publish what is configured to be; without a marker, so that a destination that fails holds nothing up."""
        if home.settings.gcp.bigquery.dataset is None:
            return 0
        if not due_publication(home, Publications.in_bigquery(home.paths, home.settings)):
            return 0
        self.jobs.execute(Stage("publish"), home)
        return 1


def _retrainable_key(home: OpenHome) -> str:
    """Key of the snapshot that a challenger would be trained on."""
    if key := home.newest_closed_snapshot():
        return key
    if home.calendar.open_key and home.tables.sizes(SEGMENT_ASSIGNMENTS):
        raise BadInputError(
            f"the period {home.newest_snapshot()}, which is not over, has the only snapshot",
            "the snapshot of a period that is over, since models are trained on whole periods",
            "Wait for lines of the next period.",
        )
    raise BadInputError(
        f"home {home.paths.root} has no snapshot with segments",
        "a model in force, which a challenger can be compared with",
        "Do 'custseg run' first; 'custseg status' says why there is no model.",
    )
