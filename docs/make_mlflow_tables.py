"""Write ``custseg_assets/stores/mlflow_tables.sql`` with the MLflow that is installed; ``make docs`` runs this."""

from __future__ import annotations

import tempfile
from pathlib import Path

from custseg_assets import no_telemetry
from custseg_assets.stores.mlflow_tables import SCRIPT, describe_tables, migrate_new_file


def main() -> None:
    """Have MLflow make its tables, and write what would make the same."""
    no_telemetry.switch_off()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        migrate_new_file(path)
        SCRIPT.write_text(describe_tables(path), encoding="utf-8")


if __name__ == "__main__":
    main()
