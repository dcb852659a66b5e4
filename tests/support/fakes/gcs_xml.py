"""The other half of the fake of Cloud Storage: the XML API, which Delta's and Polars' client speaks.

Objects with ranges and conditions, upload with preconditions and checksums, copy, delete, both versions of the list,
and multipart uploads, with errors as XML. Objects, generations and permissions are the JSON API's.
"""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.parse
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.support.fakes.service import Answer, Refused, Request

if TYPE_CHECKING:
    from tests.support.fakes.gcs import Blob, FakeGcs

_CODES = {400: "InvalidArgument", 403: "AccessDenied", 404: "NoSuchKey", 405: "MethodNotAllowed"}
_CODES |= {
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}
_NAMESPACE = "http://doc.s3.amazonaws.com/2006-03-01"
_CONDITIONS = re.compile(r"x-goog-(?P<source>copy-source-)?if-(?P<kind>(meta)?generation)-match")
_SMALLEST_PART = 5 << 20
_MOST_PARTS = 10_000
_MOST_KEYS = 1000
_DESCRIBED = {"cache-control": "cacheControl", "content-disposition": "contentDisposition"}
_DESCRIBED |= {"content-encoding": "contentEncoding", "content-language": "contentLanguage"}
_METADATA = "x-goog-meta-"


@dataclass
class _MultipartUpload:
    bucket: str
    name: str
    described: dict[str, Any]
    parts: dict[int, bytes] = field(default_factory=dict)


