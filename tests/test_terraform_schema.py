"""deploy/terraform against what Google's provider takes."""

from __future__ import annotations

import pytest

from tests.support.terraform import resources
from tests.support.terraform_schema import find_faults, kind_of, read_schema

pytest.importorskip("hcl2", reason="python-hcl2 is not installed here")


def test_every_resource_is_one_that_the_provider_takes() -> None:
    made, schema = resources(), read_schema()
    assert len(made) > 40
    assert [fault for name, body in made.items() for fault in find_faults(name, body, kind_of(name), schema)] == []


def test_a_wrong_name_and_a_missing_one_are_noticed() -> None:
    address = "google_storage_bucket.home"
    body = {**resources()[address], "lifecycle_rule": [{"condition": [{"aged": 3}]}]}
    del body["location"]
    assert sorted(find_faults(address, body, kind_of(address), read_schema())) == [
        f"{address}.lifecycleRule.action is missing",
        f"{address}.lifecycleRule.condition.aged is unknown",
        f"{address}.location is missing",
    ]


def test_a_resource_of_a_kind_that_nobody_looked_up_is_noticed() -> None:
    [fault] = find_faults("google_sql_user.x", {}, kind_of("google_sql_user.x"), read_schema())
    assert fault == "google_sql_user.x: SqlUser is not in terraform_schema.json; make it anew"
