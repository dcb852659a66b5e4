"""Alerts: a text file of them, and a webhook where one is configured. What is worth an alert is not decided here."""

from __future__ import annotations

import json
import urllib.request
from datetime import datetime
from pathlib import Path

from pydantic import SecretStr

_TIMEOUT_SECONDS = 10.0


class AlertLog:
    """Appends alerts to a file, one line each.

    Args:
        path: the file.
        webhook: takes a POST with ``{"text": …}``, as chat systems do; it is a secret, so it is never shown.
    """

    def __init__(self, path: Path, webhook: SecretStr | None = None) -> None:
        self._path, self._webhook = path, webhook

    def add(self, at: datetime, text: str) -> str:
        """Append an alert to the file, then post it.

        Args:
            at: when it happened, in UTC.
            text: what happened, and where to look.

        Returns:
            The line that was written, and whether it was posted.
        """
        line = f"{at:%Y-%m-%dT%H:%M:%SZ} {' '.join(text.split())}"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        return f"{line} ({self._post(line)})" if self._webhook else line

    def newest(self, n_lines: int) -> list[str]:
        """The last alerts, oldest first."""
        return self._path.read_text(encoding="utf-8").splitlines()[-n_lines:] if self._path.exists() else []

    def _post(self, line: str) -> str:
        url = self._webhook.get_secret_value() if self._webhook else ""
        request = urllib.request.Request(  # noqa: S310  (settings accept http and https only)
            url, json.dumps({"text": line}).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310
                return "posted to the webhook"
        except OSError as error:
            # The reason only: the address is a secret.
            return f"the webhook could not be reached: {type(error).__name__}"
