"""A fake of Google Cloud Storage on loopback: the JSON API that Google's client speaks, on the objects of a test.

Uploads (media, multipart, resumable), downloads with ranges, listing with pages and delimiters, generation and
metageneration preconditions, checksums, delete, patch, copy, rewrite, compose. Buckets are made by the test. What
``gcs_xml`` answers is the XML API.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import urllib.parse
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import google_crc32c

from tests.support.fakes.clock import now
from tests.support.fakes.gcs_xml import XmlApi, xml_error
from tests.support.fakes.service import Answer, FakeService, Refused, Request, answer_json

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_CONDITIONS = re.compile(r"if(?P<source>Source)?(?P<kind>Generation|Metageneration)(?P<not>Not)?Match")
_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")
_CHUNK_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")
_JSON_PATH = re.compile(r"/(upload/|download/)?storage/v1/")
_CHUNK_UNIT = 256 << 10
_LONGEST_NAME = 1024
_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
_REASONS = {400: "invalid", 403: "forbidden", 404: "notFound", 409: "conflict", 412: "conditionNotMet"}
_REASONS |= {416: "requestedRangeNotSatisfiable", 429: "rateLimitExceeded", 503: "backendError"}
_SECONDS_BETWEEN_CHANGES = 1.0


@dataclass
class Blob:
    """An object: one generation of it, since nothing here keeps versions.

    Attributes:
        is_composite: made of parts; such objects have no MD5.
    """

    content: bytes
    generation: int
    content_type: str = "application/octet-stream"
    metadata: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    metageneration: int = 1
    is_composite: bool = False

    @property
    def md5(self) -> str:
        """The checksum as the API writes it."""
        return base64.b64encode(hashlib.md5(self.content, usedforsecurity=False).digest()).decode()

    @property
    def crc32c(self) -> str:
        """The checksum as the API writes it."""
        return base64.b64encode(google_crc32c.value(self.content).to_bytes(4, "big")).decode()

    @property
    def etag(self) -> str:
        """The etag, which every change of content or metadata changes."""
        return base64.b64encode(f"{self.generation}.{self.metageneration}".encode()).decode()

    @property
    def updated(self) -> datetime:
        """The time of the last change: one second for each generation."""
        return _EPOCH + timedelta(seconds=self.generation)


@dataclass
class _Upload:
    bucket: str
    resource: dict[str, Any]
    query: dict[str, str]
    content: bytearray = field(default_factory=bytearray)
    answer: Answer | None = None


class FakeGcs(FakeService):
    """The service; ``with FakeGcs("shop-data") as gcs`` starts and stops it.

    Args:
        buckets: names of the buckets there are.
        page_size: of lists, where the client does not ask for smaller ones.

    Attributes:
        buckets: name → object name → object.
    """

    discovery = "storage.v1"

    def __init__(self, *buckets: str, page_size: int = 1000) -> None:
        super().__init__()
        self.buckets: dict[str, dict[str, Blob]] = {name: {} for name in buckets}
        self._page_size = page_size
        self._uploads: dict[str, _Upload] = {}
        self._generation = 0
        self._changed_at: dict[tuple[str, str], float] = {}
        self._xml = XmlApi(self, page_size)

    # What a test puts in and looks at.

    def put(self, bucket: str, name: str, content: bytes, **more: Any) -> Blob:
        """Store an object, whether or not it exists; every API stores through this."""
        self._generation += 1
        self.buckets[bucket][name] = blob = Blob(content, self._generation, **more)
        return blob

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Names of the objects, sorted."""
        return sorted(name for name in self.buckets[bucket] if name.startswith(prefix))

    # The service.

    def answer(self, request: Request) -> Answer:
        """See ``FakeService``."""
        path = request.path
        if (request.method, path) == ("POST", "/storage/v1/b"):
            self.require("storage.buckets.create", f"projects/{request.query.get('project')}")
            return self._make_bucket(str(request.json()["name"]))
        if path.startswith("/upload/storage/v1/b/"):
            return self._upload(request, *_names(path.removeprefix("/upload/storage/v1/b/"))[:1])
        for root in ("/download/storage/v1/b/", "/storage/v1/b/"):
            if path.startswith(root):
                return self._object_request(request, _names(path.removeprefix(root)))
        if _JSON_PATH.match(path):
            raise Refused(404, "notFound", "Not Found")
        return self._xml.answer(request)

    def is_documented(self, request: Request) -> bool:
        """See ``FakeService``; what is not of the JSON API is of the XML API, which has no such document."""
        return bool(_JSON_PATH.match(request.path))

    def error_body(self, refusal: Refused, request: Request) -> Answer:
        """A refusal in the format of the API that was called; both are older than Google's canonical errors."""
        if not _JSON_PATH.match(request.path):
            return xml_error(refusal)
        reason = _REASONS.get(refusal.code, refusal.status)
        error = {"message": refusal.message, "domain": "global", "reason": reason}
        return answer_json(
            {"error": {"code": refusal.code, "message": refusal.message, "errors": [error]}}, refusal.code
        )

    def bucket_of(self, name: str) -> dict[str, Blob]:
        """The objects of a bucket.

        Raises:
            Refused: there is none of this name.
        """
        if not _BUCKET.fullmatch(name):
            raise Refused(400, "invalid", f"Invalid bucket name: '{name}'")
        if name not in self.buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def blob_of(self, bucket: str, name: str) -> Blob:
        """An object.

        Raises:
            Refused: there is none of this name.
        """
        blob = self.bucket_of(bucket).get(name)
        if blob is None:
            # Who may not list is not told what there is and what not.
            self.require("storage.objects.list", f"projects/_/buckets/{bucket}/objects/{name}")
            raise Refused(404, "notFound", f"No such object: {bucket}/{name}")
        return blob

    def list_blobs(
        self, bucket: str, prefix: str, delimiter: str, start: str = "", end: str = "\U0010ffff"
    ) -> dict[str, Blob | None]:
        """Objects that a client may list, in order; with a delimiter also folders, whose value is ``None``."""
        self.require("storage.objects.list", f"projects/_/buckets/{bucket}")
        found: dict[str, Blob | None] = {}
        for name, blob in sorted(self.bucket_of(bucket).items()):
            if name.startswith(prefix) and start <= name < end:
                before, mark, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                found.setdefault(prefix + before + mark if mark else name, None if mark else blob)
        return found

    def store(self, bucket: str, name: str, content: bytes, **more: Any) -> Blob:
        """Store an object as a client may: with a proper name, and replacing only with the permission to delete."""
        if not name or len(name.encode()) > _LONGEST_NAME or name in {".", ".."} or re.search(r"[\r\n]", name):
            raise Refused(400, "invalid", f"Invalid object name: {name!r}")
        resource = f"projects/_/buckets/{bucket}/objects/{name}"
        self.require("storage.objects.create", resource)
        if name in self.bucket_of(bucket):
            self.require("storage.objects.delete", resource)
        self._require_calm(bucket, name)
        return self.put(bucket, name, content, **more)

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object that is there, as a client may that has the permission."""
        self._require_calm(bucket, name)
        del self.buckets[bucket][name]

    def _require_calm(self, bucket: str, name: str) -> None:
        """Refuse a second change of an object within a second."""
        if self.has_rate_limits and now() - self._changed_at.get((bucket, name), -1) < _SECONDS_BETWEEN_CHANGES:
            message = (
                f"The object {bucket}/{name} exceeded the rate limit for object mutation operations (create, update, "
                "and delete). Please reduce your request rate. See https://cloud.google.com/storage/docs/gcs429."
            )
            raise Refused(429, "SlowDown", message)
        self._changed_at[bucket, name] = now()

    def _object_request(self, request: Request, names: list[str]) -> Answer:
        bucket = names[0]
        match names[1:]:
            case [] if request.method == "DELETE":
                self.require("storage.buckets.delete", f"projects/_/buckets/{bucket}")
                if self.bucket_of(bucket):
                    raise Refused(409, "conflict", "The bucket you tried to delete is not empty.")
                del self.buckets[bucket]
                return Answer(204)
            case []:
                self.require("storage.buckets.get", f"projects/_/buckets/{bucket}")
                self.bucket_of(bucket)
                return _bucket_resource(bucket)
            case ["o"]:
                return self._list(request, bucket)
            case ["o", name]:
                return self._one_object(request, bucket, name)
            case ["o", name, "rewriteTo" | "copyTo" as verb, "b", other, "o", target]:
                return self._copy(request, verb, (bucket, name), (other, target))
            case ["o", name, "compose"]:
                return self._compose(request, bucket, name)
        raise Refused(404, "notFound", "Not Found")

    def _make_bucket(self, name: str) -> Answer:
        if not _BUCKET.fullmatch(name):
            raise Refused(400, "invalid", f"Invalid bucket name: '{name}'")
        if name in self.buckets:
            raise Refused(409, "conflict", "Your previous request to create the named bucket succeeded and you own it.")
        self.buckets[name] = {}
        return _bucket_resource(name)

    def _one_object(self, request: Request, bucket: str, name: str) -> Answer:
        resource = f"projects/_/buckets/{bucket}/objects/{name}"
        if request.method == "GET":
            self.require("storage.objects.get", resource)
            blob = self._matching_blob(request, bucket, name)
            if request.query.get("alt") == "media":
                return _download(request, blob)
            return answer_json(_resource(bucket, name, blob))
        if request.method == "DELETE":
            self.require("storage.objects.delete", resource)
            self._matching_blob(request, bucket, name)
            self.remove(bucket, name)
            return Answer(204)
        if request.method in {"PATCH", "PUT"}:
            self.require("storage.objects.update", resource)
            blob = self._matching_blob(request, bucket, name)
            self._require_calm(bucket, name)
            _describe(blob, request.json())
            blob.metageneration += 1
            return answer_json(_resource(bucket, name, blob))
        raise Refused(405, "methodNotAllowed", "Method Not Allowed")

    def _matching_blob(self, request: Request, bucket: str, name: str) -> Blob:
        """The object, if generation and preconditions of the request match it."""
        blob = self.blob_of(bucket, name)
        if request.query.get("generation", str(blob.generation)) != str(blob.generation):
            raise Refused(404, "notFound", f"No such object: {bucket}/{name}#{request.query['generation']}")
        check_conditions(dict(request.query), blob)
        return blob

    def _list(self, request: Request, bucket: str) -> Answer:
        asked = request.query
        start, end = asked.get("startOffset", ""), asked.get("endOffset", "\U0010ffff")
        found = self.list_blobs(bucket, asked.get("prefix", ""), asked.get("delimiter", ""), start, end)
        size = min(self._page_size, int(asked.get("maxResults", self._page_size)))
        after = base64.b64decode(asked.get("pageToken", "")).decode()
        page = [name for name in found if name > after]
        answer: dict[str, Any] = {"kind": "storage#objects"}
        items = [_resource(bucket, name, blob) for name in page[:size] if (blob := found[name])]
        prefixes = [name for name in page[:size] if not found[name]]
        answer |= {"items": items} if items else {}
        answer |= {"prefixes": prefixes} if prefixes else {}
        if len(page) > size:
            answer["nextPageToken"] = base64.b64encode(page[size - 1].encode()).decode()
        return answer_json(answer)

    def _copy(self, request: Request, verb: str, source: tuple[str, str], target: tuple[str, str]) -> Answer:
        self.require("storage.objects.get", "projects/_/buckets/{}/objects/{}".format(*source))
        blob = self.blob_of(*source)
        check_conditions(dict(request.query), blob, of_source=True)
        check_conditions(dict(request.query), self.bucket_of(target[0]).get(target[1]))
        copy = self.store(*target, blob.content, content_type=blob.content_type, metadata=dict(blob.metadata))
        _describe(copy, request.json())
        resource = _resource(*target, copy)
        if verb == "copyTo":
            return answer_json(resource)
        size = str(len(copy.content))
        done = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
        return answer_json({**done, "resource": resource})

    def _compose(self, request: Request, bucket: str, name: str) -> Answer:
        asked = request.json()
        check_conditions(dict(request.query), self.bucket_of(bucket).get(name))
        if not 1 <= len(asked["sourceObjects"]) <= 32:
            raise Refused(400, "invalid", "The number of source components must be between 1 and 32.")
        parts = [self.blob_of(bucket, source["name"]).content for source in asked["sourceObjects"]]
        blob = self.store(bucket, name, b"".join(parts), is_composite=True)
        _describe(blob, asked.get("destination", {}))
        return answer_json(_resource(bucket, name, blob))

    # Uploads.

    def _upload(self, request: Request, bucket: str) -> Answer:
        self.bucket_of(bucket)
        kind, query = request.query.get("uploadType"), dict(request.query)
        if kind == "resumable" and "upload_id" in query:
            return self._resume(request, query["upload_id"])
        if kind == "resumable":
            resource = {"name": query.get("name"), **request.json()}
            self._admit(_Upload(bucket, resource, query))
            self._uploads[upload_id := f"upload-{len(self._uploads)}"] = _Upload(bucket, resource, query)
            location = f"{self.url}{request.path}?uploadType=resumable&upload_id={upload_id}"
            return Answer(200, headers={"Location": location, "X-GUploader-UploadID": upload_id})
        if kind == "multipart":
            resource, content, content_type = _parts(request)
        elif kind == "media":
            resource, content = {}, request.body
            content_type = request.headers.get("content-type", "application/octet-stream")
        else:
            raise Refused(400, "invalid", f"Invalid upload type: {kind}")
        resource = {"contentType": content_type, "name": query.get("name"), **resource}
        return self._finish(_Upload(bucket, resource, query, bytearray(content)))

    def _admit(self, upload: _Upload) -> None:
        check_conditions(upload.query, self.bucket_of(upload.bucket).get(upload.resource["name"] or ""))

    def _finish(self, upload: _Upload) -> Answer:
        self._admit(upload)
        resource, content = upload.resource, bytes(upload.content)
        given = {key: resource[key] for key in ("md5Hash", "crc32c") if key in resource}
        trial = Blob(content, 0)
        for key, mine in (("md5Hash", trial.md5), ("crc32c", trial.crc32c)):
            if given.get(key, mine) != mine:
                message = f"Provided {key} hash '{given[key]}' doesn't match calculated {key} hash '{mine}'."
                raise Refused(400, "invalid", message)
        blob = self.store(upload.bucket, resource["name"] or "", content)
        _describe(blob, resource)
        return answer_json(_resource(upload.bucket, resource["name"], blob))

    def _resume(self, request: Request, upload_id: str) -> Answer:
        upload = self._uploads.get(upload_id)
        if upload is None:
            raise Refused(404, "notFound", "Upload session not found")
        if upload.answer is not None:
            # However often the last piece is sent.
            return upload.answer
        if request.method == "DELETE":
            del self._uploads[upload_id]
            return Answer(499)
        found = _CHUNK_RANGE.fullmatch(request.headers.get("content-range", "bytes */*"))
        if found is None:
            raise Refused(400, "invalid", "Failed to parse Content-Range header.")
        if found["first"]:
            if int(found["first"]) != len(upload.content):
                return Answer(308, headers=_received_range(upload))
            upload.content += request.body
        elif request.body:
            upload.content += request.body
            found = None
        is_whole = found is None or (found["total"] != "*" and len(upload.content) == int(found["total"]))
        if not is_whole:
            if len(request.body) % _CHUNK_UNIT:
                raise Refused(400, "invalid", f"Chunk size must be a multiple of {_CHUNK_UNIT} bytes.")
            return Answer(308, headers=_received_range(upload))
        sent = dict(pair.strip().split("=", 1) for pair in request.headers.get("x-goog-hash", "").split(",") if pair)
        upload.resource |= {key: sent[name] for name, key in (("md5", "md5Hash"), ("crc32c", "crc32c")) if name in sent}
        upload.answer = self._finish(upload)
        return upload.answer


def check_conditions(query: dict[str, str], blob: Blob | None, *, of_source: bool = False) -> None:
    """Refuse a request whose preconditions do not hold; a generation of 0 stands for an object that is not there."""
    for name, value in query.items():
        found = _CONDITIONS.fullmatch(name)
        if found is None or bool(found["source"]) != of_source:
            continue
        actual = 0 if blob is None else getattr(blob, found["kind"].lower())
        if (str(actual) == value) == bool(found["not"]):
            raise Refused(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")


def _names(path: str) -> list[str]:
    return [urllib.parse.unquote(part) for part in path.split("/")]


def _bucket_resource(name: str) -> Answer:
    return answer_json({"kind": "storage#bucket", "id": name, "name": name, "location": "EUROPE-WEST1"})


def _received_range(upload: _Upload) -> dict[str, str]:
    return {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}


def _describe(blob: Blob, resource: dict[str, Any]) -> None:
    blob.content_type = resource.get("contentType", blob.content_type)
    blob.metadata |= resource.get("metadata") or {}
    kept = ("cacheControl", "contentEncoding", "contentDisposition", "contentLanguage", "storageClass")
    blob.more |= {name: resource[name] for name in kept if name in resource}


def _resource(bucket: str, name: str, blob: Blob) -> dict[str, Any]:
    at = f"{blob.updated:%Y-%m-%dT%H:%M:%S.000Z}"
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{blob.generation}",
        "name": name,
        "bucket": bucket,
        "generation": str(blob.generation),
        "metageneration": str(blob.metageneration),
        "contentType": blob.content_type,
        "size": str(len(blob.content)),
        **({} if blob.is_composite else {"md5Hash": blob.md5}),
        "crc32c": blob.crc32c,
        "etag": blob.etag,
        "storageClass": "STANDARD",
        "timeCreated": at,
        "updated": at,
        **({"metadata": blob.metadata} if blob.metadata else {}),
        **blob.more,
    }


def download_headers(blob: Blob) -> dict[str, str]:
    """The headers that both APIs send with an object's content."""
    return {
        "Content-Type": blob.content_type,
        "ETag": f'"{blob.etag}"',
        "Last-Modified": f"{blob.updated:%a, %d %b %Y %H:%M:%S GMT}",
        "Accept-Ranges": "bytes",
        "x-goog-generation": str(blob.generation),
        "x-goog-metageneration": str(blob.metageneration),
        "x-goog-hash": f"crc32c={blob.crc32c}" + ("" if blob.is_composite else f",md5={blob.md5}"),
        "x-goog-stored-content-length": str(len(blob.content)),
        "x-goog-stored-content-encoding": "identity",
    }


