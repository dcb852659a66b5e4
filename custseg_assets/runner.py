"""``custseg run``: take the source in, find out what is out of date, and have Dagster make it, stage by stage.

The stages are the asset graph's own jobs over ranges of partitions, all in this process, so a run pays for its imports
once and everything it did is in the history that ``custseg ui`` shows.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custseg_assets.domain.demo import DEFAULT_SEED, generate_demo
from custseg_assets.domain.periods import key_of, keys_between, period_start
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.planning import Stage, next_stage
from custseg_assets.provenance import Provenance
from custseg_assets.settings import DEMO, Settings
from custseg_assets.stores.deliveries import Delivery, DeliveryStore
from custseg_assets.stores.home import Home, replace_text
from custseg_assets.stores.sources import list_source_files
from custseg_assets.stores.tables import TableStore

if TYPE_CHECKING:
    from custseg_assets.engine import Engine

Say = Callable[[str], None]

_MARKER = "stage.json"
_DEMO_VERSION = 1
"""Raise it when the generator makes other lines for the same seed."""


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
        self.tables = TableStore(self.home.tables)
        self._engine: Engine | None = None

    @property
    def provenance(self) -> Provenance:
        """What is made from what, as the home stands now."""
        return Provenance(self.settings, self.deliveries, self.tables)

    def run(self, through: date | None = None) -> int:
        """Take the source in and make every partition that is out of date.

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
            done = self._execute_abandoned()
            while stage := next_stage(self.provenance, last_key):
                if stage in done:
                    raise RunFailedError(f"{stage} was made and is still out of date")
                self._execute(stage)
                done.append(stage)
            return len(done)

    def take_in(self, through: date | None = None) -> str:
        """Read the source, unless its content is known already, and make it the home's.

        Returns:
            Key of the last period to make.

        Raises:
            BadInputError: the source, the home or ``through`` cannot be used; nothing was changed.
        """
        wanted = self.settings.source.path
        current = self.deliveries.current()
        source = wanted or (current.description if current else DEMO)
        is_first = current is None or current.description == DEMO != source
        with _unchanged_if_refused(self.deliveries.root):
            accepted = take_in_source(self.deliveries, source, self.settings, self.say)
            last_key = self._last_key(accepted, through)
            if not is_first:
                self._require_same_shape()
                self._refuse_loss(source, accepted)
        if current and is_first:
            self.say("the home held the demo; it starts afresh for your data")
            self._start_afresh()
        replace_text(self._shape_file(), json.dumps(_shape_of(self.settings)))
        self.deliveries.set_current([delivery.id for delivery in accepted], source)
        return last_key

    def _execute_abandoned(self) -> list[Stage]:
        """Do again what an earlier run was in the middle of when it ended."""
        marker = self.home.root / _MARKER
        abandoned = Stage(**json.loads(marker.read_text(encoding="utf-8"))) if marker.exists() else None
        if abandoned and abandoned.last_key in self.provenance.period_keys:
            self.say(f"an earlier run ended in the middle of {abandoned}; doing that again")
            self._execute(abandoned)
            return [abandoned]
        return []

    def _last_key(self, accepted: Sequence[Delivery], through: date | None) -> str:
        first, last = _days_of(accepted)
        cadence = self.settings.snapshots.cadence
        key = key_of(period_start(through or last, cadence))
        if key not in keys_between(first, last, cadence):
            raise BadInputError(
                f"--through {through}",
                f"a day the data cover, {first} to {last}",
                "Name one of those, or leave it out.",
            )
        return key

    def _execute(self, stage: Stage) -> None:
        marker = self.home.root / _MARKER
        replace_text(marker, json.dumps(vars(stage)))
        if self._engine is None:
            from custseg_assets.engine import Engine

            self._engine = Engine(self.settings, self.home, self.say)
        self._engine.execute(stage)
        marker.unlink()

    def _start_afresh(self) -> None:
        """Remove what was made of the demo; what was just taken in stays."""
        for folder in (self.home.tables, self.home.releases, self.home.data_docs, self.home.mlflow, self.home.dagster):
            if folder.exists():
                # Renamed first: what is half removed must not be seen.
                shutil.rmtree(folder.rename(folder.with_name(f".removing-{folder.name}")))
        (self.home.root / _MARKER).unlink(missing_ok=True)

    def _require_same_shape(self) -> None:
        """What shapes every table of a home cannot change in it: old and new partitions would not be comparable."""
        made = self._shape_file()
        before = json.loads(made.read_text(encoding="utf-8")) if made.exists() else {}
        for name, value in _shape_of(self.settings).items():
            if name in before and before[name] != value:
                raise BadInputError(
                    f"{name} = {value!r}",
                    f"{before[name]!r}, with which home {self.home.root} was made",
                    "Use another home with CUSTSEG_HOME, or take the setting back.",
                )

    def _shape_file(self) -> Path:
        return self.home.root / "shape.json"

    def _refuse_loss(self, source: str, accepted: Sequence[Delivery]) -> None:
        """A source that lacks periods the home has is another shop's, or a part of this one's."""
        first, last = _days_of(accepted)
        before = set(self.provenance.period_keys)
        lost = sorted(before - set(keys_between(first, last, self.settings.snapshots.cadence)))
        if lost:
            raise BadInputError(
                f"source {source} covers {first} to {last}, but home {self.home.root} holds "
                f"{len(lost)} periods outside that, from {lost[0]}",
                "a source with every period the home has",
                "Put all files into one folder and give that, or use another home with CUSTSEG_HOME.",
            )


def _shape_of(settings: Settings) -> dict[str, Any]:
    return {
        "[snapshots] cadence": settings.snapshots.cadence,
        "[snapshots] lookback": settings.snapshots.lookback,
        "[model] features": list(settings.model.features),
    }


@contextlib.contextmanager
def _unchanged_if_refused(folder: Path) -> Iterator[None]:
    """Take away again what was put into a folder for an input that is refused in the end."""
    before = set(folder.glob("*"))
    try:
        yield
    except BadInputError:
        # A delivery is there when its .json is, so that goes first.
        for path in sorted(set(folder.glob("*")) - before):
            path.unlink()
        if not before and folder.exists():
            folder.rmdir()
        raise


def _days_of(deliveries: Sequence[Delivery]) -> tuple[date, date]:
    """The first and the last day that deliveries cover."""
    return min(one.first_date for one in deliveries), max(one.last_date for one in deliveries)


def take_in_source(deliveries: DeliveryStore, source: str, settings: Settings, say: Say) -> list[Delivery]:
    """Read a source into the store of deliveries.

    Args:
        deliveries: where it goes.
        source: path of a file or folder, or ``demo``.
        settings: how it is read.
        say: takes each line of progress.

    Raises:
        BadInputError: it cannot be read.
    """
    if source == DEMO:
        return [deliveries.accept_frame(DEMO, f"{_DEMO_VERSION} {DEFAULT_SEED}", generate_demo, preset="online_retail")]
    return [deliveries.accept(path, settings.source, progress=say) for path in list_source_files(Path(source), say)]
