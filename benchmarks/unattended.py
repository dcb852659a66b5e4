"""Drop the demo's months into a home under the real ``custseg ui``, and see it retrain and promote by itself.

usage: python -m benchmarks.unattended --command .venv/bin/custseg [--customers N] [--picture timeline.png]

The demo is written out as a shop would export it, a csv file for each month. The first months are there
when ``custseg ui`` starts; each later one is dropped when nothing is left to do about those before. Nobody does
anything else: every run is started by a sensor.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from custseg_assets.domain.demo import DEFAULT_SEED
from custseg_assets.domain.schemas import DRIFT_REPORT, PROMOTION_DECISION, RETRAIN_DECISION
from custseg_assets.stores import releases
from tests.support.live import LiveHome, started_by
from tests.support.monthly_files import CONFIG, drop_file, monthly_files

_SECONDS_FOR_A_MONTH = 900.0
_JOBS_SHOWN = ("take_in", "ingest", "snapshot", "retrain", "segment")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; 0 where a later model than the first is served at its end."""
    arguments = _arguments(argv)
    files = monthly_files(DEFAULT_SEED, arguments.customers)
    with tempfile.TemporaryDirectory(prefix="unattended-") as folder:
        home, config = Path(folder) / "home", Path(folder) / "custseg.toml"
        config.write_text(CONFIG, encoding="utf-8")
        live = LiveHome(home, config, shlex.split(arguments.command))
        try:
            for number, (key, lines) in enumerate(files.items(), 1):
                drop_file(lines, home / "landing", key)
                if number == arguments.first:
                    live.start()
                if number >= arguments.first:
                    print(_month(live, key), flush=True)
            for run in live.runs():
                span = run.tags.get("custseg/periods") or run.tags.get("dagster/partition") or ""
                print(f"  {run.status.value} {run.job_name} {span} ({started_by(run)})")
            if arguments.picture:
                picture_of_the_timeline(live.address("/overview/activity/timeline"), arguments.picture)
        finally:
            live.stop()
        champions = live.opened.champions.promotions
    return int(len(champions) < 2)


def _month(live: LiveHome, key: str) -> str:
    """Wait until everything is done about a month, and say what came of it."""
    begun = time.monotonic()
    # The landing sensor has to see the file first, so being up to date at once would be the month before's.
    live.wait(lambda: key in live.opened.calendar.period_keys and live.due() is None, _SECONDS_FOR_A_MONTH)
    home = live.opened
    rows = {table: home.tables.read(table, [key]) for table in (DRIFT_REPORT, RETRAIN_DECISION, PROMOTION_DECISION)}
    drift, retrain, gate = (str(rows[table][name][0]) if len(rows[table]) else "–" for table, name in _SHOWN)
    served = releases.current(home.paths.releases)
    model = releases.read_manifest(home.paths.releases, served).model_version if served else "none"
    return f"{key}  {drift:<16} {retrain:<8} {gate:<8} serves {model}  {time.monotonic() - begun:.0f} s"


_SHOWN = ((DRIFT_REPORT, "verdict"), (RETRAIN_DECISION, "decision"), (PROMOTION_DECISION, "decision"))


def picture_of_the_timeline(address: str, path: Path) -> None:
    """Take a picture of Dagster's timeline of the last hour.

    Args:
        address: of its page, with the token.
        path: of the picture.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 510}, color_scheme="light")
        page.goto(address)
        for job in _JOBS_SHOWN:
            page.get_by_text(job, exact=True).first.wait_for(timeout=120_000)
        page.get_by_text("1hr", exact=True).click()
        page.get_by_text("Refreshing data").wait_for(state="hidden", timeout=120_000)
        page.screenshot(path=path)
        browser.close()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Let the demo's months arrive under custseg ui, and watch.")
    parser.add_argument("--command", required=True, help="the custseg command")
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=6, help="months that are there when custseg ui starts")
    parser.add_argument("--picture", type=Path, help="where to put a picture of Dagster's timeline")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
