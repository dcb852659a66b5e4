"""The XML API of the fake of Cloud Storage does to Delta's and Polars' real client what the service does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
import requests
from deltalake import DeltaTable, write_deltalake

from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import Request

TABLE = "gs://shop-data/t"
ROWS = pl.DataFrame({"period": ["a", "b"], "n": [1, 2]})
PART = 5 << 20


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    with FakeGcs("shop-data", page_size=3) as fake:
        yield fake


@pytest.fixture
def options(gcs: FakeGcs) -> dict[str, str]:
    key = {"gcs_base_url": gcs.url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"google_service_account_key": json.dumps(key), "max_retries": "0"}


def ask(method: str, url: str, content: bytes = b"", **headers: object) -> requests.Response:
    """Send a request that Google's client would not send."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return requests.request(method, url, data=content, headers=named, timeout=10)


def code_of(answer: requests.Response) -> tuple[int, str]:
    """Status, and the error's name in the body."""
    found = re.search(r"<Error><Code>(\w+)</Code><Message>.+</Message></Error>", answer.text)
    return answer.status_code, found[1] if found else ""


def test_a_table_comes_back_as_it_was_written_over_many_pages_of_its_log(gcs: FakeGcs, options: dict[str, str]) -> None:
    for n in range(8):
        write_deltalake(TABLE, ROWS.with_columns(n=pl.lit(n)), mode="append", storage_options=options)
    table = DeltaTable(TABLE, storage_options=options)
    assert table.version() == 7
    read = pl.scan_delta(table, storage_options={"max_retries": 0}).select(pl.col("n").sort()).collect()
    assert read["n"].to_list() == sorted([*range(8)] * 2)
    assert gcs.requests.count("GET /shop%2Ddata") > 8, "pages of three"


def test_a_large_file_goes_up_in_parts_and_is_read_in_ranges(gcs: FakeGcs, options: dict[str, str]) -> None:
    noise = pl.DataFrame({"n": np.random.default_rng(1).integers(0, 1 << 62, 3_000_000)})
    asked: list[Request] = []
    gcs.on_request = asked.append
    write_deltalake(TABLE, noise, storage_options=options)
    parts = [one.query["partNumber"] for one in asked if "partNumber" in one.query]
    assert sorted(parts, key=int) == [str(n) for n in range(1, len(parts) + 1)]
    assert len(parts) > 1
    assert all(blob.content for blob in gcs.buckets["shop-data"].values())
    asked.clear()
    table = pl.scan_delta(DeltaTable(TABLE, storage_options=options), storage_options={"max_retries": 0})
    assert table.collect().equals(noise)
    assert any("range" in one.headers for one in asked)


def test_a_commit_that_is_there_is_not_written_again(gcs: FakeGcs, options: dict[str, str]) -> None:
    write_deltalake(TABLE, ROWS, storage_options=options)
    commit = f"{gcs.url}/shop-data/t/_delta_log/{0:020}.json"
    before = gcs.buckets["shop-data"][f"t/_delta_log/{0:020}.json"].content
    assert code_of(ask("PUT", commit, b"{}", x_goog_if_generation_match=0)) == (412, "PreconditionFailed")
    assert gcs.buckets["shop-data"][f"t/_delta_log/{0:020}.json"].content == before
    assert ask("PUT", f"{commit}2", b"{}", x_goog_if_generation_match=0).status_code == 200


def test_each_api_sees_what_the_other_wrote(gcs: FakeGcs) -> None:
    sent = ask("PUT", f"{gcs.url}/shop-data/a%2Fb", b"abc", Content_Type="text/plain", x_goog_meta_by="me")
    told = ask("GET", f"{gcs.url}/storage/v1/b/shop-data/o/a%2Fb").json()
    assert (told["generation"], told["contentType"], told["metadata"], told["size"]) == (
        sent.headers["x-goog-generation"],
        "text/plain",
        {"by": "me"},
        "3",
    )
    assert ask("GET", f"{gcs.url}/storage/v1/b/shop-data/o/a%2Fb?alt=media").content == b"abc"
    ask("POST", f"{gcs.url}/upload/storage/v1/b/shop-data/o?uploadType=media&name=c", b"de")
    assert ask("GET", f"{gcs.url}/shop-data/c").content == b"de"
    assert ask("HEAD", f"{gcs.url}/shop-data/c").headers["Content-Length"] == "2"


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("If-Match", '"900150983cd24fb0d6963f7d28e17f72"', 200),
        ("If-Match", '"0"', 412),
        ("If-None-Match", '"900150983cd24fb0d6963f7d28e17f72"', 304),
        ("If-None-Match", '"0"', 200),
        ("If-Modified-Since", "Mon, 01 Jan 2024 00:00:01 GMT", 304),
        ("If-Modified-Since", "Mon, 01 Jan 2024 00:00:00 GMT", 200),
        ("If-Unmodified-Since", "Mon, 01 Jan 2024 00:00:00 GMT", 412),
        ("x-goog-if-generation-match", "1", 200),
        ("x-goog-if-generation-match", "2", 412),
        ("x-goog-if-metageneration-match", "2", 412),
        ("x-goog-if-generation-match", "one", 400),
        ("Range", "bytes=1-1", 206),
        ("Range", "bytes=3-", 416),
    ],
)
def test_conditions_and_ranges_of_a_get_are_kept(gcs: FakeGcs, header: str, value: str, status: int) -> None:
    gcs.put("shop-data", "x", b"abc")
    answer = ask("GET", f"{gcs.url}/shop-data/x", **{header: value})
    assert answer.status_code == status
    contents = {200: b"abc", 206: b"b", 304: b""}
    assert status >= 400 or answer.content == contents[status]


