"""What customers will probably do, as a release has it: in lookups, in lists, in profiles and for the shop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from custseg_assets.stores.customer_lists import PREDICTION_FILES
from custseg_assets.stores.releases import DamagedReleaseError, open_release, point_to
from custseg_serving import schemas
from custseg_serving.answers import Answers
from tests.support.releases import LAPSED_CUSTOMER, make_content, make_release, rewrite_files
from tests.support.server import StartApp
from tests.support.service_fixtures import get

NOTHING = dict.fromkeys(("p_order_30d", "p_order_90d", "expected_orders_90d", "expected_spend_90d", "intervals"))


def test_a_lookup_has_the_predictions_with_their_ends(client: FlaskClient) -> None:
    answer = get(client, "/v1/customers/12348/segment")

    schemas.LookupAnswer.model_validate(answer, extra="forbid")
    assert {name: answer[name] for name in NOTHING} == {
        "p_order_30d": 0.25,
        "p_order_90d": 0.25,
        "expected_orders_90d": 0.25,
        "expected_spend_90d": 50.0,
        "intervals": {
            "p_order_30d": [0.125, 0.375],
            "p_order_90d": [0.125, 0.375],
            "expected_orders_90d": [0.125, 0.375],
            "expected_spend_90d": [25.0, 75.0],
        },
    }


def test_of_whom_nothing_is_predicted_the_answer_is_null(client: FlaskClient) -> None:
    answer = get(client, f"/v1/customers/{LAPSED_CUSTOMER}/segment")

    assert {name: answer[name] for name in NOTHING} == NOTHING


def test_a_release_without_predictions_answers_null_and_has_no_sums(tmp_path: Path) -> None:
    content = replace(make_content(), customer_value=None, value_model=None, segment_products=None)
    release = open_release(tmp_path, make_release(tmp_path, content))

    answer = Answers(release).lookup("12348").answer

    assert answer is not None
    assert {name: answer[name] for name in NOTHING} == NOTHING
    assert "expected" not in release.history
    assert not {"products", "expected_spend_90d"} & release.profiles[0].keys()


def test_a_list_is_ordered_by_what_is_expected(client: FlaskClient) -> None:
    found = get(client, "/v1/customers?sort=-expected_spend_90d")["customers"]

    values = [one["expected_spend_90d"] for one in found]
    assert values[-1] is None
    assert values[:-1] == sorted(values[:-1], reverse=True)
    assert found[0]["customer_id"] == "12347"


def test_segments_say_what_their_customers_bring_and_buy_more_than_others(client: FlaskClient) -> None:
    answer = get(client, "/v1/segments")
    segments = {one["segment_id"]: one for one in answer["segments"]}
    listed = get(client, "/v1/customers?limit=500")["customers"]

    for segment_id, one in segments.items():
        own = [row["expected_spend_90d"] or 0.0 for row in listed if row["segment_id"] == segment_id]
        assert one["expected_spend_90d"] == pytest.approx(sum(own), abs=1e-3)
    assert sum(one["expected_spend_90d"] for one in segments.values()) > 100
    (product,) = segments["S1"]["products"]
    assert (product["product_id"], product["lift"]) == ("22423", 1.9)
    assert segments["S2"]["products"] == []


def test_the_dashboard_is_told_what_is_expected_of_the_shop(client: FlaskClient) -> None:
    (total,) = get(client, "/dashboard/data")["history"]["expected"]

    assert (total["target"], total["level"], total["level_low"], total["level_high"]) == (
        "spend_90d",
        900.0,
        600.0,
        1_300.0,
    )


def test_a_release_of_before_there_were_predictions_is_served_and_its_lists_have_no_such_order(
    start_app: StartApp, served_home: Path
) -> None:
    root = served_home / "releases"
    content = replace(make_content(), customer_value=None, value_model=None, segment_products=None)
    older = rewrite_files(root, make_release(root, content), dict.fromkeys(PREDICTION_FILES))
    for name in PREDICTION_FILES:
        (root / older / name).unlink()
    point_to(root, older)
    client = start_app().test_client()

    listed = get(client, "/v1/customers?sort=-monetary_net")["customers"]

    assert {one["expected_spend_90d"] for one in listed} == {None}
    assert get(client, "/v1/customers/12348/segment")["p_order_30d"] is None
    refused = client.get("/v1/customers?sort=-expected_spend_90d")
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "no_predictions")


@pytest.mark.parametrize("name", sorted(PREDICTION_FILES))
def test_a_release_with_some_of_the_files_of_predictions_is_damaged(tmp_path: Path, name: str) -> None:
    release_id = rewrite_files(tmp_path, make_release(tmp_path), {name: None})

    with pytest.raises(DamagedReleaseError, match="only some files of the lists"):
        open_release(tmp_path, release_id)
