"""Releases, landed files and the prediction log on Cloud Storage, by the real client on a fake of its JSON API."""

from __future__ import annotations

import contextlib
import gc
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from google.cloud.storage.retry import DEFAULT_RETRY

from custseg_assets.gcp.bucket import Bucket, BucketError
from custseg_assets.gcp.clients import storage_client
from custseg_assets.settings import Settings
from custseg_assets.stores import releases
from custseg_assets.stores.releases import DamagedReleaseError
from custseg_assets.stores.signatures import RequiredSignature, make_key_pair, sign_release
from custseg_serving.app import create_app
from custseg_serving.settings import ServingSettings
from tests.support import homes
from tests.support.fakes.gcs import Blob, FakeGcs
from tests.support.gcp_pieces import gcp_of
from tests.support.places import URI
from tests.support.releases import make_other_content, make_release
from tests.support.shops import shop_log, write_log
from tests.support.waiting import wait_until

pytestmark = pytest.mark.gcp


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    with FakeGcs("shop-data", page_size=3) as fake:
        yield fake


def bucket_of(gcs: FakeGcs, uri: str = URI) -> Bucket:
    return Bucket(storage_client(gcp_of("", gcs.url)), uri, patience_seconds=20)


@pytest.fixture
def bucket(gcs: FakeGcs) -> Iterator[Bucket]:
    with contextlib.closing(storage_client(gcp_of("", gcs.url))) as client:
        yield Bucket(client, URI, patience_seconds=20)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "pipeline"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "service"


def test_a_release_reaches_the_service_and_is_pointed_to(bucket: Bucket, here: Path, there: Path) -> None:
    release_id = make_release(here)
    bucket.push_release(here, release_id)
    assert bucket.pull_release(there) == release_id
    assert releases.current(there) == release_id
    assert releases.open_release(there, release_id).record_of("12347") is not None
    assert bucket.pull_release(there) is None


def test_a_signature_reaches_the_service_and_a_release_without_one_does_not(
    gcs: FakeGcs, bucket: Bucket, here: Path, there: Path, tmp_path: Path
) -> None:
    key = tmp_path / "signing.pem"
    check = RequiredSignature(make_key_pair(key))
    signed, unsigned = make_release(here, make_other_content()), make_release(here)
    sign_release(here, signed, key)
    bucket.push_release(here, signed)
    order = sorted(gcs.buckets["shop-data"].items(), key=lambda item: item[1].generation)
    assert [name.rpartition("/")[2] for name, _ in order[-3:]] == ["manifest.sig", "manifest.json", "CURRENT"]
    with contextlib.closing(storage_client(gcp_of("", gcs.url))) as client:
        following = Bucket(client, URI, patience_seconds=2, check=check)
        assert following.pull_release(there) == signed
        releases.verify(there, signed, check=check)
        bucket.push_release(here, unsigned)
        with pytest.raises(DamagedReleaseError, match="is not signed"):
            following.pull_release(there)
    assert releases.releases(there) == (signed,)
    assert releases.current(there) == signed


def test_pushing_again_copies_nothing(gcs: FakeGcs, bucket: Bucket, here: Path) -> None:
    release_id = make_release(here)
    bucket.push_release(here, release_id)
    before = {name: blob.generation for name, blob in gcs.buckets["shop-data"].items()}
    bucket.push_release(here, release_id)
    assert {name: blob.generation for name, blob in gcs.buckets["shop-data"].items()} == before


def test_the_manifest_is_written_after_every_other_file_and_current_after_it(
    gcs: FakeGcs, bucket: Bucket, here: Path
) -> None:
    bucket.push_release(here, make_release(here))
    blobs = gcs.buckets["shop-data"]
    order = sorted(blobs, key=lambda name: blobs[name].generation)
    assert [name.rpartition("/")[2] for name in order[-2:]] == ["manifest.json", "CURRENT"]


def test_a_push_that_is_cut_off_is_finished_by_the_next(gcs: FakeGcs, bucket: Bucket, here: Path, there: Path) -> None:
    release_id = make_release(here)
    gcs.denied.add("storage.objects.create")
    with pytest.raises(BucketError, match=r"storage.objects.create.*docs/gcp.md"):
        bucket.push_release(here, release_id)
    gcs.denied.clear()
    # Half of it is there.
    path = here / release_id / "model.json"
    gcs.put("shop-data", f"home/releases/{release_id}/model.json", path.read_bytes())
    assert bucket.pull_release(there) is None
    bucket.push_release(here, release_id)
    assert bucket.pull_release(there) == release_id


