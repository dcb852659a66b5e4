"""The fake of Cloud Storage does to Google's real client what the service does, refusals above all."""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.support.fakes.gcs import FakeGcs

pytestmark = pytest.mark.gcp


@pytest.fixture
def client(gcs: FakeGcs) -> Iterator[storage.Client]:
    with contextlib.closing(client_of(gcs)) as client:
        yield client


def client_of(fake: FakeGcs) -> storage.Client:
    return storage.Client("shop", AnonymousCredentials(), client_options={"api_endpoint": fake.url})


def ask(method: str, url: str, content: bytes = b"", **headers: str) -> requests.Response:
    """Send a request that Google's client would not send."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, url, data=content, headers=named, timeout=10)


@pytest.fixture
def bucket(client: storage.Client) -> storage.Bucket:
    return client.bucket("shop-data")


def test_what_is_uploaded_comes_back_with_its_checksum_verified(bucket: storage.Bucket, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(b"a,b\r\n1,2\r\n")
    bucket.blob("in/orders.csv").upload_from_filename(path, checksum="crc32c")
    assert bucket.blob("in/orders.csv").download_as_bytes() == b"a,b\r\n1,2\r\n"
    assert bucket.get_blob("in/orders.csv").size == 10
    assert bucket.get_blob("in/nothing") is None


def test_a_range_of_an_object_can_be_read(bucket: storage.Bucket, gcs: FakeGcs) -> None:
    bucket.blob("letters").upload_from_string(b"abcdefgh")
    assert bucket.blob("letters").download_as_bytes(start=2, end=4) == b"cde"
    answer = ask("GET", f"{gcs.url}/storage/v1/b/shop-data/o/letters?alt=media", Range="bytes=-3")
    assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (206, b"fgh", "bytes 5-7/8")
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        bucket.blob("letters").download_as_bytes(start=8)


def test_a_large_object_goes_up_in_chunks(bucket: storage.Bucket, gcs: FakeGcs) -> None:
    content = bytes(range(256)) * 3000
    blob = bucket.blob("large", chunk_size=256 << 10)
    blob.upload_from_file(io.BytesIO(content))
    assert bucket.blob("large").download_as_bytes() == content
    assert sum(request.startswith("PUT /upload/") for request in gcs.requests) == 3


def begin_upload(gcs: FakeGcs) -> str:
    """Begin an upload of the object x, and return the address for its chunks."""
    return ask("POST", f"{gcs.url}/upload/storage/v1/b/shop-data/o?uploadType=resumable&name=x").headers["Location"]


def test_a_chunk_that_is_no_multiple_of_256_kib_is_refused(gcs: FakeGcs) -> None:
    sent = ask("PUT", begin_upload(gcs), b"abc", Content_Range="bytes 0-2/*")
    assert sent.status_code == 400
    assert "multiple of 262144" in sent.json()["error"]["message"]


def test_an_upload_that_broke_off_says_how_far_it_came(gcs: FakeGcs) -> None:
    place, first = begin_upload(gcs), b"x" * 262144
    ask("PUT", place, first, Content_Range="bytes 0-262143/262147")
    asked = ask("PUT", place, Content_Range="bytes */*")
    assert (asked.status_code, asked.headers["Range"]) == (308, "bytes=0-262143")
    ask("PUT", place, b"end", Content_Range="bytes 262144-262146/262147")
    assert gcs.buckets["shop-data"]["x"].content == first + b"end"


def test_a_list_comes_in_pages_and_by_folder() -> None:
    with FakeGcs("shop-data", page_size=2) as small, contextlib.closing(client_of(small)) as client:
        for name in ("a/1", "a/2", "a/b/3", "c/4", "d"):
            client.bucket("shop-data").blob(name).upload_from_string(name)
        assert [blob.name for blob in client.list_blobs("shop-data")] == ["a/1", "a/2", "a/b/3", "c/4", "d"]
        folder = client.list_blobs("shop-data", prefix="a/", delimiter="/")
        assert [blob.name for blob in folder] == ["a/1", "a/2"]
        assert folder.prefixes == {"a/b/"}
        assert [blob.name for blob in client.list_blobs("shop-data", start_offset="c", end_offset="d")] == ["c/4"]


def test_an_object_is_replaced_only_by_who_knows_its_generation(bucket: storage.Bucket) -> None:
    blob = bucket.blob("CURRENT")
    blob.upload_from_string("one", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("CURRENT").upload_from_string("two", if_generation_match=0)
    bucket.blob("CURRENT").upload_from_string("two", if_generation_match=blob.generation)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("CURRENT").upload_from_string("three", if_generation_match=blob.generation)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("CURRENT").delete(if_generation_match=blob.generation)
    with pytest.raises(exceptions.NotFound):
        bucket.blob("CURRENT", generation=blob.generation).download_as_bytes()
    assert bucket.blob("CURRENT").download_as_bytes() == b"two"


def test_metadata_change_the_metageneration_only(bucket: storage.Bucket) -> None:
    bucket.blob("x").upload_from_string("1")
    blob = bucket.get_blob("x")
    generation = blob.generation
    blob.metadata = {"made": "by hand"}
    blob.patch()
    again = bucket.get_blob("x")
    assert (again.generation, again.metageneration, again.metadata) == (generation, 2, {"made": "by hand"})
    with pytest.raises(exceptions.PreconditionFailed):
        again.patch(if_metageneration_match=1)


def test_objects_are_copied_rewritten_composed_and_deleted(bucket: storage.Bucket) -> None:
    one = bucket.blob("one")
    one.upload_from_string("1")
    bucket.copy_blob(one, bucket, "two")
    three = bucket.blob("three")
    assert three.rewrite(one) == (None, 1, 1)
    bucket.blob("all").compose([one, bucket.blob("two"), three])
    assert bucket.blob("all").download_as_bytes() == b"111"
    one.delete()
    with pytest.raises(exceptions.NotFound, match="No such object: shop-data/one"):
        one.delete()


@pytest.mark.parametrize("name", [".", "..", "x" * 1025, "a\nb"])
def test_names_that_no_object_can_have_are_refused(bucket: storage.Bucket, name: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Invalid object name"):
        bucket.blob(name).upload_from_string("")


def test_a_bucket_that_is_not_there_is_refused(client: storage.Client) -> None:
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        client.bucket("other").blob("x").upload_from_string("")
    with pytest.raises(exceptions.BadRequest, match="Invalid bucket name"):
        client.bucket("Other").blob("x").upload_from_string("")


def test_content_that_is_not_what_its_checksum_says_is_refused(gcs: FakeGcs) -> None:
    described = b'{"name": "n", "md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}'
    body = b"--x\r\n\r\n" + described + b"\r\n--x\r\ncontent-type: text/plain\r\n\r\nhello\r\n--x--"
    url = f"{gcs.url}/upload/storage/v1/b/shop-data/o?uploadType=multipart"
    answer = ask("POST", url, body, Content_Type='multipart/related; boundary="x"')
    assert answer.status_code == 400
    assert "doesn't match calculated md5Hash" in answer.json()["error"]["message"]
    assert gcs.names("shop-data") == []


@pytest.mark.parametrize(
    ("permission", "attempt"),
    [
        ("storage.objects.create", lambda bucket: bucket.blob("new").upload_from_string("")),
        ("storage.objects.delete", lambda bucket: bucket.blob("old").upload_from_string("")),
        ("storage.objects.delete", lambda bucket: bucket.blob("old").delete()),
        ("storage.objects.get", lambda bucket: bucket.blob("old").download_as_bytes()),
        ("storage.objects.list", lambda bucket: list(bucket.list_blobs())),
        ("storage.objects.update", lambda bucket: bucket.blob("old").patch()),
        ("storage.buckets.get", lambda bucket: bucket.reload()),
    ],
)
def test_what_the_caller_may_not_do_is_refused(
    gcs: FakeGcs, bucket: storage.Bucket, permission: str, attempt: Callable[[storage.Bucket], object]
) -> None:
    bucket.blob("old").upload_from_string("1")
    gcs.denied = {permission}
    with pytest.raises(exceptions.Forbidden, match=permission):
        attempt(bucket)
    gcs.denied = set()
    attempt(bucket)


def test_no_more_than_32_objects_are_composed(bucket: storage.Bucket) -> None:
    bucket.blob("one").upload_from_string("1")
    with pytest.raises(exceptions.BadRequest, match="between 1 and 32"):
        bucket.blob("all").compose([bucket.blob("one")] * 33)


@pytest.mark.usefixtures("undocumented_requests")
@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/b/shop-data/o/x/acl", exceptions.NotFound),
        ("GET", "/projects/shop/hmacKeys", exceptions.NotFound),
        ("POST", "/b/shop-data/o/x", exceptions.MethodNotAllowed),
    ],
)
def test_what_the_fake_does_not_know_is_refused(
    client: storage.Client, method: str, path: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"Not Found|Not Allowed"):
        client._connection.api_request(method=method, path=path)


@pytest.mark.parametrize(
    ("method", "query", "content", "headers", "said"),
    [
        ("POST", "uploadType=carrier-pigeon", b"", {}, "Invalid upload type"),
        (
            "POST",
            "uploadType=multipart",
            b"--x--",
            {"Content_Type": "multipart/related; boundary=x"},
            "exactly two parts",
        ),
        (
            "POST",
            "uploadType=multipart",
            b"--x\r\n\r\n{\r\n--x\r\n\r\nhello\r\n--x--",
            {"Content_Type": "multipart/related; boundary=x"},
            "not JSON",
        ),
        ("PUT", "uploadType=resumable&upload_id=none", b"", {}, "session not found"),
    ],
)
def test_an_upload_that_is_not_in_order_is_refused(
    gcs: FakeGcs, method: str, query: str, content: bytes, headers: Mapping[str, str], said: str
) -> None:
    answer = ask(method, f"{gcs.url}/upload/storage/v1/b/shop-data/o?{query}", content, **headers)
    assert answer.status_code in {400, 404}
    assert said in answer.json()["error"]["message"]
    assert gcs.names("shop-data") == []


def test_a_chunk_that_does_not_say_where_it_belongs_is_refused(gcs: FakeGcs) -> None:
    sent = ask("PUT", begin_upload(gcs), b"abc", Content_Range="3 bytes")
    assert (sent.status_code, sent.json()["error"]["message"]) == (400, "Failed to parse Content-Range header.")


# The client leaves an answer of 503 unread, and its connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_client_gets_over_a_service_that_is_away_for_a_moment(gcs: FakeGcs, bucket: storage.Bucket) -> None:
    bucket.blob("x").upload_from_string("1")
    gcs.n_unavailable = 1
    assert bucket.blob("x").download_as_bytes() == b"1"
    gcs.n_cut = 1
    assert bucket.blob("x").download_as_bytes() == b"1"
    gc.collect()
