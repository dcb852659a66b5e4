"""Which call needs which permission, from the table in docs/gcp.md."""

from __future__ import annotations

import re

from tests.support.files import REPOSITORY

OF_A_PERSON = re.compile(r"aiplatform\.(endpoints|models|modelEvaluations|operations)\.")
"""What ``custseg vertex`` needs, which is a person's command."""


def documented_calls() -> list[tuple[str, str, str, str]]:
    """Account, call, permission and level of each row."""
    table = (REPOSITORY / "docs" / "gcp.md").read_text().partition("## Which call needs what")[2].partition("\n## ")[0]
    rows = [
        [cell.strip().replace("`", "") for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    return [(account, call, permission, level) for account, call, permission, level in rows[1:]]
