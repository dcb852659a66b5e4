"""What ``custseg ui`` shows of a home: graph, history, checks and pictures, and partitions made from its pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from custseg_assets.domain.schemas import tables
from tests.support.browser import open_page
from tests.support.dagster_pages import CODE_LOCATION, PATIENCE_SECONDS, Pages, serve_pages
from tests.support.shops import QUICK, FilledShop

SNAPSHOTS = ["2024-02-01", "2024-03-01", "2024-04-01"]


@pytest.fixture(scope="module")
def pages(filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """The pages of a copy of the home that ``custseg run`` has filled from four months of a small shop."""
    folder = tmp_path_factory.mktemp("ui")
    config = folder / "custseg.toml"
    config.write_text(QUICK, encoding="utf-8")
    with serve_pages(shutil.copytree(filled_shop.home, folder / "home"), config) as pages:
        yield pages
        assert pages.live.stop(), "something that custseg ui started goes on after it"


def test_every_asset_and_job_is_loaded(pages: Pages) -> None:
    location = pages.ask("""{ workspaceOrError { ... on Workspace { locationEntries {
        locationOrLoadError { __typename ... on RepositoryLocation { repositories { jobs { name } } } } } } } }""")
    (entry,) = location["workspaceOrError"]["locationEntries"]
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    (repository,) = entry["locationOrLoadError"]["repositories"]
    jobs = {job["name"] for job in repository["jobs"]}
    assert {"ingest", "features", "train", "segment"} <= jobs
    assert set(_nodes(pages)) == {*tables(()), "landed_files", "serving_release"}


def test_what_a_run_made_is_materialised_and_checked(pages: Pages) -> None:
    nodes = _nodes(pages)
    done = {name: _partitions(node) for name, node in nodes.items() if node["partitionStats"]}
    assert done == {
        **dict.fromkeys(done, (3, 3, 0)),
        **dict.fromkeys(("raw_transactions", "clean_transactions", "rejected_transactions"), (4, 4, 0)),
    }
    # Also what had nothing to do: no file has landed, and no service was asked. Campaigns begin with a person.
    unmade = [name for name, node in nodes.items() if not node["assetMaterializations"]]
    assert sorted(unmade) == ["campaign_groups", "campaign_report"]
    made = [node for name, node in nodes.items() if name not in unmade]
    checks = [check for node in made for check in node["assetChecksOrError"].get("checks", [])]
    verdicts = {check["executionForLatestMaterialization"]["status"] for check in checks}
    assert verdicts == {"SUCCEEDED"}


def test_each_job_lists_the_runs_of_the_command(pages: Pages) -> None:
    answer = pages.ask(
        """query ($repository: RepositorySelector!) { repositoryOrError(repositorySelector: $repository) {
        ... on Repository { pipelines { name runs(limit: 9) { status } } } } }""",
        repository=CODE_LOCATION,
    )
    listed = {job["name"]: job["runs"] for job in answer["repositoryOrError"]["pipelines"]}
    assert all(listed[job] for job in ("ingest", "features", "train", "segment"))
    assert {run["status"] for runs in listed.values() for run in runs} == {"SUCCESS"}


def test_a_partition_made_from_the_pages_succeeds_and_nothing_is_marked_stale(pages: Pages) -> None:
    before = _staleness(pages)
    assert len(before) == 14
    assert set(before.values()) == {("FRESH",) * 3}
    run_id = pages.launch("features", SNAPSHOTS[0])
    pages.live.wait(lambda: pages.status(run_id) in ("SUCCESS", "FAILURE"), PATIENCE_SECONDS)
    assert pages.status(run_id) == "SUCCESS"
    assert _staleness(pages) == before


def test_the_graph_shows_every_asset_without_an_error(pages: Pages) -> None:
    with open_page() as (page, errors):
        page.goto(pages.live.address("/asset-groups"))
        page.get_by_text("monitoring").first.wait_for(timeout=PATIENCE_SECONDS * 1000)
        page.mouse.move(1000, 850)
        page.keyboard.press("Alt+e")  # expand all groups
        for name in ("raw_transactions", "customer_features", "drift_report", "serving_release"):
            page.get_by_text(name, exact=True).first.wait_for(timeout=PATIENCE_SECONDS * 1000)
        assert errors == []


def test_an_asset_page_shows_its_picture_and_where_its_columns_come_from(pages: Pages) -> None:
    with open_page() as (page, errors):
        page.goto(pages.live.address("/assets/segment_profiles"))
        _metadata(page, "profile").click(timeout=PATIENCE_SECONDS * 1000)
        picture = page.get_by_role("img", name="profile of the segments")
        picture.wait_for()
        size = picture.bounding_box()
        assert size is not None
        assert size["height"] > 100
        page.goto(pages.live.address("/assets/customer_features"))
        _metadata(page, "column_lineage").click(timeout=PATIENCE_SECONDS * 1000)
        row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="monetary_net", exact=True))
        told = row.filter(has_text="raw_transactions").inner_text()
        assert {"line_amount", "quantity", "unit_price"} <= set(told.replace(",", " ").split())
        assert errors == []


def _metadata(page: Any, label: str) -> Any:
    """What opens a metadata entry that is too long for its row."""
    return page.get_by_role("row").filter(has=page.get_by_text(label, exact=True)).get_by_text("[Show Markdown]")


def _nodes(pages: Pages) -> dict[str, Any]:
    answer = pages.ask("""{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId }
        partitionStats { numMaterialized numPartitions numFailed }
        assetChecksOrError { ... on AssetChecks { checks { executionForLatestMaterialization { status } } } } } }""")
    return {node["assetKey"]["path"][0]: node for node in answer["assetNodes"]}


def _partitions(node: dict[str, Any]) -> tuple[int, int, int]:
    stats = node["partitionStats"]
    return stats["numMaterialized"], stats["numPartitions"], stats["numFailed"]


def _staleness(pages: Pages) -> dict[str, tuple[str, ...]]:
    """What Dagster says of each table's snapshots: FRESH, STALE where it would make it again, or MISSING."""
    by_snapshot = [
        name for name, node in _nodes(pages).items() if (node["partitionStats"] or {}).get("numPartitions") == 3
    ]
    query = """query ($asset: AssetKeyInput!, $keys: [String!]!) { assetNodeOrError(assetKey: $asset) {
        ... on AssetNode { staleStatusByPartition(partitions: $keys) } } }"""
    found = {name: pages.ask(query, asset={"path": [name]}, keys=SNAPSHOTS) for name in by_snapshot}
    return {name: tuple(answer["assetNodeOrError"]["staleStatusByPartition"]) for name, answer in found.items()}
