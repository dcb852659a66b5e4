"""Make the pictures of the README and the docs, and the README's closing table, all from one home of the demo.

usage: python docs/make_pictures.py [--home HOME] [--only results,dagster,dashboard,timeline]

Without a home one is made. The timeline takes a quarter of an hour, since the demo's months land one after another, and
is made only where it is named. All but the results need Chromium.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib
import io
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
from PIL import Image
from playwright.sync_api import FloatRect, sync_playwright

from custseg_assets.settings import UI_TOKEN_HEADER, UI_TOKEN_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
README = ROOT / "README.md"
RESULT = re.compile(r"(<!-- the demo's closing table, by make pictures -->\n```\n).*?(^```$)", re.DOTALL | re.MULTILINE)
"""Where the closing table stands in the README."""

_COLUMNS = 116
"""Signs of a line of the closing table that fit into the README."""
_PATIENCE_SECONDS = 180
_FROM_METADATA = {"profile.png": ("segment_profiles", "profile"), "calibration.png": ("value_model", "calibration")}
"""Pictures that an asset shows on its own page: file → asset and the entry of its metadata."""
_TOKEN = secrets.token_urlsafe(8)
_PYTHON = (sys.executable, "-m")
_COMMAND = ("--command", f"{sys.executable} -m custseg_assets.cli")
_GRAPH = """() => {
    const boxes = [...document.querySelectorAll("foreignObject")].map((one) => one.getBoundingClientRect());
    const side = (least, name) => least(...boxes.map((box) => box[name]));
    return [side(Math.min, "left"), side(Math.min, "top"), side(Math.max, "right"), side(Math.max, "bottom")];
}"""
"""Where all of Dagster's graph is on its page."""
_GRAPH_WIDTH, _GRAPH_COLOURS, _MS_TO_LAY_OUT = 1440, 64, 5000
_KINDS = ("results", "dagster", "dashboard", "timeline")


