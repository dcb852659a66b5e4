"""Tables in a bucket: what goes wrong there is told and costs nothing, and two writers never tear a table."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest

from custseg_assets.defs.automation import cause_of
from custseg_assets.stores import bucket_tables
from custseg_assets.stores.bucket_tables import TablesError, TablesInBucket
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import Refused, Request
from tests.support.files import REPOSITORY
from tests.support.places import URI, tables_on
from tests.support.small_table import APRIL, MARCH, TABLE, rows


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    with FakeGcs("shop-data") as fake:
        # Delta's client waits by the machine's clock: a second for each change of an object would add up.
        fake.has_rate_limits = False
        yield fake


@pytest.fixture
def store(gcs: FakeGcs, tmp_path: Path) -> TablesInBucket:
    return tables_on(gcs, tmp_path / "notes")


@pytest.fixture
def elsewhere(gcs: FakeGcs, tmp_path: Path) -> TablesInBucket:
    """The same tables on another machine, which the home's lock does not hold off."""
    return tables_on(gcs, tmp_path / "notes of another machine")


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_tables, "_PATIENCE", {"max_retries": "0"})
    monkeypatch.setattr(bucket_tables, "_PATIENCE_OF_POLARS", {"max_retries": 0})


def is_write(request: Request, ending: str = "") -> bool:
    return request.method == "PUT" and request.path.endswith(ending)


def commit(version: int) -> str:
    """How the path of a commit ends, escaped as the client escapes it."""
    return f"{version:020}%2Ejson"


# Trouble with the bucket.


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("denied", "use", "said"),
    [
        (
            "storage.objects.list",
            lambda store: store.write(TABLE, rows((MARCH, 2)), {MARCH: 2}),
            "objects.list' denied",
        ),
        ("storage.objects.get", lambda store: store.read(TABLE), "objects.get' denied"),
        ("storage.objects.get", lambda store: store.version_of("u"), "objects.get' denied"),
        ("storage.objects.create", lambda store: store.append(TABLE, rows((MARCH, 2))), "objects.create' denied"),
    ],
)
def test_a_permission_that_is_missing_is_named_with_where_it_is_written(
    gcs: FakeGcs, store: TablesInBucket, denied: str, use: Callable[[TablesInBucket], object], said: str
) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    gcs.denied = {denied}
    with pytest.raises(TablesError, match=rf"gs://shop-data/home/tables: .*{said}.*docs/gcp\.md"):
        use(store)
    gcs.denied = set()
    assert (store.read(TABLE).rows(), store.fingerprint_of("t", MARCH)) == ([(MARCH, 1)], 1)


@pytest.mark.usefixtures("_impatient")
def test_a_bucket_that_is_not_there_is_named(gcs: FakeGcs, store: TablesInBucket) -> None:
    del gcs.buckets["shop-data"]
    with pytest.raises(TablesError, match=r"there is no such bucket. Correct \[gcp.storage\] uri"):
        store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})


@pytest.mark.usefixtures("_impatient")
def test_a_bucket_that_does_not_answer_loses_nothing(store: TablesInBucket, tmp_path: Path) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    nowhere = TablesInBucket(f"{URI}/tables", "http://127.0.0.1:9", tmp_path / "notes")
    with pytest.raises(TablesError, match=r"Connection refused.*Nothing was lost; run it again"):
        nowhere.write(TABLE, rows((MARCH, 2)), {MARCH: 2})
    with pytest.raises(TablesError, match="Nothing was lost"):
        nowhere.read(TABLE)
    assert (store.read(TABLE).rows(), store.fingerprint_of("t", MARCH)) == ([(MARCH, 1)], 1)


def test_credentials_that_are_not_there_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no such file"))
    store = TablesInBucket(f"{URI}/tables", None, tmp_path / "notes")
    with pytest.raises(TablesError, match="gcloud auth application-default login"):
        store.version_of("t")


def test_a_busy_service_is_asked_again(gcs: FakeGcs, store: TablesInBucket) -> None:
    gcs.n_unavailable = 2
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    gcs.n_unavailable = 1
    assert store.read(TABLE).rows() == [(MARCH, 1)]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("n_writes", range(1, 4))
