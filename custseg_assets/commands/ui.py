"""``custseg ui``: Dagster's web interface and daemon on a home."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path
from typing import NoReturn

import dagster as dg

from custseg_assets.defs.automation import CODE_LOCATION
from custseg_assets.errors import BadInputError
from custseg_assets.home.intake import Intake
from custseg_assets.home.open import OpenHome
from custseg_assets.instance.event_log import open_instance
from custseg_assets.instance.execute import give_origins, is_of_command, prepare_instance
from custseg_assets.run_workers import close_abandoned
from custseg_assets.settings import CONFIG_VARIABLE, HOME_VARIABLE, UI_PORT_VARIABLE, UI_TOKEN_VARIABLE
from custseg_assets.stores.home import Home
from custseg_assets.stores.sources import Progress

# True, but nothing that who reads the pages can do anything about.
_UNHEARD = "ignore:Function `dev_command` is superseded,ignore:Asset job train materializes assets with varying"


def serve_ui(home: OpenHome, config: str | None, port: int, say: Progress) -> NoReturn:
    """Dagster's web interface and daemon on a home, on loopback, until it is stopped.

    Args:
        home: to show.
        config: the configuration file, for the processes that Dagster starts.
        port: to listen on.
        say: takes each line of progress.

    Raises:
        BadInputError: the port is taken, or the home has no data and the source cannot be used.
    """
    _require_free(port)
    paths = home.paths
    if home.deliveries.current() is None:
        with home.locked() as locked:
            Intake(locked, say).take_in()
    prepare_instance(paths)
    _tidy_runs(paths)
    environment = {**os.environ, "DAGSTER_HOME": str(paths.dagster), HOME_VARIABLE: str(paths.root)}
    environment[UI_PORT_VARIABLE] = str(port)
    # New at every start, unless somebody who starts it by a program has chosen one.
    token = environment.setdefault(UI_TOKEN_VARIABLE, secrets.token_urlsafe(24))
    environment["PYTHONWARNINGS"] = _UNHEARD
    if config:
        environment[CONFIG_VARIABLE] = str(Path(config).absolute())
    say(f"Dagster on http://127.0.0.1:{port}/?token={token}")
    say(f"home {paths.root}; the address is for you alone; stop it with Ctrl-C")
    dagster = [sys.executable, "-m", "custseg_assets.instance.dev", "--host", "127.0.0.1", "--port", str(port)]
    # Dagster takes this process over, so that whoever stops it stops Dagster, and nothing stays behind.
    os.execve(sys.executable, [*dagster, "--module-name", CODE_LOCATION], environment)  # noqa: S606


def _tidy_runs(home: Home) -> None:
    """Close the runs that a daemon was starting when it was killed; the next one would wait for them for minutes.

    A process that is on its way all the same does nothing when it finds its run closed. Failed runs of earlier versions
    are made such that the pages can execute them again.
    """
    with open_instance(home.dagster) as instance:
        starting = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
        close_abandoned(instance, [run for run in starting if not is_of_command(run)])
        give_origins(instance)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            raise BadInputError(
                f"--port {port} cannot be listened on", "a free port", "Stop what uses it, or name another."
            ) from None
