"""Names and texts of others are shown on Dagster's pages as they are, and never become links, pictures or markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from markdown_it import MarkdownIt

from custseg_assets.commands.run import Runner
from custseg_assets.defs.metadata import bullets, table_preview
from custseg_assets.domain.markdown import as_text
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import Stage
from custseg_assets.settings import load_settings
from tests.support.shops import QUICK, custseg, quiet, shop_log, write_log

HOSTILE = "[x](javascript:alert`1`)<img src=x onerror=alert(1)>![y](http:evil) **b** | &lt;a_ ~~c~~ \\"
NAMES = ("[x](javascript:alert(1))<img src=x onerror=alert(1)>", "![y](http:evil)`<b>`**", "<script>1<!--|_a_ ~~b~~")
MARKUP = re.compile(r"<(?!/?(?:p|ul|li|table|thead|tbody|tr|th|td|h1|h2|ol)\b)[^>]*>")
"""Tags that what the pages show of the pipeline's own has not, but for pictures that it made."""
OWN_PICTURE = re.compile(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="[\w ,]+" />')


def rendered(markdown: str) -> str:
    """Markdown as a page shows it that lets raw HTML through."""
    html: str = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    return OWN_PICTURE.sub("", html)


def shown_markdown(home: Path) -> Iterator[tuple[str, str]]:
    """Every Markdown that any run of a home shows, with where it is."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id):
                event = entry.dagster_event
                if event is None:
                    continue
                if event.is_step_materialization:
                    told = event.step_materialization_data.materialization
                    yield from _markdown_of(told.asset_key.to_user_string(), told.metadata)
                elif event.event_type_value == "ASSET_CHECK_EVALUATION":
                    check = event.asset_check_evaluation_data
                    yield from _markdown_of(check.check_name, check.metadata)


def _markdown_of(name: str, metadata: object) -> Iterator[tuple[str, str]]:
    for label, value in dict(metadata).items():  # type: ignore[call-overload]
        if isinstance(value, dg.MarkdownMetadataValue):
            yield f"{name}.{label}", value.md_str or ""


@pytest.mark.parametrize("text", [HOSTILE, *NAMES, "# a", "- b", "+ c", "_d_", "__e__", "\\<i>\\", "a\n\n<i>\n|b"])
def test_a_text_is_shown_as_it_is(text: str) -> None:
    for made in (
        bullets([text]),
        table_preview(pl.DataFrame({text: [text], "n": [1]})),
        dg.MetadataValue.md(as_text(text)),
    ):
        html = rendered(made.md_str or "")
        assert MARKUP.findall(html) == []
        words = html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
        assert " ".join(text.split()) in words


def test_no_run_shows_names_and_texts_as_markup(tmp_path: Path) -> None:
    home = tmp_path / "home"
    landing = home / "landing"
    landing.mkdir(parents=True)
    log = shop_log(4).with_columns(
        description=pl.lit(HOSTILE), country=pl.lit(NAMES[0]), customer_id=pl.col("customer_id") + NAMES[2]
    )
    is_late = pl.col("invoiced_at").dt.month() == 4
    write_log(log.filter(~is_late), landing / f"{NAMES[0]}.csv")
    config = f"{QUICK}\n[landing]\nsettle_seconds = 0\n"
    outcome = custseg(home, "run", config=config)
    assert outcome.status == 0, outcome.err
    write_log(log.filter(is_late), landing / f"{NAMES[1]}.csv")
    (landing / f"{NAMES[2]}.csv").write_text(f"{NAMES[0]},{NAMES[1]}\n1,2\n")
    with quiet():
        opened = OpenHome(load_settings(home=home))
        runner = Runner(opened, lambda _: None)
        with opened.locked() as locked:
            runner.execute(Stage("take_in"), locked)
    shown: dict[str, str] = {}
    for where, markdown in shown_markdown(home):
        shown[where] = f"{shown.get(where, '')}\n\n{markdown}"
    assert {"landed_files.files", "segmentation_model.model_card"} <= shown.keys()
    hostile = [where for where, markdown in shown.items() if "javascript" in markdown or "evil" in markdown]
    assert "landed_files.files" in hostile
    assert {where: found for where, markdown in shown.items() if (found := MARKUP.findall(rendered(markdown)))} == {}