def test_a_bucket_that_fails_in_the_middle_of_a_write_leaves_the_table_as_it_was(
    gcs: FakeGcs, store: TablesInBucket, n_writes: int
) -> None:
    store.write(TABLE, rows((MARCH, 1), (APRIL, 2)), {MARCH: 1, APRIL: 1})
    left = n_writes

    def failing(request: Request) -> None:
        nonlocal left
        left -= is_write(request)
        if left <= 0:
            raise Refused(503, "UNAVAILABLE", "The service is currently unavailable.")

    gcs.on_request = failing
    with pytest.raises(TablesError, match="Nothing was lost; run it again"):
        store.write(TABLE, rows((MARCH, 5), (APRIL, 6)), {MARCH: 2, APRIL: 2})
    gcs.on_request = lambda _: None
    assert store.read(TABLE)["n"].to_list() == [1, 2]
    assert store.fingerprint_of("t", MARCH) == 1
    store.write(TABLE, rows((MARCH, 5), (APRIL, 6)), {MARCH: 2, APRIL: 2})
    assert store.read(TABLE)["n"].to_list() == [5, 6]


@pytest.mark.usefixtures("_impatient")
def test_a_commit_whose_answer_is_lost_is_looked_for_and_there(gcs: FakeGcs, store: TablesInBucket) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})

    def cut(request: Request) -> None:
        gcs.n_cut += is_write(request, commit(1))

    gcs.on_request = cut
    store.write(TABLE, rows((MARCH, 2)), {MARCH: 2})
    gcs.on_request = lambda _: None
    assert (store.read(TABLE).rows(), store.fingerprint_of("t", MARCH), store.version_of("t")) == ([(MARCH, 2)], 2, 1)


@pytest.mark.parametrize("troubles", [(), (503, 503, 429, 429, 0, 0)])
def test_lost_answers_and_a_busy_service_change_nothing(
    gcs: FakeGcs, store: TablesInBucket, tmp_path: Path, troubles: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_tables, "_PATIENCE", {"max_retries": "8", "backoff_config.init_backoff": "10ms"})
    monkeypatch.setattr(bucket_tables, "_PATIENCE_OF_POLARS", {"max_retries": 8, "retry_init_backoff_ms": 10})
    gcs.troubles, gcs.loses_answers = troubles, not troubles
    store = tables_on(gcs, tmp_path / "notes")
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    store.write(TABLE, rows((MARCH, 2), (APRIL, 1)), {MARCH: 2, APRIL: 1})
    store.append(TABLE, rows((APRIL, 5)))
    store.append(TABLE, rows((APRIL, 6)))
    assert (store.sizes(TABLE), store.read(TABLE).height) == ({MARCH: 1, APRIL: 3}, 4)
    store.tidy(TABLE, [APRIL])
    assert store.remove_before(TABLE, APRIL) == [MARCH]
    store.forget(TABLE, [APRIL])
    store.write(TABLE, rows((APRIL, 7)), {APRIL: 4})
    # Enough commits for a checkpoint.
    for n in range(3):
        store.write(TABLE, rows((APRIL, n)), {APRIL: n + 1})
    gcs.troubles, gcs.loses_answers = (), False
    another = tables_on(gcs, tmp_path / "notes of another machine")
    for reader in (store, another):
        assert (reader.read(TABLE).rows(), reader.fingerprint_of("t", APRIL)) == ([(APRIL, 2)], 3)


KILLED = """
import sys
from pathlib import Path
from custseg_assets.stores.bucket_tables import TablesInBucket
from tests.support.small_table import APRIL, MARCH, TABLE, rows

store = TablesInBucket(*sys.argv[1:3], Path(sys.argv[3]))
store.write(TABLE, rows((MARCH, 5), (APRIL, 6)), {MARCH: 2, APRIL: 2})
"""


