"""The pictures of the dashboard that the docs show."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

from custseg_serving.keys import KeyFile
from tests.support.dashboard import CHROMIUM
from tests.support.files import REPOSITORY
from tests.support.server import serving
from tests.support.shops import FilledShop


def test_pictures_of_every_view_are_taken_with_a_key(filled_shop: FilledShop, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed here")
    pytest.importorskip("playwright", reason="Playwright is not installed")
    shutil.copytree(filled_shop.home / "releases", tmp_path / "home" / "releases")
    token = KeyFile(tmp_path / "home" / "keys.json").create("pictures", ["lookup"], 500)
    script = runpy.run_path(str(REPOSITORY / "docs" / "dashboard_pictures.py"))
    with serving(tmp_path / "home", "--workers", "1") as server:
        taken = script["take_dashboard_pictures"](f"http://127.0.0.1:{server.port}", token, tmp_path)
    assert [path.name for path in taken] == [f"dashboard-{name}.png" for name in script["PICTURES"]]
    for path in taken:
        # What a page without data would be is smaller by far.
        assert path.stat().st_size > 10_000, path
