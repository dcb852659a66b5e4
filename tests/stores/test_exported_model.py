"""An export is the same bytes whenever it is written, and what is not one is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES
from custseg_assets.errors import BadInputError
from custseg_assets.stores.exported_model import (
    ExportWriter,
    Manifest,
    ModelFacts,
    digest_of_file,
    flaws_of,
    in_one_order,
    manifest_from,
    read_manifest,
    read_rows,
    write_rows,
)
from tests.support.files import REPOSITORY
from tests.support.trainings import KEY, features_of

FACTS = ModelFacts("m-1", KEY, None, (KEY,), "2011-05-01 00:00:00", "2011-06-01 00:00:00", {}, {"x": {KEY: "1f"}})

_WRITES = """
import sys
from pathlib import Path
import polars as pl
from custseg_assets.stores.exported_model import in_one_order, write_rows
from custseg_assets.domain.schemas import CUSTOMER_FEATURES
rows = pl.read_parquet(sys.argv[1])
rows = pl.concat([part for part in rows.sample(fraction=1, shuffle=True, seed=int(sys.argv[3])).iter_slices(777)])
write_rows(in_one_order(CUSTOMER_FEATURES, rows), Path(sys.argv[2]))
"""


def test_rows_are_the_same_bytes_from_any_process_any_order_and_any_threads(tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    # More than a row group, so that it is known where each begins.
    pl.concat([features_of(2_000)] * 70).with_row_index().with_columns(
        customer_id=pl.format("{}-{}", "customer_id", "index")
    ).drop("index").write_parquet(rows)
    digests = set()
    for seed, threads in enumerate(("1", "4")):
        out = tmp_path / f"{seed}.parquet"
        environment = {**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": str(seed)}
        subprocess.run(
            [sys.executable, "-c", _WRITES, rows, out, str(seed)], cwd=REPOSITORY, check=True, env=environment
        )
        digests.add(digest_of_file(out))
    assert len(digests) == 1
    assert pl.read_parquet(tmp_path / "0.parquet").equals(pl.read_parquet(rows).sort("customer_id"))


def test_rows_without_an_order_of_their_own_are_ordered_by_all_columns() -> None:
    rows = (
        CLEAN_TRANSACTIONS.schema.to_frame()
        .clear(3)
        .with_columns(period=pl.Series(["b", "a", "a"]), customer_id=pl.Series(["1", "2", "1"]))
    )
    ordered = in_one_order(CLEAN_TRANSACTIONS, rows)
    assert ordered.select("period", "customer_id").rows() == [("a", "1"), ("a", "2"), ("b", "1")]
    assert ordered.equals(in_one_order(CLEAN_TRANSACTIONS, rows.reverse()))


def test_rows_come_back_with_a_column_that_was_declared_later(tmp_path: Path) -> None:
    rows = features_of(3)
    write_rows(rows.drop("country" if "country" in rows.columns else rows.columns[-1]), tmp_path / "rows.parquet")
    found = read_rows(tmp_path, CUSTOMER_FEATURES, "rows.parquet")
    assert found.schema == CUSTOMER_FEATURES.schema
    assert found[found.columns[-1]].null_count() == 3


def test_a_file_that_was_changed_or_removed_is_found(tmp_path: Path) -> None:
    folder, manifest = write(tmp_path)
    assert list(flaws_of(folder, manifest)) == []
    (folder / "model.json").write_text("{}")
    (folder / "model_card.md").unlink()
    assert dict(flaws_of(folder, manifest)) == {
        "model.json": "it has other content than its manifest says",
        "model_card.md": "it is not here",
    }


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder, manifest = write(tmp_path)
    assert read_manifest(folder) == manifest
    assert manifest.rows_of("customer_features") == {KEY: f"data/customer_features/{KEY}.parquet"}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"files": {"../../somewhere.json": "00"}},
        {"files": {"data/customer_features/../../../x.parquet": "00"}},
        {"files": {"/etc/passwd": "00"}},
        {"facts": {"model_version": "m-1"}},
        {"facts": 3},
    ],
)
def test_what_is_no_manifest_of_this_format_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder, manifest = write(tmp_path)
    text = json.dumps(json.loads(manifest.to_json()) | change)
    with pytest.raises(ValueError, match=r".+"):
        manifest_from(text)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BadInputError, match="expected the manifest of an exported model, of format 1"):
        read_manifest(folder)


@pytest.mark.parametrize("fingerprint", ["-1", "xyz", "f" * 16, ""])
def test_a_fingerprint_is_a_number_that_delta_can_hold(tmp_path: Path, fingerprint: str) -> None:
    fields = json.loads(write(tmp_path)[1].to_json())
    fields["facts"]["fingerprints"]["x"][KEY] = fingerprint
    with pytest.raises(ValueError, match="fingerprints"):
        manifest_from(json.dumps(fields))


def write(tmp_path: Path) -> tuple[Path, Manifest]:
    writer = ExportWriter(tmp_path / "export")
    writer.write_rows(CUSTOMER_FEATURES, KEY, features_of(5))
    writer.write_text("model.json", '{"k": 3}')
    writer.write_text("model_card.md", "# ü\n")
    return tmp_path / "export", writer.finish(FACTS)