@pytest.mark.parametrize(("n_writes", "survives"), [(1, False), (2, False), (3, True)])
def test_a_writer_killed_at_any_write_leaves_all_of_it_or_nothing(
    gcs: FakeGcs, store: TablesInBucket, tmp_path: Path, n_writes: int, *, survives: bool
) -> None:
    store.write(TABLE, rows((MARCH, 1), (APRIL, 2)), {MARCH: 1, APRIL: 1})
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, f"{URI}/tables", gcs.url, str(tmp_path / "notes")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
    )
    left = n_writes

    def kill(request: Request) -> None:
        nonlocal left
        left -= is_write(request)
        if left == 0 and is_write(request):
            writer.send_signal(signal.SIGKILL)
            writer.wait()

    gcs.on_request = kill
    assert writer.wait(timeout=60) == -signal.SIGKILL
    gcs.on_request = lambda _: None
    # Nobody has told this process, which had looked before, that there was a commit or none.
    made = (store.read(TABLE)["n"].to_list(), store.fingerprint_of("t", MARCH))
    assert made == (([5, 6], 2) if survives else ([1, 2], 1))
    store.write(TABLE, rows((MARCH, 7), (APRIL, 8)), {MARCH: 3, APRIL: 3})
    assert store.read(TABLE)["n"].to_list() == [7, 8]


@pytest.mark.usefixtures("_impatient")
def test_rows_that_a_step_cannot_read_are_told_of_in_the_same_words(gcs: FakeGcs, store: TablesInBucket) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    rows_of_a_step = store.scan(TABLE)
    gcs.denied = {"storage.objects.get"}
    with pytest.raises(OSError, match="object-store error") as raised:
        rows_of_a_step.collect()
    error = SimpleNamespace(cause=None, message=f"PermissionError: {raised.value}\n")
    assert re.fullmatch(
        r"gs://shop-data/home/tables/t/period=2011-03-01/.*: Permission .* Grant .* that docs/gcp\.md .*",
        cause_of(error),
    )
    assert cause_of(SimpleNamespace(cause=None, message="KeyError:\n 'x'")) == "KeyError: 'x'"


# Two machines.


def test_who_commits_the_same_rows_second_is_told_and_changes_nothing(
    gcs: FakeGcs, store: TablesInBucket, elsewhere: TablesInBucket
) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    overtake(gcs, commit(1), lambda: elsewhere.write(TABLE, rows((MARCH, 2)), {MARCH: 2}))
    with pytest.raises(TablesError, match=r"somebody else changed the same rows.*only one machine"):
        store.write(TABLE, rows((MARCH, 3)), {MARCH: 3})
    assert (store.read(TABLE).rows(), store.fingerprint_of("t", MARCH)) == ([(MARCH, 2)], 2)


def test_commits_of_other_rows_both_land(gcs: FakeGcs, store: TablesInBucket, elsewhere: TablesInBucket) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    store.write(TABLE, rows((APRIL, 1)), {APRIL: 1})
    overtake(gcs, commit(2), lambda: elsewhere.write(TABLE, rows((MARCH, 2)), {MARCH: 2}))
    store.write(TABLE, rows((APRIL, 3)), {APRIL: 3})
    assert store.read(TABLE).rows() == [(MARCH, 2), (APRIL, 3)]
    # What was known of the other rows is forgotten with their commit.
    assert [store.fingerprint_of("t", key) for key in (MARCH, APRIL)] == [2, 3]


def test_of_two_who_make_a_table_one_makes_it(gcs: FakeGcs, store: TablesInBucket, elsewhere: TablesInBucket) -> None:
    overtake(gcs, commit(0), lambda: elsewhere.write(TABLE, rows((MARCH, 2)), {MARCH: 2}))
    with pytest.raises(TablesError, match="somebody else"):
        store.write(TABLE, rows((MARCH, 3)), {MARCH: 3})
    assert store.read(TABLE).rows() == elsewhere.read(TABLE).rows() == [(MARCH, 2)]


def test_many_writers_at_once_leave_what_those_wrote_who_were_not_refused(gcs: FakeGcs, tmp_path: Path) -> None:
    tables_on(gcs, tmp_path / "first").write(TABLE, rows(("0", 0)), {"0": 1})
    ready = Barrier(4)

    def write(n: int) -> bool:
        mine = tables_on(gcs, tmp_path / str(n))
        ready.wait()
        try:
            mine.write(TABLE, rows((str(n), n)), {str(n): n})
        except TablesError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        landed = [n for n, done in zip(range(1, 5), pool.map(write, range(1, 5)), strict=True) if done]
    found = tables_on(gcs, tmp_path / "last")
    assert landed
    assert found.read(TABLE)["n"].to_list() == [0, *landed]
    assert [n for n in range(1, 5) if found.fingerprint_of("t", str(n))] == landed


