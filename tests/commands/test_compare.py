"""``custseg compare``: other models beside the one in force."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient
from PIL import Image

from custseg_assets.cli import main
from custseg_assets.domain.schemas import SEGMENT_ASSIGNMENTS
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from tests.support.shops import FilledShop, Outcome, custseg


@dataclass(frozen=True)
class Compared:
    """A home before and after a comparison.

    Attributes:
        home: its folder.
        before: digest of each of its files but MLflow's, before the comparison.
        outcome: how the command ended.
        picture: that it wrote.
    """

    home: Path
    before: dict[str, str]
    outcome: Outcome
    picture: Path


def digests(home: Path) -> dict[str, str]:
    files = (path for path in home.rglob("*") if path.is_file() and path.name != "lock")
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.relative_to(home).parts[0] != "mlflow"
    }


@pytest.fixture(scope="module")
def compared(filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("compared")
    home = shutil.copytree(filled_shop.home, folder / "home")
    # MLflow has the paths of artifacts as they were when its database was made.
    with contextlib.closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as database, database:
        moved = "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)"
        database.execute(moved, (str(filled_shop.home), str(home)))
    before = digests(home)
    outcome = custseg(home, "compare", "--k", "2-4", "--out", folder / "side.png")
    return Compared(home, before, outcome, folder / "side.png")


def table_of(outcome: Outcome) -> dict[str, list[str]]:
    """Candidate → the cells of its line."""
    found = re.findall(r"^  (in force|kmeans \d+) +(\S.*)$", outcome.out, flags=re.MULTILINE)
    return {name: cells.split() for name, cells in found}


def test_every_number_of_clusters_stands_beside_the_model_in_force(compared: Compared) -> None:
    assert compared.outcome.status == 0, compared.outcome.err
    assert [*table_of(compared.outcome)] == ["in force", "kmeans 2", "kmeans 3", "kmeans 4"]
    assert Image.open(io.BytesIO(compared.picture.read_bytes())).format == "PNG"


def test_nothing_in_the_home_changes_but_mlflow(compared: Compared) -> None:
    assert digests(compared.home) == compared.before


def record(compared: Compared) -> pl.DataFrame:
    (path,) = compared.home.glob("mlflow/artifacts/*/artifacts/comparison.json")
    return pl.DataFrame(json.loads(path.read_text(encoding="utf-8")), infer_schema_length=None)


def test_the_record_in_mlflow_has_a_run_for_each_with_its_figures(compared: Compared) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{compared.home / 'mlflow' / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    (parent,) = client.search_runs(experiments, "tags.`custseg.compare` != ''")
    nested = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    rows = {row["name"]: row for row in record(compared).to_dicts()}
    assert {run.info.run_name for run in nested} == rows.keys()
    for run in nested:
        assert run.data.metrics["share_moved"] == rows[run.info.run_name]["share_moved"]


def test_the_figures_are_those_of_the_homes_own_customers(compared: Compared) -> None:
    """As many clusters as the model in force has move few customers; others split or join its segments."""
    rows = {row["name"]: row for row in record(compared).to_dicts()}
    in_force = rows["in force"]
    assert in_force["share_moved"] == 0
    same = rows[f"kmeans {in_force['k']}"]
    others = [row for name, row in rows.items() if row["k"] != in_force["k"]]
    assert same["share_moved"] < min(row["share_moved"] for row in others)
    assert 0 < same["bootstrap_ari"] <= 1
    opened = OpenHome(load_settings(compared.home / "custseg.toml", home=compared.home))
    assigned = opened.tables.read(SEGMENT_ASSIGNMENTS, [opened.calendar.snapshot_keys[-1]])
    # Sizes are those of the nearest centroids: without the margin rule, which keeps some in their earlier segment.
    nearest = pl.when("is_held").then("runner_up_segment_id").otherwise("segment_id")
    sizes = assigned.filter(~pl.col("is_rule_segment")).select(nearest.value_counts()).unnest(pl.all())["count"]
    assert (in_force["smallest_segment"], in_force["smallest_share"]) == (sizes.min(), sizes.min() / sizes.sum())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--partition", "2031-01-01"], "snapshot 2031-01-01 of home"),
        (["--k", "6-3"], "'6-3' is no range of 2 to 30"),
        (["--out", "side.jpeg"], "a name that ends in .png"),
        (["--kinds", "mean"], "'mean'; expected one of kmeans, gaussian_mixture, deep"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(
    filled_shop: FilledShop, arguments: list[str], words: str
) -> None:
    outcome = custseg(filled_shop.home, "compare", *arguments)
    assert outcome.status == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_an_empty_home_has_nothing_to_compare(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 2
    assert "custseg run" in capsys.readouterr().err
    assert not home.exists()
