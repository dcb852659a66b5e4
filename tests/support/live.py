"""The real ``custseg ui`` on a home: started as a person starts it, looked at from outside, stopped and killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dagster as dg

from custseg_assets.domain.schemas import RETRAIN_DECISION
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import Stage, due_retrain, next_stage
from custseg_assets.settings import UI_TOKEN_HEADER, UI_TOKEN_VARIABLE, load_settings
from tests.support.ports import free_port

QUICK_SENSORS = """
[landing]
settle_seconds = 1
[automation]
interval_seconds = 5
"""
"""Configuration with which nobody has to wait for half a minute until a sensor looks again."""
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
"""Statuses of a run that is not over."""
_SECONDS_BETWEEN_LOOKS = 0.3
_SECONDS_TO_STOP = 60.0


class LiveHome:
    """A home, and ``custseg ui`` on it.

    Args:
        home: the folder.
        config: its ``custseg.toml``.
        command: the custseg command.
    """

    def __init__(self, home: Path, config: Path, command: Sequence[str]) -> None:
        self.home, self.config = home, config
        self._command = [*command]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.token = secrets.token_urlsafe(8)
        self.log = home.with_name(f"{home.name}.log")

    @property
    def url(self) -> str:
        """Address of the pages."""
        return f"http://127.0.0.1:{self.port}"

    def address(self, path: str = "/") -> str:
        """Address of a page for a browser, as ``custseg ui`` prints it."""
        return f"{self.url}{path}{'&' if '?' in path else '?'}token={self.token}"

    @property
    def opened(self) -> OpenHome:
        """The home as the command opens it, opened anew each time."""
        return OpenHome(load_settings(self.config, home=self.home, environment={}))

    def start(self) -> None:
        """Start ``custseg ui`` in a process group of its own; ``answers`` says when it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "ui", "--reconfigure", "--port", str(self.port), "--config", str(self.config)],
                env={
                    **os.environ,
                    "CUSTSEG_HOME": str(self.home),
                    "PYTHONPATH": self._path(),
                    UI_TOKEN_VARIABLE: self.token,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @staticmethod
    def _path() -> str:
        """Where its processes find modules: first of all what makes Dagster's daemon quick."""
        return os.pathsep.join(filter(None, (str(Path(__file__).with_name("quick_daemon")), os.getenv("PYTHONPATH"))))

    def is_running(self) -> bool:
        """Whether the process of ``custseg ui`` runs."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether the pages answer."""
        with contextlib.suppress(urllib.error.URLError, OSError):
            request = urllib.request.Request(f"{self.url}/server_info", headers={UI_TOKEN_HEADER: self.token})  # noqa: S310
            return bool(urllib.request.urlopen(request, timeout=10).status == 200)  # noqa: S310
        return False

    def kill_daemon(self) -> bool:
        """Kill the daemon alone with a signal that cannot be caught, and wait until what started it has given up.

        Returns:
            Whether there was one yet; the rest is killed too where there was not.
        """
        daemon = next((pid for pid, words in self._processes() if "dagster._daemon" in words), None)
        if daemon is None or self._process is None:
            self.kill()
            return False
        os.kill(daemon, signal.SIGKILL)
        self._process.wait(_SECONDS_TO_STOP)
        return True

    def kill(self) -> None:
        """Kill the pages, the daemon, and every run they started, with a signal that cannot be caught."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_SECONDS_TO_STOP)

    def stop(self) -> bool:
        """Stop it as Ctrl-C does, and kill what then is still there after a minute.

        Returns:
            Whether everything it started ended by itself.
        """
        if self._process is None:
            return True
        self._process.terminate()
        give_up = time.monotonic() + _SECONDS_TO_STOP
        while has_more := self._has_processes():
            if time.monotonic() > give_up:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        self.kill()
        return not has_more

    def wait(self, is_done: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds.

        Args:
            is_done: whether it holds.
            seconds: for how long at most.

        Returns:
            Whether it held before the time was over and while ``custseg ui`` was running.
        """
        looked = time.monotonic()
        give_up = looked + seconds
        while not is_done():
            if time.monotonic() > give_up or (self._process and self._process.poll() is not None):
                return False
            # To look may cost more than what is waited for, which has the same processors.
            time.sleep(max(_SECONDS_BETWEEN_LOOKS, 3 * (time.monotonic() - looked)))
            looked = time.monotonic()
        return True

    def runs(self, *statuses: dg.DagsterRunStatus) -> Sequence[dg.DagsterRun]:
        """The home's runs in Dagster's records, oldest first; all of them without a status."""
        folder = self.home / "dagster"
        if not folder.exists():
            return []
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            return instance.get_runs(dg.RunsFilter(statuses=list(statuses)))[::-1]

    def due(self) -> Stage | str | None:
        """What is left to do; ``None`` where everything is up to date and no run is going on."""
        if unfinished := self.runs(*UNFINISHED):
            return f"{unfinished[0].job_name} {unfinished[0].status.value}"
        home = self.opened
        if home.landing_zone.waiting(time.time(), 0).files:
            return "landing"
        calendar = home.calendar
        if not calendar.period_keys:
            return "nothing taken in"
        stage = next_stage(home, calendar.period_keys[-1], calendar.period_keys[-1])
        retrain = due_retrain(home, home.tables.read(RETRAIN_DECISION))
        return stage or (retrain if isinstance(retrain, Stage) else None)

    def _has_processes(self) -> bool:
        """Whether anything of the process group is there; the first process counts until it has been waited for."""
        if self._process is None:
            return False
        self._process.poll()
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Process id and command line of everything in the group."""
        if self._process is None:
            return
        listed = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,args="], check=True, capture_output=True, text=True)  # noqa: S607
        for line in listed.stdout.splitlines():
            group, pid, words = line.split(maxsplit=2)
            if int(group) == self._process.pid:
                yield int(pid), words


def started_by(run: dg.DagsterRun) -> str:
    """What started a run: a sensor, the schedule, or ``unknown``."""
    kinds = {"dagster/sensor_name": "sensor", "dagster/schedule_name": "schedule"}
    return next((f"{kind} {run.tags[tag]}" for tag, kind in kinds.items() if tag in run.tags), "unknown")
