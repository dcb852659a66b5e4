"""``dagster dev`` with the guarded webserver in the place of Dagster's: ``python -m custseg_assets.instance.dev``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from custseg_assets import no_telemetry as telemetry

telemetry.switch_off()

from dagster._cli import dev  # noqa: E402

_THEIRS, _OURS = "dagster_webserver", "custseg_assets.instance.webserver"


def main() -> None:
    """Start it with the arguments of ``dagster dev``."""
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]

    def start_guarded(parts: Sequence[str], **others: Any) -> Any:
        return start([_OURS if part == _THEIRS else part for part in parts], **others)

    dev.open_ipc_subprocess = start_guarded  # type: ignore[attr-defined]
    dev.dev_command(prog_name="custseg ui")


if __name__ == "__main__":
    main()
