"""What is doubtful about a home's log, however many files it is in and however they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from custseg_assets.home import log_doubts
from custseg_assets.home.log_doubts import find_log_doubts
from custseg_assets.settings import Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore

N_FILES, N_LINES = 3, 40
"""Files of a day each, and lines of each, of which every second is the one before once more."""


def write(path: Path, day: int) -> Path:
    rows = ["invoice_id,product_id,quantity,invoiced_at,unit_price,customer_id"]
    for number in range(N_LINES):
        which = number // 2
        rows.append(f"{day}{which:03},P{which % 7},1,2026-03-{day:02} 10:{which:02}:00,{2 + which % 5},C{which % 9}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("read_once", [0, N_FILES * N_LINES - 1, N_FILES * N_LINES])
def test_a_log_is_as_doubtful_whether_it_is_read_once_or_for_each_doubt(
    tmp_path: Path, read_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_doubts, "_READ_ONCE", read_once)
    store = DeliveryStore(tmp_path / "deliveries")
    files = [write(tmp_path / f"{day}.csv", day) for day in range(1, N_FILES + 1)]
    deliveries = [store.accept(path, SourceSettings(), lambda _: None) for path in reversed(files)]
    doubts = {doubt.code: doubt.words for doubt in find_log_doubts(store, deliveries, Settings(home=tmp_path))}
    n, extra = N_FILES * N_LINES, N_FILES * N_LINES // 2
    assert doubts["equal_lines"].startswith(f"{extra} of {n} lines are equal to another line of their file")
    lines = store.scan(deliveries).collect()
    assert lines["source_file"].to_list() == [path.name for path in files for _ in range(N_LINES)]
    assert lines["invoice_id"].str.head(1).to_list() == [path.stem for path in files for _ in range(N_LINES)]
