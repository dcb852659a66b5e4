"""What the discovery documents do not know of a request is found, so fakes and clients cannot be wrong together."""

from __future__ import annotations

import json

import pytest

from tests.support.fakes.discovery import find_faults

pytestmark = pytest.mark.gcp

JOBS = "/v1/projects/shop/locations/europe-west1/customJobs"


def faults(api: str, method: str, path: str, body: object = None, **query: str) -> list[str]:
    return find_faults(api, method, path, query, json.dumps(body).encode() if body else b"")


def test_requests_that_google_documents_have_no_faults() -> None:
    job = {"displayName": "x", "jobSpec": {"workerPoolSpecs": [{"replicaCount": "1"}]}, "labels": {"any": "label"}}
    assert faults("aiplatform.v1", "POST", JOBS, job) == []
    assert faults("storage.v1", "GET", "/storage/v1/b/shop/o/a%2Fb", alt="media") == []
    assert faults("storage.v1", "POST", "/upload/storage/v1/b/shop/o", uploadType="media", ifGenerationMatch="0") == []
    assert faults("bigquery.v2", "DELETE", "/bigquery/v2/projects/shop/datasets/d/tables/t$20240201") == []


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "said"),
    [
        ("PATCH", JOBS, None, {}, "is no request of aiplatform.v1"),
        ("POST", JOBS, {"jobSpec": {"colour": 1}}, {}, "jobSpec.colour is no field"),
        ("POST", JOBS, {"state": "CHEAP"}, {}, "state is 'CHEAP', expected one of JOB_STATE_UNSPECIFIED"),
        ("POST", JOBS, {"labels": []}, {}, "labels is [], expected object"),
        ("GET", JOBS, None, {"order": "x"}, "has no parameter order"),
    ],
)
def test_what_google_does_not_document_is_found(
    method: str, path: str, body: object, query: dict[str, str], said: str
) -> None:
    [fault] = faults("aiplatform.v1", method, path, body, **query)
    assert said in fault