class XmlApi:
    """Answers requests to the XML API.

    Args:
        gcs: the service whose objects these are.
        page_size: of lists, where the client does not ask for smaller ones.
    """

    def __init__(self, gcs: FakeGcs, page_size: int) -> None:
        self._gcs, self._page_size = gcs, min(page_size, _MOST_KEYS)
        self._uploads: dict[str, _MultipartUpload] = {}

    def answer(self, request: Request) -> Answer:
        """The answer to a request for ``/bucket`` or ``/bucket/object``.

        Raises:
            Refused: the service would refuse it.
        """
        bucket, _, name = (urllib.parse.unquote(part) for part in request.path[1:].partition("/"))
        if bucket not in self._gcs.buckets:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        if not name and request.method in {"GET", "HEAD"}:
            return self._list(request, bucket)
        if not name:
            raise Refused(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        return self._object_request(request, bucket, name)

    def _object_request(self, request: Request, bucket: str, name: str) -> Answer:
        if "uploadId" in request.query:
            upload = self._upload_of(bucket, name, request.query["uploadId"])
            verbs = {"PUT": self._put_part, "POST": self._complete_upload, "DELETE": self._abort_upload}
            if verb := verbs.get(request.method):
                return verb(request, upload)
        elif "uploads" in request.query and request.method == "POST":
            return self._begin_upload(request, bucket, name)
        else:
            put = self._copy if "x-goog-copy-source" in request.headers else self._put
            methods = {"GET": self._get, "HEAD": self._get, "PUT": put, "DELETE": self._delete}
            if method := methods.get(request.method):
                return method(request, bucket, name)
        raise Refused(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")

    # Objects.

    def _get(self, request: Request, bucket: str, name: str) -> Answer:
        from tests.support.fakes.gcs import read_range

        self._gcs.require("storage.objects.get", _resource(bucket, name))
        blob = self._blob(bucket, name)
        if request.query.get("generation", str(blob.generation)) != str(blob.generation):
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        _require_conditions(request, blob)
        if _is_known_to_client(request, blob):
            return Answer(304, headers=_object_headers(blob))
        answer = read_range(request.headers.get("range"), blob)
        length = {"Content-Length": str(len(answer.content))} if request.method == "HEAD" else {}
        return Answer(answer.status, answer.content, {**answer.headers, **_object_headers(blob), **length})

    def _put(self, request: Request, bucket: str, name: str) -> Answer:
        if "content-length" not in request.headers:
            raise Refused(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        _require_digest(request)
        _require_conditions(request, self._gcs.buckets[bucket].get(name))
        blob = self._gcs.store(bucket, name, request.body, **_description_of(request))
        return Answer(200, headers=_object_headers(blob))

    def _copy(self, request: Request, bucket: str, name: str) -> Answer:
        source = urllib.parse.unquote(request.headers["x-goog-copy-source"]).lstrip("/")
        from_bucket, _, from_name = source.partition("/")
        self._gcs.require("storage.objects.get", _resource(from_bucket, from_name))
        original = self._blob(from_bucket, from_name)
        _require_conditions(request, original, of_source=True)
        _require_conditions(request, self._gcs.buckets[bucket].get(name))
        kept = {key: getattr(original, key) for key in ("content_type", "is_composite")}
        kept |= {"metadata": dict(original.metadata), "more": dict(original.more)}
        if request.headers.get("x-goog-metadata-directive") == "REPLACE":
            kept |= _description_of(request)
        blob = self._gcs.store(bucket, name, original.content, **kept)
        told = {"ETag": f'"{_etag(blob)}"', "LastModified": _instant(blob)}
        return _answer_xml(_xml("CopyObjectResult", told), _object_headers(blob))

    def _delete(self, request: Request, bucket: str, name: str) -> Answer:
        self._gcs.require("storage.objects.delete", _resource(bucket, name))
        _require_conditions(request, self._blob(bucket, name))
        self._gcs.remove(bucket, name)
        return Answer(204)

    def _blob(self, bucket: str, name: str) -> Blob:
        blob = self._gcs.buckets.get(bucket, {}).get(name)
        if blob is None:
            # Who may not list is not told what there is and what not.
            self._gcs.require("storage.objects.list", _resource(bucket, name))
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        return blob

    # Lists.

    def _list(self, request: Request, bucket: str) -> Answer:
        asked = request.query
        is_second = asked.get("list-type") == "2"
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        token = _decode_token(asked["continuation-token"]) if "continuation-token" in asked else ""
        after = token or asked.get("start-after" if is_second else "marker", "")
        names = {name: blob for name, blob in self._gcs.list_blobs(bucket, prefix, delimiter).items() if name > after}
        size = min(self._page_size, int(asked.get("max-keys", self._page_size)))
        page = list(names)[:size]
        is_truncated = len(names) > size
        told: dict[str, Any] = {"Name": bucket, "Prefix": prefix, "IsTruncated": str(is_truncated).lower()}
        told |= {"Delimiter": delimiter} if delimiter else {}
        told |= {"KeyCount": len(page), "MaxKeys": size} if is_second else {"MaxKeys": size}
        if is_truncated:
            token = base64.urlsafe_b64encode(page[-1].encode()).decode()
            told |= {"NextContinuationToken": token} if is_second else {"NextMarker": page[-1]}
        told["Contents"] = [_list_entry(name, blob) for name in page if (blob := names[name])]
        told["CommonPrefixes"] = [{"Prefix": name} for name in page if names[name] is None]
        return _answer_xml(_xml("ListBucketResult", told))

    # Multipart uploads.

    def _begin_upload(self, request: Request, bucket: str, name: str) -> Answer:
        self._gcs.require("storage.multipartUploads.create", _resource(bucket, name))
        self._gcs.require("storage.objects.create", _resource(bucket, name))
        _refuse_preconditions(request)
        self._uploads[upload_id := f"multipart-{len(self._uploads)}"] = _MultipartUpload(
            bucket, name, _description_of(request)
        )
        return _answer_xml(
            _xml("InitiateMultipartUploadResult", {"Bucket": bucket, "Key": name, "UploadId": upload_id})
        )

    def _upload_of(self, bucket: str, name: str, upload_id: str) -> _MultipartUpload:
        upload = self._uploads.get(upload_id)
        if upload is None or (upload.bucket, upload.name) != (bucket, name):
            raise Refused(404, "NoSuchUpload", "The requested upload was not found.")
        return upload

    def _put_part(self, request: Request, upload: _MultipartUpload) -> Answer:
        self._gcs.require("storage.objects.create", _resource(upload.bucket, upload.name))
        _refuse_preconditions(request)
        _require_digest(request)
        number = int(request.query.get("partNumber", 0))
        if not 1 <= number <= _MOST_PARTS:
            raise Refused(400, "InvalidArgument", f"Part number must be an integer between 1 and {_MOST_PARTS}.")
        upload.parts[number] = request.body
        return Answer(200, headers={"ETag": f'"{_digest(request.body)}"'})

    def _abort_upload(self, request: Request, upload: _MultipartUpload) -> Answer:
        self._gcs.require("storage.multipartUploads.abort", _resource(upload.bucket, upload.name))
        del self._uploads[request.query["uploadId"]]
        return Answer(204)

    def _complete_upload(self, request: Request, upload: _MultipartUpload) -> Answer:
        _refuse_preconditions(request)
        wanted = [
            (int(_text_of(part, "PartNumber")), _text_of(part, "ETag").strip('"')) for part in _parts_of(request.body)
        ]
        if [number for number, _ in wanted] != sorted({number for number, _ in wanted}):
            raise Refused(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        for number, etag in wanted:
            if number not in upload.parts or _digest(upload.parts[number]) != etag:
                raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        contents = [upload.parts[number] for number, _ in wanted]
        if any(len(content) < _SMALLEST_PART for content in contents[:-1]):
            raise Refused(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum object size.")
        blob = self._gcs.store(upload.bucket, upload.name, b"".join(contents), is_composite=True, **upload.described)
        del self._uploads[request.query["uploadId"]]
        told = {"Bucket": upload.bucket, "Key": upload.name, "ETag": f'"{_etag(blob)}"'}
        return _answer_xml(_xml("CompleteMultipartUploadResult", told), _object_headers(blob))


def xml_error(refusal: Refused) -> Answer:
    """A refusal in the format of the XML API."""
    named = refusal.status[:1].isupper() and not refusal.status.isupper()
    code = refusal.status if named else _CODES.get(refusal.code, "InternalError")
    return _answer_xml(_xml("Error", {"Code": code, "Message": refusal.message}), status=refusal.code)


def _resource(bucket: str, name: str) -> str:
    return f"projects/_/buckets/{bucket}/objects/{name}"


def _require_conditions(request: Request, blob: Blob | None, *, of_source: bool = False) -> None:
    """Refuse a request whose preconditions do not hold; a generation of 0 stands for an object that is not there."""
    failed = Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
    for header, value in request.headers.items():
        found = _CONDITIONS.fullmatch(header)
        if found is None or bool(found["source"]) != of_source:
            continue
        if not value.isdigit():
            raise Refused(400, "InvalidArgument", f"Invalid value for {header}: {value!r}")
        if (0 if blob is None else getattr(blob, found["kind"])) != int(value):
            raise failed
    if of_source or blob is None:
        return
    if "if-match" in request.headers and request.headers["if-match"] not in {"*", f'"{_etag(blob)}"'}:
        raise failed
    before = request.headers.get("if-unmodified-since")
    if before and blob.updated > parsedate_to_datetime(before):
        raise failed


def _is_known_to_client(request: Request, blob: Blob) -> bool:
    if "if-none-match" in request.headers:
        return request.headers["if-none-match"] in {"*", f'"{_etag(blob)}"'}
    since = request.headers.get("if-modified-since")
    return since is not None and blob.updated <= parsedate_to_datetime(since)


def _refuse_preconditions(request: Request) -> None:
    if any(_CONDITIONS.fullmatch(header) for header in request.headers):
        raise Refused(400, "InvalidArgument", "Preconditions are not supported in multipart uploads.")


def _require_digest(request: Request) -> None:
    """Refuse content that is not what its checksums say."""
    from tests.support.fakes.gcs import Blob

    sent = dict(pair.strip().split("=", 1) for pair in request.headers.get("x-goog-hash", "").split(",") if pair)
    if "content-md5" in request.headers:
        sent["md5"] = request.headers["content-md5"]
    mine = Blob(request.body, 0)
    if sent.get("md5", mine.md5) != mine.md5:
        raise Refused(400, "BadDigest", "The MD5 you specified did not match what we received.")
    if "crc32c" in sent and sent["crc32c"] != mine.crc32c:
        raise Refused(400, "CrcMismatch", "The CRC32C you specified did not match what we computed.")


def _description_of(request: Request) -> dict[str, Any]:
    """Content type and metadata of an object, from the headers of its upload."""
    headers = request.headers
    return {
        "content_type": headers.get("content-type", "application/octet-stream"),
        "metadata": {name.removeprefix(_METADATA): headers[name] for name in headers if name.startswith(_METADATA)},
        "more": {_DESCRIBED[name]: headers[name] for name in headers if name in _DESCRIBED},
    }


def _object_headers(blob: Blob) -> dict[str, str]:
    """The headers about an object in every answer; the ETag is not the JSON API's."""
    from tests.support.fakes.gcs import download_headers

    told = {**download_headers(blob), "ETag": f'"{_etag(blob)}"'}
    told |= {f"{_METADATA}{name}": value for name, value in blob.metadata.items()}
    return told | {name: blob.more[key] for name, key in _DESCRIBED.items() if key in blob.more}


def _etag(blob: Blob) -> str:
    return f"{blob.generation}-composite" if blob.is_composite else _digest(blob.content)


def _digest(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _instant(blob: Blob) -> str:
    return f"{blob.updated:%Y-%m-%dT%H:%M:%S.000Z}"


def _list_entry(name: str, blob: Blob) -> dict[str, Any]:
    return {
        "Key": name,
        "Generation": blob.generation,
        "MetaGeneration": blob.metageneration,
        "LastModified": _instant(blob),
        "ETag": f'"{_etag(blob)}"',
        "Size": len(blob.content),
    }


def _decode_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError:
        raise Refused(400, "InvalidArgument", "Invalid continuation token.") from None


def _parts_of(body: bytes) -> list[ET.Element]:
    try:
        root = ET.fromstring(body)  # noqa: S314  (the tests' own client wrote it)
        return [one for one in root if one.tag.rpartition("}")[2] == "Part"]
    except ET.ParseError:
        raise Refused(400, "MalformedXML", "The XML you provided was not well-formed.") from None


def _text_of(part: ET.Element, tag: str) -> str:
    return next((one.text or "" for one in part if one.tag.rpartition("}")[2] == tag), "")


def _xml(tag: str, content: object) -> str:
    """An XML element; a list gives one for each item, a mapping one with children."""
    if isinstance(content, list):
        return "".join(_xml(tag, one) for one in content)
    if isinstance(content, dict):
        return f"<{tag}>{''.join(_xml(name, value) for name, value in content.items())}</{tag}>"
    return f"<{tag}>{escape(str(content))}</{tag}>"


def _answer_xml(element: str, headers: dict[str, str] | None = None, status: int = 200) -> Answer:
    named = element if element.startswith("<Error>") else element.replace(">", f' xmlns="{_NAMESPACE}">', 1)
    content = f"<?xml version='1.0' encoding='UTF-8'?>{named}".encode()
    return Answer(status, content, {**(headers or {}), "Content-Type": "application/xml; charset=UTF-8"})
