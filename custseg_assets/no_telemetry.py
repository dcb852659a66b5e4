"""Nothing this project uses reports home: the switches of its libraries, set before they are imported."""

from __future__ import annotations

import os

_SWITCHES = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "true",
}


def switch_off() -> None:
    """Switch the telemetry of every library off for this process and its children, unless someone switched it on."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