@pytest.mark.parametrize(
    ("method", "path", "headers", "refusal"),
    [
        ("GET", "no-such-bucket/x", {}, (404, "NoSuchBucket")),
        ("GET", "shop-data/y", {}, (404, "NoSuchKey")),
        ("GET", "shop-data/x?generation=7", {}, (404, "NoSuchKey")),
        ("DELETE", "shop-data/y", {}, (404, "NoSuchKey")),
        ("DELETE", "shop-data/x", {"x_goog_if_generation_match": 9}, (412, "PreconditionFailed")),
        ("GET", "shop-data/x", {"Range": "bytes=3-"}, (416, "InvalidRange")),
        ("PUT", "shop-data/x", {"Content_MD5": "AAAA"}, (400, "BadDigest")),
        ("PUT", "shop-data/x", {"x_goog_hash": "crc32c=AAAAAA=="}, (400, "CrcMismatch")),
        ("PUT", "shop-data/y", {"x_goog_copy_source": "shop-data/z"}, (404, "NoSuchKey")),
        ("POST", "shop-data/x", {}, (405, "MethodNotAllowed")),
        ("PUT", "shop-data/x?partNumber=1&uploadId=none", {}, (404, "NoSuchUpload")),
        ("POST", "shop-data/x?uploads", {"x_goog_if_generation_match": 0}, (400, "InvalidArgument")),
        ("GET", "shop-data?list-type=2&continuation-token=%FF", {}, (400, "InvalidArgument")),
    ],
)
def test_what_the_service_refuses_is_refused_in_its_words(
    gcs: FakeGcs, method: str, path: str, headers: dict[str, Any], refusal: tuple[int, str]
) -> None:
    gcs.put("shop-data", "x", b"abc")
    assert code_of(ask(method, f"{gcs.url}/{path}", b"text", **headers)) == refusal
    assert gcs.buckets["shop-data"]["x"].content == b"abc"


@pytest.mark.parametrize(
    ("permission", "method", "path", "headers"),
    [
        ("storage.objects.get", "GET", "shop-data/x", {}),
        ("storage.objects.list", "GET", "shop-data?list-type=2", {}),
        ("storage.objects.create", "PUT", "shop-data/y", {}),
        ("storage.objects.delete", "PUT", "shop-data/x", {}),
        ("storage.objects.delete", "DELETE", "shop-data/x", {}),
        ("storage.objects.get", "PUT", "shop-data/y", {"x_goog_copy_source": "shop-data/x"}),
        ("storage.multipartUploads.create", "POST", "shop-data/y?uploads", {}),
    ],
)
def test_who_may_not_do_it_is_refused(
    gcs: FakeGcs, permission: str, method: str, path: str, headers: dict[str, Any]
) -> None:
    gcs.put("shop-data", "x", b"abc")
    gcs.denied = {permission}
    answer = ask(method, f"{gcs.url}/{path}", **headers)
    assert code_of(answer) == (403, "AccessDenied")
    assert permission in answer.text
    gcs.denied = set()
    assert ask(method, f"{gcs.url}/{path}", **headers).ok


