"""Format of log lines. Not in ``metrics``: its library must not be imported before the server has configured it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from functools import lru_cache


class JsonFormatter(logging.Formatter):
    """Formats log records as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one log record."""
        line = {
            "at": iso_instant(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def iso_instant(seconds: float) -> str:
    """ISO text in UTC, with milliseconds, of an instant in seconds since the epoch."""
    whole = int(seconds)
    return f"{_iso_second(whole)}.{int(1000 * (seconds - whole)):03d}Z"


@lru_cache(maxsize=8)
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def log_as_json(*, is_verbose: bool) -> None:
    """Send the logs of this process to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.DEBUG if is_verbose else logging.INFO, handlers=[handler], force=True)