def overtake(gcs: FakeGcs, ending: str, act: Callable[[], None]) -> None:
    """Do something, once, when a write arrives and before it is worked on."""

    def on_request(request: Request) -> None:
        if is_write(request, ending):
            gcs.on_request = lambda _: None
            act()

    gcs.on_request = on_request


# What is noted here.


def test_the_bucket_is_not_asked_for_what_this_machine_did(gcs: FakeGcs, store: TablesInBucket, tmp_path: Path) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    gcs.requests.clear()
    assert (store.fingerprint_of("t", MARCH), store.version_of("t"), store.sizes(TABLE)) == (1, 0, {MARCH: 1})
    assert gcs.requests == []
    another = tables_on(gcs, tmp_path / "notes")
    another.write(TABLE, rows((APRIL, 2)), {APRIL: 2})
    gcs.requests.clear()
    assert [another.fingerprint_of("t", key) for key in (MARCH, APRIL)] == [1, 2]
    assert gcs.requests == []


def test_a_table_that_is_not_there_is_looked_for_once(gcs: FakeGcs, store: TablesInBucket, tmp_path: Path) -> None:
    assert store.fingerprint_of("t", MARCH) is None
    gcs.requests.clear()
    assert store.fingerprint_of("t", APRIL) is None
    assert gcs.requests == []
    tables_on(gcs, tmp_path / "notes").write(TABLE, rows((APRIL, 1)), {APRIL: 7})
    assert store.fingerprint_of("t", APRIL) == 7


def test_a_note_of_another_version_is_not_believed(
    store: TablesInBucket, elsewhere: TablesInBucket, gcs: FakeGcs, tmp_path: Path
) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    elsewhere.write(TABLE, rows((MARCH, 2)), {MARCH: 2})
    assert tables_on(gcs, tmp_path / "notes").fingerprint_of("t", MARCH) == 2


def test_a_note_of_a_table_that_was_removed_is_not_believed(
    store: TablesInBucket, elsewhere: TablesInBucket, gcs: FakeGcs, tmp_path: Path
) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    gcs.buckets["shop-data"].clear()
    elsewhere.write(TABLE, rows((APRIL, 2)), {APRIL: 2})
    assert tables_on(gcs, tmp_path / "notes").fingerprint_of("t", MARCH) is None


def test_a_commit_under_way_is_in_doubt_for_everybody_on_this_machine(
    gcs: FakeGcs, store: TablesInBucket, tmp_path: Path
) -> None:
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    reader = tables_on(gcs, tmp_path / "notes")
    assert reader.fingerprint_of("t", MARCH) == 1
    seen = []

    def look(request: Request) -> None:
        if is_write(request, commit(1)):
            gcs.on_request = lambda _: None
            seen.append((reader.fingerprint_of("t", MARCH), (tmp_path / "notes" / "t").read_text()))

    gcs.on_request = look
    store.write(TABLE, rows((MARCH, 2)), {MARCH: 2})
    assert seen == [(1, "?")]
    assert reader.fingerprint_of("t", MARCH) == 2
    assert json.loads((tmp_path / "notes" / "t").read_text())["fingerprints"] == {MARCH: 2}


def test_a_long_history_costs_few_requests_to_open(gcs: FakeGcs, store: TablesInBucket, tmp_path: Path) -> None:
    for n in range(25):
        store.write(TABLE, rows((MARCH, n)), {MARCH: n + 1})
    gcs.requests.clear()
    found = tables_on(gcs, tmp_path / "elsewhere")
    assert found.read(TABLE)["n"].to_list() == [24]
    # Two for each of the ten commits since a checkpoint at the most, and the checkpoint.
    assert len(gcs.requests) < 30
    assert found.fingerprint_of("t", MARCH) == 25