def test_a_release_that_is_damaged_here_is_not_pushed(gcs: FakeGcs, bucket: Bucket, here: Path) -> None:
    release_id = make_release(here)
    (here / release_id / "model.json").write_text("{}")
    with pytest.raises(DamagedReleaseError, match=r"model\.json is not as it was written"):
        bucket.push_release(here, release_id)
    assert gcs.names("shop-data") == []


def test_a_file_that_is_there_with_other_content_is_not_replaced(gcs: FakeGcs, bucket: Bucket, here: Path) -> None:
    release_id = make_release(here)
    gcs.put("shop-data", f"home/releases/{release_id}/model.json", b"of somebody else")
    with pytest.raises(DamagedReleaseError, match="is there with other content"):
        bucket.push_release(here, release_id)
    assert bucket.current() is None


def test_current_that_somebody_changed_meanwhile_is_left_as_they_made_it(
    gcs: FakeGcs, bucket: Bucket, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_release(here, make_other_content()), make_release(here)
    bucket.push_release(here, first)
    write_once = Bucket._write_once

    def racing(self: Bucket, name: str, path: Path) -> None:
        write_once(self, name, path)
        gcs.put("shop-data", "home/releases/CURRENT", f"{first}\n".encode())

    monkeypatch.setattr(Bucket, "_write_once", racing)
    with pytest.raises(BucketError, match="CURRENT was changed by somebody else meanwhile"):
        bucket.push_release(here, second)
    assert bucket.current() == first


@pytest.mark.parametrize("name", ["model.json", "customers.lmdb", "manifest.json"])
def test_a_release_damaged_in_the_bucket_is_refused_and_the_one_before_stays(
    gcs: FakeGcs, bucket: Bucket, here: Path, there: Path, name: str
) -> None:
    first, second = make_release(here, make_other_content()), make_release(here)
    bucket.push_release(here, first)
    bucket.pull_release(there)
    bucket.push_release(here, second)
    blob = gcs.buckets["shop-data"][f"home/releases/{second}/{name}"]
    blob.content = blob.content[:-2] + b"  "
    with pytest.raises(DamagedReleaseError):
        bucket.pull_release(there)
    assert releases.current(there) == first
    assert releases.releases(there) == (first,)
    assert [path for path in there.iterdir() if path.name.startswith(".")] == []


def test_going_back_follows_current(gcs: FakeGcs, bucket: Bucket, here: Path, there: Path) -> None:
    first, second = make_release(here, make_other_content()), make_release(here)
    for release_id in (first, second):
        bucket.push_release(here, release_id)
        bucket.pull_release(there)
    bucket.push_release(here, first)
    n_requests = len(gcs.requests)
    assert bucket.pull_release(there) == first
    assert len(gcs.requests) - n_requests == 2, "a release that is here is not fetched again"


def test_old_releases_go_and_the_served_one_stays(gcs: FakeGcs, bucket: Bucket, here: Path) -> None:
    first, second = make_release(here, make_other_content()), make_release(here)
    bucket.push_release(here, first)
    bucket.push_release(here, second)
    bucket.push_release(here, first)
    assert bucket.prune_releases(keep=0) == (second,)
    assert {name.split("/")[2] for name in gcs.names("shop-data", "home/releases/r-")} == {first}


def test_what_a_prune_that_was_cut_off_left_goes_with_the_next(gcs: FakeGcs, bucket: Bucket, here: Path) -> None:
    first, second = make_release(here, make_other_content()), make_release(here)
    bucket.push_release(here, first)
    bucket.push_release(here, second)
    del gcs.buckets["shop-data"][f"home/releases/{first}/manifest.json"]
    # Its manifest comes last: it is being written, or will be finished by the next run.
    gcs.put("shop-data", "home/releases/r-2024-09-01-00000009/model.json", b"{}")
    assert bucket.prune_releases(keep=5) == (first,)
    assert {name.split("/")[2] for name in gcs.names("shop-data", "home/releases/r-")} == {
        second,
        "r-2024-09-01-00000009",
    }


@pytest.fixture
def _left_connections() -> Iterator[None]:
    """Google's client leaves the connection of a download that is refused or damaged to the garbage collector."""
    yield
    gc.collect()


IGNORE_LEFT_CONNECTIONS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@IGNORE_LEFT_CONNECTIONS
@pytest.mark.usefixtures("_left_connections")
@pytest.mark.parametrize("troubles", [(), (503, 503, 429, 429, 0, 0)])
def test_lost_answers_and_a_busy_service_change_nothing(
    gcs: FakeGcs, here: Path, there: Path, tmp_path: Path, troubles: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("google.cloud.storage.retry.DEFAULT_RETRY", DEFAULT_RETRY.with_delay(0.001, 0.01))
    gcs.troubles, gcs.loses_answers = troubles, not troubles
    with contextlib.closing(storage_client(gcp_of("", gcs.url))) as client:
        use_everything(gcs, Bucket(client, URI, patience_seconds=20), here, there, tmp_path)


def use_everything(gcs: FakeGcs, bucket: Bucket, here: Path, there: Path, tmp_path: Path) -> None:
    first, second = make_release(here, make_other_content()), make_release(here)
    for release_id in (first, second):
        bucket.push_release(here, release_id)
        assert bucket.current() == release_id
        assert bucket.pull_release(there) == release_id
    assert bucket.prune_releases(keep=0) == (first,)
    assert {name.split("/")[2] for name in gcs.names("shop-data", "home/releases/r-")} == {second}
    gcs.put("shop-data", "home/landing/1.csv", b"x")
    assert bucket.fetch_landed(tmp_path / "landing") == ("1.csv",)
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert bucket.send_predictions(tmp_path) == ("a.jsonl",)
    assert bucket.fetch_predictions(tmp_path / "pipeline") == ("a.jsonl",)
    gcs.put("shop-data", "home/tables/t/_delta_log/0.json", b"x")
    gcs.put("shop-data", "home/tables/t/a.parquet", b"x")
    bucket.remove_tables()
    assert gcs.names("shop-data", "home/landing/") == gcs.names("shop-data", "home/tables/") == []
    assert gcs.names("shop-data", "home/prediction_log/") == []


@IGNORE_LEFT_CONNECTIONS
@pytest.mark.usefixtures("_left_connections")
def test_an_object_that_arrives_damaged_is_one_sentence(
    bucket: Bucket, here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.push_release(here, make_release(here))
    monkeypatch.setattr(Blob, "crc32c", "AAAAAA==")
    with pytest.raises(BucketError, match=r"CURRENT: what arrived is not what the bucket has.*run it again\.$"):
        bucket.pull_release(there)


def test_the_reason_of_a_refused_upload_is_one_sentence(gcs: FakeGcs, bucket: Bucket, here: Path) -> None:
    gcs.denied.add("storage.objects.create")
    with pytest.raises(BucketError) as refused:
        bucket.push_release(here, make_release(here))
    assert "\n" not in str(refused.value)
    assert re.match(
        r"gs://shop-data/home/releases/r-\S+: Permission 'storage\.objects\.create' denied on resource \S+ "
        r"\(or it may not exist\)\. Grant the account the role",
        str(refused.value),
    )


def test_who_may_not_list_is_told_that_there_may_be_nothing_yet(gcs: FakeGcs, bucket: Bucket, there: Path) -> None:
    gcs.denied.add("storage.objects.list")
    with pytest.raises(BucketError, match=r"CURRENT: .*before the first release, there is none"):
        bucket.pull_release(there)


def test_the_bucket_itself_is_never_looked_up(gcs: FakeGcs, bucket: Bucket, here: Path, there: Path) -> None:
    bucket.push_release(here, make_release(here))
    bucket.pull_release(there)
    time.sleep(0.2)
    assert not [request for request in gcs.requests if request == "GET /storage/v1/b/shop-data"]


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (lambda gcs: gcs.denied.add("storage.objects.get"), "storage.objects.get.*docs/gcp.md"),
        (lambda gcs: setattr(gcs, "n_unavailable", 1_000), "currently unavailable.*run it again"),
        (lambda gcs: setattr(gcs, "n_cut", 1_000), "Nothing was lost"),
    ],
)
def test_a_bucket_in_trouble_leaves_what_is_served(
    gcs: FakeGcs, bucket: Bucket, here: Path, there: Path, trouble: Any, told: str
) -> None:
    release_id = make_release(here)
    bucket.push_release(here, release_id)
    bucket.pull_release(there)
    trouble(gcs)
    with pytest.raises(BucketError, match=told):
        bucket.pull_release(there)
    assert releases.current(there) == release_id


def test_a_bucket_that_is_not_there_is_named(gcs: FakeGcs, here: Path) -> None:
    with pytest.raises(BucketError, match=r"gs://no-such/home.*make the bucket"):
        bucket_of(gcs, "gs://no-such/home").push_release(here, make_release(here))


def test_a_busy_service_is_asked_again(gcs: FakeGcs, bucket: Bucket, here: Path, there: Path) -> None:
    bucket.push_release(here, make_release(here))
    gcs.n_unavailable = 1
    assert bucket.pull_release(there) is not None


def test_landed_files_come_here_once_and_a_copy_stays_there(gcs: FakeGcs, bucket: Bucket, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    for number in range(4):
        gcs.put("shop-data", f"home/landing/shop-{number % 2}/{number}.csv", b"x")
    assert len(bucket.fetch_landed(landing)) == 4
    assert sorted(path.name for path in landing.rglob("*.csv")) == ["0.csv", "1.csv", "2.csv", "3.csv"]
    assert gcs.names("shop-data", "home/landing/") == []
    assert len(gcs.names("shop-data", "home/landing_fetched/")) == 4
    assert bucket.fetch_landed(landing) == ()


@pytest.mark.parametrize("name", ["../../evil.csv", ".hidden.csv", "taken/../../../evil.csv"])
def test_a_name_that_leads_out_of_the_landing_folder_is_left_there(
    gcs: FakeGcs, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    gcs.put("shop-data", f"home/landing/{name}", b"x")
    assert bucket.fetch_landed(tmp_path / "home" / "landing") == ()
    assert list(tmp_path.rglob("*.csv")) == []


def test_the_prediction_log_travels_and_unfinished_files_stay(gcs: FakeGcs, bucket: Bucket, tmp_path: Path) -> None:
    service, pipeline = tmp_path / "service", tmp_path / "pipeline"
    service.mkdir()
    (service / "a.jsonl").write_text('{"a": 1}\n')
    (service / "b.jsonl.open").write_text('{"b": 1}\n')
    assert bucket.send_predictions(service) == ("a.jsonl",)
    assert [path.name for path in service.iterdir()] == ["b.jsonl.open"]
    assert bucket.fetch_predictions(pipeline) == ("a.jsonl",)
    assert (pipeline / "a.jsonl").read_text() == '{"a": 1}\n'
    assert gcs.names("shop-data", "home/prediction_log/") == []


def test_predictions_that_cannot_be_sent_stay(gcs: FakeGcs, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    gcs.denied.add("storage.objects.create")
    with pytest.raises(BucketError):
        bucket.send_predictions(tmp_path)
    assert (tmp_path / "a.jsonl").exists()
    gcs.denied.clear()
    # Sent, and the process killed before it removed the file.
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "kept")
    bucket.send_predictions(tmp_path)
    shutil.copy(tmp_path / "kept", tmp_path / "a.jsonl")
    assert bucket.send_predictions(tmp_path) == ("a.jsonl",)


def is_failing(application: Flask) -> float:
    """What the service's metrics say about the bucket."""
    exposed = application.extensions["custseg"].metrics.exposition().decode()
    found = re.search(r"^custseg_bucket_is_failing\S* (\S+)$", exposed, re.MULTILINE)
    assert found
    return float(found[1])


def test_the_service_follows_the_bucket_and_keeps_its_release_when_that_fails(
    gcs: FakeGcs, bucket: Bucket, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    first = make_release(here)
    bucket.push_release(here, first)
    settings = ServingSettings(
        tmp_path / "cache", is_open=True, follow=URI, follow_seconds=0.05, poll_seconds=0.02, rotate_seconds=0.1
    )
    application = create_app(settings)
    client = application.test_client()
    try:
        wait_until(lambda: client.get("/readyz").status_code == 200, seconds=20)
        answer = client.get("/v1/customers/12347/segment").get_json()
        assert answer["release_id"] == first

        second = make_release(here, make_other_content())
        bucket.push_release(here, second)
        wait_until(lambda: client.get("/v1/customers/12347/segment").get_json()["release_id"] == second, seconds=20)

        gcs.denied.add("storage.objects.get")
        wait_until(lambda: is_failing(application) == 1, seconds=20)
        assert client.get("/v1/customers/12347/segment").get_json()["release_id"] == second
        gcs.denied.clear()
        wait_until(lambda: is_failing(application) == 0, seconds=20)
    finally:
        application.extensions["custseg"].stop()
    # What was asked until the end has been sent.
    sent = b"".join(blob.content for name, blob in gcs.buckets["shop-data"].items() if "/prediction_log/" in name)
    assert sent.count(b'"customer_id":"12347"') >= 3
    assert list(settings.prediction_log.glob("*.jsonl*")) == []


def test_what_lands_in_the_bucket_is_taken_in(gcs: FakeGcs, tmp_path: Path) -> None:
    gcs.put("shop-data", "home/landing/shop.csv", write_log(shop_log(3), tmp_path / "log.csv").read_bytes())
    gcp = {"project": "shop", "storage": {"uri": URI}, "endpoints": {"storage": gcs.url}}
    settings = Settings.model_validate({"home": tmp_path / "home", "landing": {"settle_seconds": 0}, "gcp": gcp})
    said: list[str] = []
    assert homes.take_in(settings, said.append) == "2024-03-01"
    assert f"landing: shop.csv came from {URI}" in said
    assert gcs.names("shop-data", "home/landing/") == []
