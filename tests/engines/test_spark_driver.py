"""Spark's classic driver in this process, which then can have no session of Spark Connect."""

from __future__ import annotations

from pathlib import Path

import pytest

from custseg_assets.domain.schemas import RAW_TRANSACTIONS
from custseg_assets.engines.spark_engine import SparkEngine
from custseg_assets.errors import RunFailedError
from tests.support.engines import write_files
from tests.support.odd_shop import RULES, odd_shop
from tests.support.spark_servers import shared_session

pytestmark = pytest.mark.spark


def test_executors_that_write_into_another_folder_than_this_process_reads_are_noticed(tmp_path: Path) -> None:
    """As on machines that do not share the home's folder: here the folder that was written is moved away."""
    raw = write_files(RAW_TRANSACTIONS, odd_shop(), tmp_path / "raw")

    class Elsewhere(SparkEngine):
        def write(self, lines: object, folder: str) -> None:
            super().write(lines, f"{folder} elsewhere")  # type: ignore[arg-type]

    with pytest.raises(RunFailedError, match=r"was given \d+ lines, and 0 of them are in .* all of them share"):
        list(Elsewhere(shared_session("local[1]")).classify(raw, RULES["retail"], tmp_path / "staging"))


def test_a_file_that_spark_cannot_read_fails_the_run_in_one_line(tmp_path: Path) -> None:
    raw = write_files(RAW_TRANSACTIONS, odd_shop(), tmp_path / "raw")
    Path(raw.files[0].path).write_bytes(b"no parquet")
    with pytest.raises(RunFailedError, match=r"^Spark: ") as caught:
        list(SparkEngine(shared_session("local[1]")).classify(raw, RULES["retail"], tmp_path / "staging"))
    assert "\n" not in str(caught.value)
