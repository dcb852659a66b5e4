"""Data Docs: a page per validation, made by Great Expectations' own renderer, and an index of the pages.

Great Expectations' own site is not built: its index needs scripts from six other hosts and is blank without them, and
it can list only what is still in a permanent store of results. The pages here forbid the browser to fetch anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import polars as pl
from great_expectations import __version__ as great_expectations_version
from great_expectations.core import ExpectationSuiteValidationResult, RunIdentifier
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view.view import DefaultJinjaPageView
from great_expectations.util import convert_to_json_serializable
from great_expectations.validator.validation_statistics import calc_validation_statistics

from custseg_assets.stores.files import replace_text

_PASSED, _FAILED = "<!-- passed -->\n", "<!-- failed -->\n"

_HEAD = """<head>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: auto; padding: 0 1em; }
table { border-collapse: collapse; margin: .5em 0 1.5em; }
td, th { border: 1px solid #bbb; padding: .25em .6em; text-align: left; vertical-align: top; }
td p, td span { margin: 0; }
img, button, footer, script, .modal, .navbar, .sticky { display: none; }
a[href^="../.."] { pointer-events: none; color: inherit; text-decoration: none; }
.fa-check-circle::before, .passed::before { content: "✓"; color: #07703a; }
.fa-times::before, .failed::before { content: "✗"; color: #b00020; }
</style>
"""


def write_page(folder: Path, table: str, frame: pl.DataFrame, results: Sequence[ExpectationValidationResult]) -> None:
    """Write, or replace, the page about a validation, and the index.

    A page is named by the table and the first partition validated, so there are never more pages than partitions.

    Args:
        folder: of the pages; made where it does not exist.
        table: that was validated.
        frame: the rows that were validated.
        results: one per rule; the rows that break a rule are left out of the page.
    """
    keys = sorted(frame["period"].drop_nulls().unique()) if "period" in frame.columns else []
    for result in results:
        values = {name: value for name, value in result.result.items() if name != "unexpected_rows"}
        # The renderer cannot read NumPy 2 scalars; results that were stored as JSON, as it expects them, have none.
        result.result = json.loads(json.dumps(convert_to_json_serializable(values)))
    statistics = calc_validation_statistics(list(results))
    outcome = ExpectationSuiteValidationResult(
        success=statistics.success,
        results=list(results),
        suite_name=table,
        statistics={
            "evaluated_expectations": statistics.evaluated_expectations,
            "successful_expectations": statistics.successful_expectations,
            "unsuccessful_expectations": statistics.unsuccessful_expectations,
            "success_percent": statistics.success_percent,
        },
        meta={
            "run_id": RunIdentifier(run_name=f"{keys[0]} to {keys[-1]}" if keys else "no rows"),
            "batch_spec": {"data_asset_name": table},
            "great_expectations_version": great_expectations_version,
        },
    )
    html = _view().render(ValidationResultsPageRenderer().render(outcome), show_how_to_buttons=False)
    page = (_PASSED if statistics.success else _FAILED) + html.replace("<head>", _HEAD, 1)
    (folder / table).mkdir(parents=True, exist_ok=True)
    replace_text(folder / table / f"{keys[0] if keys else 'no-rows'}.html", page)
    replace_text(folder / "index.html", _render_index(folder))


@cache
def _view() -> Any:
    """Great Expectations' page templates, compiled once."""
    return DefaultJinjaPageView()


def _render_index(folder: Path) -> str:
    """The index: every page in the folder, by table and first partition, with whether its validation passed."""
    rows = []
    for page in sorted(folder.glob("*/*.html")):
        with page.open(encoding="utf-8") as lines:
            mark = "passed" if next(lines, "") == _PASSED else "failed"
        link = escape(page.relative_to(folder).as_posix())
        rows.append(
            f'<tr><td class="{mark}"> {mark}</td><td>{page.parent.name}</td>'
            f'<td><a href="{link}">{page.stem}</a></td></tr>'
        )
    body = "\n".join(rows)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n{_HEAD}<meta charset="UTF-8">\n<title>Data Docs</title>\n</head>\n<body>\n'
        f"<h1>Data Docs</h1>\n<table>\n<tr><th></th><th>table</th><th>validated from</th></tr>\n{body}\n</table>\n"
        "</body>\n</html>\n"
    )
