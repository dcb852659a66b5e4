"""Jobs of one command in one process."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import Stage
from custseg_assets.instance.execute import JobRunner
from custseg_assets.settings import load_settings
from custseg_assets.stores.delivery import CurrentSource
from tests.support.shops import shop_log, write_log


def test_definitions_are_made_anew_only_for_other_periods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenHome(load_settings(home=tmp_path / "home", environment={}))
    used: list[Any] = []
    monkeypatch.setattr(JobRunner, "launch", lambda _, definitions, *__: used.append(definitions))

    def set_source(name: str, log: pl.DataFrame) -> None:
        delivery = opened.deliveries.accept(
            write_log(log, tmp_path / name), opened.settings.source, progress=lambda _: None
        )
        opened.deliveries.set_current(CurrentSource((delivery,), description=name))

    with opened.locked() as locked, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        set_source("log.csv", shop_log(2))
        runner = JobRunner(locked, lambda _: None)
        with runner.instance:
            runner.execute(Stage("ingest"), locked)
            runner.execute(Stage("features"), locked)
            set_source("longer.csv", shop_log(3))
            runner.execute(Stage("ingest"), locked)
    first, second, third = used
    assert first is second
    assert third is not first
    of_raw = third.resolve_assets_def("raw_transactions").partitions_def
    assert of_raw.get_partition_keys() == ["2024-01-01", "2024-02-01", "2024-03-01"]
