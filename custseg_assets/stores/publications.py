"""Publications: a record of the partitions that BigQuery has, so that only changed ones are published again.

The publishing itself is in ``gcp``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custseg_assets.settings import Settings
from custseg_assets.stores.files import replace_text
from custseg_assets.stores.home import Home


class Publications:
    """The record of one destination, in a file of the home.

    It is a cache: where the destination was made anew, or the file is lost, everything is published again, which
    changes nothing there.

    Args:
        path: the file; made when the first partition is recorded.
        destination: what the tables are published to; a record of another destination is ignored.
    """

    def __init__(self, path: Path, destination: str) -> None:
        self.path, self.destination = path, destination

    def of(self, table: str) -> dict[str, int]:
        """Partition key → fingerprint of what was published of a table."""
        found: dict[str, int] = self._read().get(table, {}).get("partitions", {})
        return dict(found)

    def created(self, table: str) -> str | None:
        """When the destination made the table, as reported at the last publication to it."""
        found: str | None = self._read().get(table, {}).get("created")
        return found

    def n_before(self, table: str) -> int:
        """Number of times that partitions of a table were published."""
        return int(self._read().get(table, {}).get("n_published", 0))

    def note(self, table: str, key: str, fingerprint: int | None, created: str) -> None:
        """Record that a partition is published, or with ``None`` that it was removed."""
        record = self._read()
        entry = record.get(table, {"partitions": {}, "n_published": 0})
        partitions = entry["partitions"] if entry.get("created") == created else {}
        kept = {other: known for other, known in partitions.items() if other != key}
        kept |= {} if fingerprint is None else {key: fingerprint}
        record[table] = {**entry, "created": created, "n_published": entry["n_published"] + 1, "partitions": kept}
        self._write(record)

    def version_of(self, table: str) -> int | None:
        """Version at which a table without fingerprints was published as a whole."""
        found: int | None = self._read().get(table, {}).get("version")
        return found

    def note_version(self, table: str, version: int | None) -> None:
        """Record that a table is published as it stood at a version."""
        record = self._read()
        self._write(
            {**record, table: {"partitions": {}, "n_published": 0, **record.get(table, {}), "version": version}}
        )

    @staticmethod
    def in_bigquery(home: Home, settings: Settings) -> Publications:
        """The record of the BigQuery dataset in the settings."""
        gcp = settings.gcp
        return Publications(home.root / "bigquery.json", f"{gcp.project}.{gcp.bigquery.dataset}")

    def _write(self, record: Mapping[str, object]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self.path, json.dumps({"destination": self.destination, "tables": record}, indent=1))

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        content = json.loads(self.path.read_text(encoding="utf-8"))
        return dict(content["tables"]) if content["destination"] == self.destination else {}
