"""Draw ``pictures/rooms.png`` from the layers that ``.importlinter`` allows; ``make docs`` runs this."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from custseg_assets.pictures.look import BAND, GREY, GRID, HUES, INK, MUTED, PAPER, Picture

FOLDER = Path(__file__).parent
CONTRACTS, PICTURE = FOLDER.parent / ".importlinter", FOLDER / "pictures" / "rooms.png"
ROOMS = {
    "cli": "the command custseg",
    "trainer": "the process of a training",
    "commands": "what each subcommand does",
    "instance": "Dagster in this process: runs, event log",
    "definitions": "puts the code location together",
    "defs": "assets, checks, jobs, partitions, sensors",
    "home": "one home, opened: calendar, champions, fingerprints, plan, intake, decisions",
    "gcp": "Google Cloud",
    "run_workers": "processes of runs",
    "training": "what a trainer does",
    "expectations": "what must be true",
    "pictures": "of results, as PNG",
    "engines": "where work as large as the log is done: Polars, DuckDB",
    "stores": "tables, deliveries, landing zone, releases, registry, files",
    "settings": "custseg.toml and CUSTSEG_* variables",
    "source_settings": "its [source]: how a log is read",
    "domain": "what every number means: no files, no clock, no framework",
    "command_line": "arguments, exit codes",
    "pace": "how long work will take",
    "errors": "errors that say what to do",
    "late_imports": "what may wait",
    "no_telemetry": "nothing reports home",
}
"""What each room is for, in the few words that its box has room for."""
SEEN_BY_THE_SERVICE = ("stores", "domain", "command_line", "errors")
THE_SERVICE = """\
the HTTP service:
lookups, scores,
dashboard.

It reads releases,
and imports only
stores.releases,
stores.files, domain,
command_line, errors
(and gcp.bucket,
to follow a bucket)."""

_WIDTH, _FLOOR, _GAP, _TOP = 9.0, 0.5, 0.1, 0.6
_LEFT, _RIGHT, _SERVICE = 0.5, 6.75, 7.2
_TITLE: dict[str, Any] = {"fontsize": 12.5, "weight": "bold", "color": INK, "va": "center"}
_NAME: dict[str, Any] = {"fontsize": 11, "weight": "bold", "color": INK}
_WORDS: dict[str, Any] = {"fontsize": 9, "color": MUTED}


def read_floors(path: Path) -> list[list[str]]:
    """The rooms of every floor of ``custseg_assets``, the top floor first.

    Args:
        path: of the import contracts.

    Raises:
        LookupError: a room has no words here, or words are of a room that is none.
    """
    contracts = configparser.ConfigParser()
    contracts.read(path, encoding="utf-8")
    lines = contracts["importlinter:contract:layers"]["layers"].split("\n")
    floors = [[room.strip() for room in re.split(r"[|:]", line)] for line in lines if line.strip()]
    if different := {room for floor in floors for room in floor} ^ ROOMS.keys():
        raise LookupError(f"rooms of {path.name} and of {Path(__file__).name} differ: {', '.join(sorted(different))}")
    return floors


@Picture
def draw_rooms(floors: list[list[str]]) -> Figure:
    """The house, floor by floor, with the service beside it."""
    height = _TOP + len(floors) * (_FLOOR + _GAP) + 0.1
    figure = Figure(figsize=(_WIDTH, height), dpi=200, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, height)
    axes.text(_LEFT, height - _TOP / 2, "custseg_assets", **_TITLE)
    bottom_of = {}
    for number, floor in enumerate(floors):
        bottom = height - _TOP - _FLOOR - number * (_FLOOR + _GAP)
        width = (_RIGHT - _LEFT - _GAP * (len(floor) - 1)) / len(floor)
        # What the service sees stands on its side; rooms of one floor have no order.
        for place, room in enumerate(sorted(floor, key=lambda room: room in SEEN_BY_THE_SERVICE)):
            _draw_room(axes, room, _LEFT + place * (width + _GAP), bottom, width)
            bottom_of[room] = bottom
    _draw_service(axes, bottom_of)
    _arrow(axes, (0.33, height - _TOP), (0.33, 0.1))
    axes.text(0.2, height / 2, "imports lead downwards only", rotation=90, ha="center", va="center", **_WORDS)
    return figure


def _draw_room(axes: Axes, room: str, left: float, bottom: float, width: float) -> None:
    is_seen = room in SEEN_BY_THE_SERVICE
    _draw_box(axes, left, bottom, width, _FLOOR, colour=BAND if is_seen else GRID, edge=HUES[0] if is_seen else GREY)
    middle = bottom + _FLOOR / 2
    if width < (_RIGHT - _LEFT) / 2:
        axes.text(left + 0.12, middle + 0.1, room, va="center", **_NAME)
        axes.text(left + 0.12, middle - 0.12, ROOMS[room], va="center", **_WORDS)
    else:
        axes.text(left + 0.12, middle, room, va="center", **_NAME)
        axes.text(left + 1.25, middle, ROOMS[room], va="center", **_WORDS)


def _draw_service(axes: Axes, bottom_of: dict[str, float]) -> None:
    """The service, with arrows to the rooms that it may import from."""
    lowest, highest = bottom_of["errors"], bottom_of["stores"] + _FLOOR
    _draw_box(axes, _SERVICE, lowest, _WIDTH - _SERVICE - 0.1, highest - lowest, colour="#fdf3e1", edge=HUES[1])
    axes.text(_SERVICE, highest + 0.22, "custseg_serving", **_TITLE)
    axes.text(_SERVICE + 0.12, (lowest + highest) / 2, THE_SERVICE, va="center", linespacing=1.35, **_WORDS)
    for room in SEEN_BY_THE_SERVICE:
        middle = bottom_of[room] + _FLOOR / 2
        _arrow(axes, (_SERVICE, middle), (_RIGHT, middle))


def _draw_box(axes: Axes, left: float, bottom: float, width: float, height: float, *, colour: str, edge: str) -> None:
    style = "round,pad=0,rounding_size=0.07"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, style, facecolor=colour, edgecolor=edge, linewidth=1))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 1}
    )


if __name__ == "__main__":
    PICTURE.write_bytes(draw_rooms(read_floors(CONTRACTS)))
