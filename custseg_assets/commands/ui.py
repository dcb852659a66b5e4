"""``custseg ui``: Dagster's web interface and daemon on a home."""

from __future__ import annotations

import os
import secrets
import sys
from typing import NoReturn

import dagster as dg

from custseg_assets.command_line import require_free
from custseg_assets.commands.settings_change import adopt_settings, changed_settings
from custseg_assets.defs.abandoned import close_abandoned
from custseg_assets.defs.automation import CODE_LOCATION
from custseg_assets.home.intake import Intake
from custseg_assets.home.open import OpenHome
from custseg_assets.home.own_settings import own_settings
from custseg_assets.home.unfinished import put_back_unfinished, unfinished_stage
from custseg_assets.instance.event_log import open_instance
from custseg_assets.instance.execute import give_origins, is_of_command, prepare_instance
from custseg_assets.settings import (
    CONFIG_VARIABLE,
    HOME_VARIABLE,
    SOURCE_VARIABLE,
    UI_PORT_VARIABLE,
    UI_TOKEN_VARIABLE,
)
from custseg_assets.stores.home import Home
from custseg_assets.stores.sources import Progress

# True, but nothing that who reads the pages can do anything about.
_UNHEARD = "ignore:Function `dev_command` is superseded,ignore:Asset job train materializes assets with varying"


def serve_ui(home: OpenHome, port: int, say: Progress) -> NoReturn:
    """Dagster's web interface and daemon on a home, on loopback, until it is stopped.

    A home without data takes its configured source in; without one it waits for files in its landing folder.

    Args:
        home: to show.
        port: to listen on.
        say: takes each line of progress.

    Raises:
        BadInputError: the port is taken, or the home has no data and the source cannot be used.
    """
    require_free("127.0.0.1", port)
    paths = home.paths
    _prepare_home(home, say)
    prepare_instance(paths)
    _tidy_runs(paths)
    environment = {**os.environ, "DAGSTER_HOME": str(paths.dagster), HOME_VARIABLE: str(paths.root)}
    environment[UI_PORT_VARIABLE] = str(port)
    # New at every start, unless somebody who starts it by a program has chosen one.
    token = environment.setdefault(UI_TOKEN_VARIABLE, secrets.token_urlsafe(24))
    environment["PYTHONWARNINGS"] = _UNHEARD
    # What Dagster starts has the home's settings, whatever is in the working folder or changes there.
    environment[CONFIG_VARIABLE] = str(paths.settings)
    environment.pop(SOURCE_VARIABLE, None)
    say(f"Dagster on http://127.0.0.1:{port}/?token={token} (starting: it answers in half a minute)")
    say(f"home {paths.root}; the address is for you alone; stop it with Ctrl-C")
    dagster = [sys.executable, "-m", "custseg_assets.instance.dev", "--host", "127.0.0.1", "--port", str(port)]
    # Dagster takes this process over, so that whoever stops it stops Dagster, and nothing stays behind.
    os.execve(sys.executable, [*dagster, "--module-name", CODE_LOCATION], environment)  # noqa: S606


def _prepare_home(home: OpenHome, say: Progress) -> None:
    """Take in what is there to begin with, and leave the home such that sensors can go on with it."""
    if not _has_to_be_prepared(home):
        return
    with home.locked() as locked:
        intake = Intake(locked, say)
        if home.deliveries.current() is None and intake.has_anything():
            intake.take_in()
        else:
            adopt_settings(locked)
        if stage := put_back_unfinished(locked):
            say(f"an earlier run ended in the middle of {stage}; that is made again where it is still due")
    if home.deliveries.current() is None:
        folder = home.landing_zone.folder
        folder.mkdir(parents=True, exist_ok=True)
        say(
            f"the home has no data yet and waits: drop files into {folder}, or stop this and do "
            "'custseg run --source FILE'; 'custseg run' alone takes the demo in"
        )


def _has_to_be_prepared(home: OpenHome) -> bool:
    """Whether anything is to be written first; where not, a run may be using the home meanwhile."""
    if home.deliveries.current() is None or own_settings(home.paths) is None or changed_settings(home):
        return True
    return unfinished_stage(home.paths) is not None and not home.paths.is_locked()


def _tidy_runs(home: Home) -> None:
    """Close the runs that a daemon was starting when it was killed; the next one would wait for them for minutes.

    A process that is on its way all the same does nothing when it finds its run closed. Failed runs of earlier versions
    are made such that the pages can execute them again.
    """
    with open_instance(home.dagster) as instance:
        starting = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
        close_abandoned(instance, [run for run in starting if not is_of_command(run)])
        give_origins(instance)