def main(argv: Sequence[str] | None = None) -> int:
    """Make what was named, or everything but the timeline."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, help="a home of the demo; a new one without it")
    parser.add_argument("--only", default=",".join(_KINDS[:3]), help=f"of {', '.join(_KINDS)}")
    arguments = parser.parse_args(argv)
    kinds = arguments.only.split(",")
    if unknown := set(kinds) - set(_KINDS):
        parser.error(f"--only {', '.join(sorted(unknown))}; expected some of {', '.join(_KINDS)}")
    with tempfile.TemporaryDirectory(prefix="custseg-pictures-") as folder:
        home = (arguments.home or Path(folder) / "home").absolute()
        if {"results", "dagster", "dashboard"} & set(kinds):
            table = _custseg(home, "run", "--source", "demo")
            if "results" in kinds:
                README.write_text(put_into(README.read_text(encoding="utf-8"), table), encoding="utf-8")
                take_from_metadata(home)
        if "dashboard" in kinds:
            take_dashboard(home)
        if "dagster" in kinds:
            # Its sensors may retrain at once, and the closing table and all pictures are of one and the same home.
            take_dagster_pictures(shutil.copytree(home, Path(folder) / "shown"))
        if "timeline" in kinds:
            subprocess.run(
                [*_PYTHON, "benchmarks.unattended", *_COMMAND, "--picture", str(PICTURES / "timeline.png")],
                cwd=ROOT,
                check=True,
            )
    return 0


def put_into(readme: str, printed: str) -> str:
    """The README with another closing table: what a first run printed, without where the home is.

    Args:
        readme: its text, with the marked block.
        printed: by ``custseg run``.

    Raises:
        ValueError: the block is not there.
    """
    lines = ["Done." if line.startswith("Nothing has changed") else line for line in printed.strip("\n").splitlines()]
    shown = lines[: lines.index("look next")] if "look next" in lines else lines
    cut = [line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 2]} …" for line in shown]
    text, n = RESULT.subn(lambda found: found[1] + "\n".join([*cut, found[2]]), readme)
    if n != 1:
        raise ValueError(f"got {n} blocks for the closing table in the README; expected one")
    return text


def take_from_metadata(home: Path) -> None:
    """Write the pictures that assets show on their own pages.

    Args:
        home: with Dagster's history.

    Raises:
        LookupError: an asset shows no such picture.
    """
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for file, (asset, name) in _FROM_METADATA.items():
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
            found = re.search(r"data:image/png;base64,([\w+/=]+)", str(getattr(shown.get(name), "value", "")))
            if found is None:
                raise LookupError(f"{asset} shows no picture {name!r}; expected one among {', '.join(shown)}")
            (PICTURES / file).write_bytes(base64.b64decode(found[1]))


def take_dagster_pictures(home: Path) -> None:
    """Write ``graph.png``: the assets as Dagster's pages show them."""
    with (
        _serving([*_PYTHON, "custseg_assets.cli", "ui"], home, "/server_info") as (address, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox", "--disable-gpu"])
        # So tall that the whole graph is in view, and above the buttons in the corner.
        page = browser.new_page(viewport={"width": 2100, "height": 4000}, color_scheme="light")
        page.goto(f"{address}/asset-groups/?token={_TOKEN}")
        page.get_by_text("monitoring").first.wait_for(timeout=_PATIENCE_SECONDS * 1000)
        page.wait_for_timeout(_MS_TO_LAY_OUT)
        page.keyboard.press("Alt+e")
        page.get_by_text("segment_profiles").first.wait_for(timeout=_PATIENCE_SECONDS * 1000)
        page.wait_for_timeout(_MS_TO_LAY_OUT)
        left, top, right, bottom = page.evaluate(_GRAPH)
        clip = FloatRect(x=left - 20, y=top - 20, width=right - left + 40, height=bottom - top + 40)
        with Image.open(io.BytesIO(page.screenshot(clip=clip))) as image:
            image.thumbnail((_GRAPH_WIDTH, 2 * _GRAPH_WIDTH))
            image.quantize(_GRAPH_COLOURS).save(PICTURES / "graph.png", optimize=True)
        browser.close()


def take_dashboard(home: Path) -> None:
    """Write the dashboard's pictures."""
    sys.path.insert(0, str(Path(__file__).parent))
    pictures = importlib.import_module("dashboard_pictures")
    with _serving([*_PYTHON, "custseg_serving.cli", "--no-prediction-log"], home, "/readyz", "demo") as (address, said):
        key = re.search(r"Key, [^:]*: (\S+)", said.read_text(encoding="utf-8"))
        pictures.take_dashboard_pictures(address, key[1] if key else None, PICTURES)


@contextlib.contextmanager
def _serving(command: Sequence[str], home: Path, route: str, *more: str) -> Iterator[tuple[str, Path]]:
    """A server of a home that answers, with the file of what it said; it is stopped at the end of the block.

    Raises:
        RuntimeError: it does not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, said = f"http://127.0.0.1:{port}", home.with_name(f"{home.name}.said")
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), *more], cwd=ROOT, env=_environment(home), stdout=file, stderr=file
        )
    try:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not _answers(address + route):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"no answer from {' '.join(command)}: {said.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.5)
        yield address, said
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    request = urllib.request.Request(address, headers={UI_TOKEN_HEADER: _TOKEN})  # noqa: S310
    with contextlib.suppress(urllib.error.URLError, OSError):
        return bool(urllib.request.urlopen(request, timeout=10).status == 200)  # noqa: S310
    return False


def _custseg(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*_PYTHON, "custseg_assets.cli", *arguments],
        cwd=ROOT,
        env=_environment(home),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def _environment(home: Path) -> Mapping[str, str]:
    return {**os.environ, "CUSTSEG_HOME": str(home), "PYTHONPATH": str(ROOT), UI_TOKEN_VARIABLE: _TOKEN}


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise RuntimeError("Chromium is not installed; expected one to take pictures with")
    return found


if __name__ == "__main__":
    sys.exit(main())
