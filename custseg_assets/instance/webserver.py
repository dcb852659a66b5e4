"""Dagster's webserver behind ``web_guard``: ``python -m custseg_assets.instance.webserver``, started by ``dev``."""

from __future__ import annotations

from custseg_assets import no_telemetry as telemetry

telemetry.switch_off()

import os  # noqa: E402
import sys  # noqa: E402

from dagster_webserver import cli, webserver  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from custseg_assets.instance.web_guard import Guard  # noqa: E402
from custseg_assets.settings import UI_PORT_VARIABLE, UI_TOKEN_VARIABLE  # noqa: E402


class GuardedWebserver(webserver.DagsterWebserver):  # type: ignore[type-arg]
    """Dagster's webserver, with the guard in front of everything it answers."""

    def build_middleware(self) -> list[Middleware]:
        """The guard first."""
        port, token = int(os.environ[UI_PORT_VARIABLE]), os.environ[UI_TOKEN_VARIABLE]
        return [Middleware(Guard, port=port, token=token), *super().build_middleware()]


def main() -> None:
    """Start it with the arguments of ``dagster-webserver``."""
    from dagster_webserver import app

    app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]
    sys.exit(cli.main())  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