def read_range(asked: str | None, blob: Blob) -> Answer:
    """An object's content, or the part of it that a ``Range`` header asks for.

    Raises:
        Refused: the range lies behind the content's end.
    """
    content, headers = blob.content, download_headers(blob)
    found = _RANGE.fullmatch(asked or "")
    if found is None or found.groups() == ("", ""):
        return Answer(200, content, headers)
    if found["first"]:
        first, last = int(found["first"]), min(int(found["last"] or len(content)), len(content) - 1)
    else:
        first, last = max(len(content) - int(found["last"]), 0), len(content) - 1
    if first > last:
        raise Refused(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
    return Answer(206, content[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"})


def _download(request: Request, blob: Blob) -> Answer:
    return read_range(request.headers.get("range"), blob)


def _parts(request: Request) -> tuple[dict[str, Any], bytes, str]:
    """Metadata, content and content type of a multipart/related upload."""
    boundary = re.search(r'boundary="?([^";]+)"?', request.headers.get("content-type", ""))
    pieces = request.body.split(f"--{boundary[1]}".encode()) if boundary else []
    if len(pieces) != 4:
        raise Refused(400, "invalid", "Multipart body must have exactly two parts.")
    parts = [piece.removesuffix(b"\r\n").split(b"\r\n\r\n", 1) for piece in pieces[1:3]]
    kind = re.search(rb"content-type: *([^\r\n]+)", parts[1][0], flags=re.IGNORECASE)
    with contextlib.suppress(ValueError):
        return json.loads(parts[0][1]), parts[1][1], kind[1].decode() if kind else "application/octet-stream"
    raise Refused(400, "invalid", "Metadata part is not JSON.")
