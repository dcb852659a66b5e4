"""What every table is declared to read is what its asset opens, no more and no less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from custseg_assets.definitions import build_defs
from custseg_assets.domain.schemas import RELEASE_READS, Read, tables
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from custseg_assets.stores.tables import TableReader, TableStore
from tests.support.prediction_records import record_line
from tests.support.shops import QUICK, custseg, quiet, shop_log, write_log

FEATURES = ("recency_days", "frequency_orders", "monetary_net")
DECLARED = {name: table.reads for name, table in tables(FEATURES).items()} | {"serving_release": RELEASE_READS}
TOGETHER = {
    "clean_transactions": ("clean_transactions", "rejected_transactions"),
    "product_recommendations": ("product_recommendations", "segment_products"),
    "recorded_predictions": ("prediction_log", "rejected_predictions"),
    "value": ("value_model", "customer_value"),
}
"""Steps that make more than one table: what each of them opens cannot be told apart."""
_MADE_FIRST = ("value_model",)
"""Tables that another table of the same step is made from."""
SHOWN = {
    "prediction_traffic": {"prediction_traffic"},
    "campaign_groups": {"campaign_groups"},
    "campaign_report": {"campaign_report"},
    "segmentation_model": {"segment_assignments"},
    "promotion_decision": {"segment_assignments"},
}
"""What a step also opens, but makes nothing from: the table as it stands, for people to look at where nothing was
written; and which snapshots have segments, to tell which of them a retrain is about."""


class Recorder:
    """Notes which tables each step opens, but for what it has written itself by then.

    Attributes:
        opened: step → tables.
    """

    def __init__(self) -> None:
        self.opened: dict[str, set[str]] = {}
        self._written: set[tuple[str, str]] = set()

    def note(self, name: str, *, is_write: bool = False) -> None:
        try:
            context = dg.OpExecutionContext.get()
        except Exception:  # noqa: BLE001  (outside a step there is nothing to note, and Dagster has no question for that)
            return
        if is_write:
            self._written.add((context.run_id + context.op.name, name))
        elif (context.run_id + context.op.name, name) not in self._written:
            self.opened.setdefault(context.op.name, set()).add(name)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Have every look at rows, or at how many there are, noted; nothing is kept from one step for the next."""
        patch.setattr(OpenHome, "_versions", lambda *_: object())
        for kind, names in ((TableReader, ("table_files", "whole", "sizes")), (TableStore, ("write", "append"))):
            for method in names:
                patch.setattr(kind, method, self._watched(getattr(kind, method), is_write=kind is TableStore))

    def _watched(self, original: Any, *, is_write: bool) -> Any:
        def watched(store: TableStore, table: Any, *arguments: Any, **others: Any) -> Any:
            if not is_write:
                self.note(table.name)
            result = original(store, table, *arguments, **others)
            if is_write:
                self.note(table.name, is_write=True)
            return result

        return watched


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, set[str]]]:
    """What was opened in a home's life: first model, later snapshots, retrain, promotion, moves, releases, requests."""
    folder = tmp_path_factory.mktemp("reads")
    home, recorder = folder / "home", Recorder()
    requests = home / "prediction_log"
    with pytest.MonkeyPatch.context() as patch:
        recorder.watch(patch)
        for n_months, commands in ((4, ("run", "retrain")), (5, ("run",))):
            source = write_log(shop_log(n_months), folder / "log.csv")
            for command in commands:
                more = ("--source", source) if command == "run" else ()
                outcome = custseg(home, command, *more, config=QUICK)
                assert outcome.status == 0, outcome.err
            if command == "retrain":
                challenger = outcome.out.split()[1]
                promoted = custseg(home, "promote", challenger, "--why", "To see its segments.", config=QUICK)
                assert promoted.status == 0, promoted.err
                wish = ("one", "--segment", "S1", "--yes", "--out", folder / "one.csv")
                begun = custseg(home, "campaign", "start", *wish, config=QUICK)
                assert begun.status == 0, begun.err
                requests.mkdir()
                (requests / "a.jsonl").write_bytes(record_line() + b"no record\n")
        yield recorder.opened


def differences(opened: Mapping[str, set[str]], declared: Mapping[str, tuple[Read, ...]]) -> dict[str, str]:
    """What is opened and not declared, or declared and never opened, by step."""
    found = {}
    for step in opened.keys() | {name for name in declared if not any(name in made for made in TOGETHER.values())}:
        wanted = {read.table for name in TOGETHER.get(step, (step,)) for read in declared.get(name, ())}
        # What a step has just made itself it does not open.
        wanted &= set(tables(FEATURES)) - {name for name in TOGETHER.get(step, ()) if name in _MADE_FIRST}
        undeclared, unopened = (
            opened.get(step, set()) - wanted - SHOWN.get(step, set()),
            wanted - opened.get(step, set()),
        )
        if undeclared or unopened:
            found[step] = f"opened, not declared: {sorted(undeclared)}; declared, not opened: {sorted(unopened)}"
    return found


def test_what_is_declared_is_what_is_opened(opened: Mapping[str, set[str]]) -> None:
    assert differences(opened, DECLARED) == {}


def read_with(name: str) -> set[str]:
    """The other tables of the same step, and what they are declared to read: one more reader makes no difference."""
    others = {other for step in TOGETHER.values() if name in step for other in step} - {name}
    return others | {read.table for other in others for read in DECLARED[other]}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (name, place)
        for name, reads in DECLARED.items()
        for place, read in enumerate(reads)
        if read.table in tables(FEATURES) and read.table not in read_with(name)
    ],
)
def test_an_entry_taken_out_is_missed(opened: Mapping[str, set[str]], name: str, place: int) -> None:
    reads = DECLARED[name]
    assert differences(opened, {**DECLARED, name: (*reads[:place], *reads[place + 1 :])})


@pytest.mark.parametrize("name", DECLARED)
def test_an_entry_too_many_is_noticed(opened: Mapping[str, set[str]], name: str) -> None:
    other = next(one for one in tables(FEATURES) if one not in {read.table for read in DECLARED[name]} | {name})
    assert differences(opened, {**DECLARED, name: (*DECLARED[name], Read(other))})


def test_a_column_cannot_be_computed_from_a_table_that_is_not_read() -> None:
    profiles = tables(FEATURES)["segment_profiles"]
    with pytest.raises(
        ValueError, match=r"segment_profiles: .* from \['customer_features'\], which it is not declared"
    ):
        replace(profiles, reads=tuple(read for read in profiles.reads if read.table != "customer_features"))


def test_dagster_draws_every_read_that_leads_in_no_circle(tmp_path: Path) -> None:
    with quiet():
        graph = build_defs(settings=load_settings(home=tmp_path / "home", environment={})).resolve_asset_graph()
    for name, reads in DECLARED.items():
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(name)).parent_keys}
        assert parents == {read.table for read in reads if not read.is_circular}, name


def test_a_read_that_is_not_drawn_would_lead_in_a_circle() -> None:
    drawn = {name: {read.table for read in reads if not read.is_circular} for name, reads in DECLARED.items()}

    def leads_to(name: str) -> set[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            parents = drawn.get(waiting.pop(), set()) - found
            found |= parents
            waiting += parents
        return found

    circular = [(name, read.table) for name, reads in DECLARED.items() for read in reads if read.is_circular]
    assert circular
    needless = [(name, other) for name, other in circular if name not in {other} | leads_to(other)]
    assert needless == []
