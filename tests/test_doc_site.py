"""The documentation site, the notebook, and the README's closing table."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY
from tests.support.shops import FilledShop

DOCS = REPOSITORY / "docs"
NOTEBOOK = DOCS / "notebook.ipynb"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed here: the extra docs has it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(DOCS / "make_site.py"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_has_every_page_in_its_contents(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    pages = [page.relative_to(REPOSITORY).with_suffix(".html") for page in DOCS.rglob("*.md")]
    assert [str(page) for page in pages if not (site / page).exists()] == []
    for tab in (
        "Start",
        "Own data",
        "Segments explained",
        "Operations",
        "Settings",
        "API",
        "Architecture",
        "Decisions",
    ):
        assert re.search(rf'class="md-tabs__link">\s*{tab}\s*<', start), tab


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    loading = re.compile(r"<(?:script|link|img|iframe|source|video)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    pages = {page: loading.findall(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert len(pages) > 40
    assert {page: found for page, found in pages.items() if found} == {}
    styles = [sheet for sheet in site.rglob("*.css") if re.search(r"url\([\"']?(https?:)?//", sheet.read_text("utf-8"))]
    assert styles == []


def test_a_link_that_leads_nowhere_is_no_site(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed here: the extra docs has it")
    script = runpy.run_path(str(DOCS / "make_site.py"))
    put_together = script["put_together"]
    put_together(REPOSITORY, tmp_path / "pages")
    settings = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8") + script["decisions"](REPOSITORY)
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    page = tmp_path / "pages" / "docs" / "export.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n[gone](gone.md)\n", encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode != 0
    assert "gone.md" in built.stderr + built.stdout


def test_links_to_what_is_no_page_become_words_and_code_stays() -> None:
    without_dead_links = runpy.run_path(str(DOCS / "make_site.py"))["without_dead_links"]
    text = "[a](../README.md#top) [b](../Makefile) `[c](../Makefile)` [d](https://x.org) ![e](no.png)"
    found = without_dead_links(text, Path("docs/page.md"), {Path("README.md")})
    assert found == "[a](../README.md#top) b `[c](../Makefile)` [d](https://x.org) ![e](no.png)"


def test_the_notebook_runs_on_a_home_and_keeps_no_output(
    filled_shop: FilledShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed here")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed here")
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert [cell["outputs"] for cell in stored["cells"] if cell["cell_type"] == "code" and cell["outputs"]] == []
    monkeypatch.setenv("CUSTSEG_HOME", str(filled_shop.home))
    monkeypatch.setenv("IPYTHONDIR", str(filled_shop.home.with_name("ipython")))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [data for cell in notebook.cells for one in cell.get("outputs", ()) for data in one.get("data", {})]
    assert shown.count("image/png") == 1
    assert shown.count("text/html") == 3


def test_the_readme_takes_the_closing_table_of_a_run() -> None:
    put_into = runpy.run_path(str(DOCS / "make_pictures.py"))["put_into"]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    printed = (
        "\nNothing has changed: all is up to date.\nsource      demo\n" + "x" * 130 + "\nlook next\n  custseg ui\n"
    )
    text = put_into(readme, printed)
    assert "```\nDone.\nsource      demo\n" + "x" * 114 + " …\n```\n" in text
    assert "look next" not in text
    assert put_into(text, printed) == text
    with pytest.raises(ValueError, match="got 0 blocks"):
        put_into("no block", printed)
