"""One switch for where large work is done: the same tables, nothing stale, and errors that say what to do."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from custseg_assets.engines import choice
from custseg_assets.engines.choice import DUCKDB_FROM_LINES, choose_engine
from custseg_assets.settings import EngineSettings
from custseg_assets.stores import staged
from tests.support.homes import require_same_tables
from tests.support.shops import QUICK, FilledShop, custseg, shop_log, write_log

needs_duckdb = pytest.mark.skipif(find_spec("duckdb") is None, reason="DuckDB is not installed here")


def configure(home: Path, more: str) -> Path:
    """A configuration beside a home."""
    path = home.with_name("other.toml")
    path.write_text(f"{QUICK}\n{more}", encoding="utf-8")
    return path


@pytest.fixture
def few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every period of a small shop is one that does not fit into memory."""
    from custseg_assets.defs.assets import ingest
    from custseg_assets.engines import polars_engine

    for module in (staged, ingest, polars_engine):
        for name in ("MAX_ROWS_AT_ONCE", "ROWS_OF_A_SLICE"):
            monkeypatch.setattr(module, name, 100)


@needs_duckdb
def test_a_home_switched_from_one_engine_to_another_finds_nothing_stale(shop_home: Path) -> None:
    for engine in ("duckdb", "polars", "auto"):
        outcome = custseg(shop_home, "run", "--engine", engine)
        assert outcome.status == 0, outcome.err
        assert "Nothing has changed" in outcome.out
        assert json.loads(custseg(shop_home, "status", "--json").out)["stale"] == {}


@pytest.mark.parametrize("engine", ["polars", pytest.param("duckdb", marks=needs_duckdb)])
@pytest.mark.usefixtures("few_rows_at_once")
def test_each_engine_makes_the_same_tables(engine: str, filled_shop: FilledShop, tmp_path: Path) -> None:
    home, source = tmp_path / "home", write_log(shop_log(4), tmp_path / "log.csv")
    outcome = custseg(home, "run", "--source", source, "--engine", engine, config=QUICK)
    assert outcome.status == 0, outcome.err
    require_same_tables(home, filled_shop.home)
    assert not (home / ".staging").exists()
    assert custseg(home, "run").out.startswith("\nNothing has changed")


@needs_duckdb
def test_the_engine_in_the_settings_is_kept_and_asked_of_nobody(shop_home: Path) -> None:
    configured = configure(shop_home, '[engine]\nname = "duckdb"\nmemory_limit = "300MB"\n')
    outcome = custseg(shop_home, "run", "--config", configured)
    assert outcome.status == 0, outcome.err
    assert "Nothing has changed" in outcome.out


def test_an_engine_that_is_none_is_refused_with_those_that_are(home: Path, tmp_path: Path) -> None:
    asked = custseg(home, "run", "--source", "demo", "--engine", "mysql")
    assert asked.status == 2
    assert "'mysql'" in asked.err
    assert "duckdb" in asked.err
    configured = configure(tmp_path / "home", '[engine]\nname = "duckdbs"\n')
    refused = custseg(home, "run", "--config", configured)
    assert refused.status == 2
    assert "engine.name = 'duckdbs'; expected input should be 'auto', 'polars', 'duckdb'" in refused.err
    assert not home.exists()


@pytest.mark.parametrize("more", ['memory_limit = "lots"', 'url = "sc://a:1"', 'name = "spark"\nurl = "ftp://a"'])
def test_values_that_no_engine_can_have_are_refused(more: str, home: Path, tmp_path: Path) -> None:
    refused = custseg(home, "run", "--config", configure(tmp_path / "home", f"[engine]\n{more}\n"))
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert not home.exists()


def test_an_engine_that_is_not_installed_is_refused_before_anything_is_done(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_is_installed", lambda _: False)
    refused = custseg(home, "run", "--source", "demo", "--engine", "duckdb")
    assert refused.status == 2
    assert "duckdb is not installed; expected an engine whose packages are installed" in refused.err
    assert "pip install 'custseg[duckdb]'" in refused.err
    assert not home.exists()


@needs_duckdb
def test_too_little_memory_is_one_sentence_and_another_engine_goes_on(tmp_path: Path) -> None:
    home, source = tmp_path / "home", write_log(shop_log(4), tmp_path / "log.csv")
    configured = configure(home, '[engine]\nname = "duckdb"\nmemory_limit = "1MB"\n')
    failed = custseg(home, "run", "--source", source, "--config", configured)
    assert failed.status == 1
    assert "DuckDB ran out of memory with [engine] memory_limit = '1MB'" in failed.err
    assert "Traceback" not in failed.err
    assert custseg(home, "run", "--engine", "polars").status == 0


@pytest.mark.parametrize(
    ("name", "n_lines", "is_local", "has_duckdb", "chosen"),
    [
        ("auto", DUCKDB_FROM_LINES, True, True, "duckdb"),
        ("auto", DUCKDB_FROM_LINES - 1, True, True, "polars"),
        ("auto", DUCKDB_FROM_LINES, True, False, "polars"),
        ("auto", DUCKDB_FROM_LINES, False, True, "polars"),
        ("duckdb", 1, True, True, "duckdb"),
        ("polars", 10**9, True, True, "polars"),
    ],
)
def test_auto_takes_duckdb_for_large_logs(
    name: str, n_lines: int, is_local: bool, has_duckdb: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_is_installed", lambda _: has_duckdb)
    assert choose_engine(EngineSettings.model_validate({"name": name}), n_lines, is_local=is_local) == chosen
