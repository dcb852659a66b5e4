"""Build the documentation site from the repository's own pages, where they are, so that links work here and there.

usage: python docs/make_site.py [FOLDER]

mkdocs takes pages from one folder only, and ours are beside the code they are about. They are put together under the
paths that they have in the repository; of links to files that are no pages only the words are left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/adr/*.md",
    "benchmarks/*.md",
    "benchmarks/*/*.md",
    "custseg_assets/domain/README.md",
)
FILES = ("docs/pictures/*.png", "docs/*.ipynb")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Build the site; mkdocs' exit code."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").absolute()
    with tempfile.TemporaryDirectory(prefix="custseg-site-") as folder:
        source = Path(folder) / "pages"
        put_together(ROOT, source)
        settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
        (Path(folder) / "mkdocs.yml").write_text(settings + decisions(ROOT), encoding="utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
        # What mkdocs-material has to say about the future of mkdocs is no error in a page.
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def decisions(root: Path) -> str:
    """The last entry of the site's table of contents: every record of a decision, so that none has to be named there.

    Args:
        root: of the repository.
    """
    lines = ["  - Decisions:"]
    for page in sorted((root / "docs" / "adr").glob("*.md")):
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"      - {json.dumps(title, ensure_ascii=False)}: docs/adr/{page.name}")
    return "\n".join([*lines, ""])


def put_together(root: Path, folder: Path) -> None:
    """Copy the pages and what they show into one folder.

    Args:
        root: of the repository.
        folder: new.
    """
    pages = {path.relative_to(root) for pattern in PAGES for path in root.glob(pattern)}
    files = {path.relative_to(root) for pattern in FILES for path in root.glob(pattern)}
    for page in sorted(pages | files):
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if page in files:
            shutil.copy(root / page, target)
        else:
            text = (root / page).read_text(encoding="utf-8")
            target.write_text(without_dead_links(text, page, pages | files), encoding="utf-8")


def without_dead_links(text: str, page: Path, there: set[Path]) -> str:
    """A page whose links to files that the site does not have are their words alone.

    Args:
        text: of the page.
        page: its path in the repository.
        there: paths of what the site has.
    """

    def resolve(found: re.Match[str]) -> str:
        mark, words, path, _ = found.groups()
        if re.match(r"[a-z]+:", path):
            return found[0]
        target = Path(os.path.normpath(page.parent / path))
        return found[0] if target in there or mark else words

    parts = _CODE.split(text)
    # Every other part is code, which has no links but may look as if it had.
    return "".join(part if i % 2 else _LINK.sub(resolve, part) for i, part in enumerate(parts))


if __name__ == "__main__":
    sys.exit(main())