@pytest.mark.parametrize(("version", "token", "next_one"), [
    ("list-type=2&", "continuation-token", "NextContinuationToken"),
    ("", "marker", "NextMarker"),
])  # fmt: skip
def test_lists_come_in_pages_and_folders(gcs: FakeGcs, version: str, token: str, next_one: str) -> None:
    for name in ("a/1", "a/2", "b", "c/1", "d&e", "f"):
        gcs.put("shop-data", name, b"")
    found, after = [], ""
    while True:
        page = ask("GET", f"{gcs.url}/shop-data?{version}delimiter=/{after}").text
        found.append(re.findall(r"<(?:Key|CommonPrefixes><Prefix)>(.*?)<", page))
        told = re.search(f"<{next_one}>(.*)</{next_one}>", page)
        assert ("<IsTruncated>true" in page) == (told is not None)
        if told is None:
            break
        after = f"&{token}={told[1]}"
    assert found == [["b", "a/", "c/"], ["d&amp;e", "f"]]
    within = ask("GET", f"{gcs.url}/shop-data?{version}prefix=a/&max-keys=1").text
    assert re.findall("<Key>(.*?)</Key>", within) == ["a/1"]


def test_the_list_begins_after_a_name_where_it_is_asked_to(gcs: FakeGcs) -> None:
    for name in ("a", "b", "c"):
        gcs.put("shop-data", name, b"")
    listed = ask("GET", f"{gcs.url}/shop-data?list-type=2&start-after=a").text
    assert re.findall("<Key>(.*?)</Key>", listed) == ["b", "c"]


def test_a_copy_keeps_what_is_said_about_an_object(gcs: FakeGcs) -> None:
    gcs.put("shop-data", "t/x", b"abc", content_type="text/plain", metadata={"by": "me"})
    assert "CopyObjectResult" in ask("PUT", f"{gcs.url}/shop-data/t%2Fy", x_goog_copy_source="shop-data/t%2Fx").text
    copied = gcs.buckets["shop-data"]["t/y"]
    assert (copied.content, copied.content_type, copied.metadata) == (b"abc", "text/plain", {"by": "me"})
    assert copied.generation > gcs.buckets["shop-data"]["t/x"].generation


def begin_upload(gcs: FakeGcs) -> str:
    """Where the parts of an upload of the object x go."""
    answer = ask("POST", f"{gcs.url}/shop-data/x?uploads")
    found = re.search("<UploadId>(.*)</UploadId>", answer.text)
    return f"{gcs.url}/shop-data/x?uploadId={found[1] if found else ''}"


def complete_upload(*parts: tuple[int, bytes]) -> bytes:
    """The list of parts that completes an upload."""
    listed = (
        f"<Part><PartNumber>{number}</PartNumber>"
        f'<ETag>"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"</ETag></Part>'
        for number, content in parts
    )
    return f"<CompleteMultipartUpload>{''.join(listed)}</CompleteMultipartUpload>".encode()


def test_an_object_of_parts_is_there_when_it_is_completed_and_has_no_md5(gcs: FakeGcs) -> None:
    place, first = begin_upload(gcs), b"x" * PART
    for number, content in ((1, first), (2, b"y")):
        assert ask("PUT", f"{place}&partNumber={number}", content).ok
    assert gcs.names("shop-data") == []
    assert ask("POST", place, complete_upload((1, first), (2, b"y"))).ok
    told = ask("HEAD", f"{gcs.url}/shop-data/x").headers
    assert (told["Content-Length"], "md5" in told["x-goog-hash"]) == (str(PART + 1), False)
    assert "md5Hash" not in ask("GET", f"{gcs.url}/storage/v1/b/shop-data/o/x").json()
    assert code_of(ask("POST", place, complete_upload((1, first)))) == (404, "NoSuchUpload")


def test_parts_that_do_not_fit_are_refused(gcs: FakeGcs) -> None:
    place = begin_upload(gcs)
    for number, content in ((1, b"x"), (2, b"y")):
        ask("PUT", f"{place}&partNumber={number}", content)
    assert code_of(ask("PUT", f"{place}&partNumber=0", b"z")) == (400, "InvalidArgument")
    assert code_of(ask("POST", place, complete_upload((1, b"x"), (2, b"y")))) == (400, "EntityTooSmall")
    assert code_of(ask("POST", place, complete_upload((2, b"y"), (1, b"x")))) == (400, "InvalidPartOrder")
    assert code_of(ask("POST", place, complete_upload((1, b"other")))) == (400, "InvalidPart")
    assert code_of(ask("POST", place, b"<Complete")) == (400, "MalformedXML")
    assert ask("DELETE", place).status_code == 204
    assert code_of(ask("PUT", f"{place}&partNumber=1", b"x")) == (404, "NoSuchUpload")
    assert gcs.names("shop-data") == []


def test_a_checksum_that_is_right_is_accepted(gcs: FakeGcs) -> None:
    digest = base64.b64encode(hashlib.md5(b"abc", usedforsecurity=False).digest()).decode()
    assert ask("PUT", f"{gcs.url}/shop-data/x", b"abc", Content_MD5=digest).ok
