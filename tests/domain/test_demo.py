"""The demo shop: equal logs for equal seeds, and the pipeline finds what the generator says it planted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime

import narwhals as nw
import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.demo import ARCHETYPES, PlantedTruth, generate_demo, planted_truth
from custseg_assets.domain.periods import snapshot_keys, window_of
from custseg_assets.domain.schemas import RAW_TRANSACTIONS
from custseg_assets.domain.segments.model import RFM, Matrix, measure_reference
from custseg_assets.domain.transactions.cleaning import CleaningRules, classify, clean_lines
from custseg_assets.domain.transactions.quality import reject_share_outliers
from tests.support.features import measure_features

RULES = CleaningRules(1, ("Next Day Carriage", "High Resolution Image"), "C")


@dataclass(frozen=True)
class Shop:
    raw: pl.DataFrame
    truth: PlantedTruth
    reasons: pl.DataFrame
    clean: pl.DataFrame


@pytest.fixture(scope="module")
def shop() -> Shop:
    raw = generate_demo()
    period = pl.col("invoiced_at").dt.strftime("%Y-%m-01").alias("period")
    lines = raw.with_columns(period, pl.lit("demo").alias("source_file"))
    classified = classify(nw.from_native(lines.lazy()), RULES)
    clean = clean_lines(classified, RULES).to_native().collect()
    return Shop(raw, planted_truth(), classified.to_native().collect(), clean)


@pytest.fixture(scope="module")
def rfm(shop: Shop) -> dict[str, Matrix]:
    """log1p of recency, frequency and net money by snapshot, of the customers that K-means would see."""
    keys = tuple(shop.clean["period"].unique().sort())
    matrices = {}
    for key in snapshot_keys(keys, 6):
        features = measure_features(shop.clean, window_of(key, keys[0], 6, "monthly"))
        visible = features.filter(pl.col("frequency_orders") > 0, pl.col("monetary_net") > 0)
        matrices[key] = np.log1p(visible.select(RFM).to_numpy().astype(float))
    return matrices


def psi(reference: Matrix, current: Matrix) -> float:
    """Population stability index over the reference's deciles."""
    edges = np.unique(np.quantile(reference, np.arange(0.1, 1, 0.1)))
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, values, "right"), minlength=len(edges) + 1) / len(values), 1e-4)
        for values in (reference, current)
    ]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def test_equal_seeds_give_equal_logs_and_other_seeds_other_logs() -> None:
    log = generate_demo(7, 60, 6)
    assert log.equals(generate_demo(7, 60, 6))
    assert log.write_csv() == generate_demo(7, 60, 6).write_csv()
    assert not log.equals(generate_demo(8, 60, 6))


def test_the_log_has_the_columns_of_a_source_as_it_was_read(shop: Shop) -> None:
    expected = {name: dtype for name, dtype in RAW_TRANSACTIONS.schema.items() if name not in ("period", "source_file")}
    assert dict(shop.raw.schema) == expected
    assert shop.raw["source_row"].to_list() == list(range(1, len(shop.raw) + 1))
    assert shop.raw["line_amount"].null_count() == len(shop.raw) == shop.truth.n_lines
    assert 150_000 <= len(shop.raw) <= 250_000


def test_every_kind_of_dirt_is_found_exactly_as_often_as_it_was_planted(shop: Shop) -> None:
    found = Counter(shop.reasons["reason"].drop_nulls().to_list())
    assert found == shop.truth.rejected
    assert set(found) == {
        "unreadable", "missing_customer", "duplicate", "service_code", "service_description", "non_positive_price",
    }  # fmt: skip
    assert found["missing_customer"] / len(shop.raw) == pytest.approx(0.22, abs=0.01)
    assert found["duplicate"] / len(shop.raw) == pytest.approx(0.01, abs=0.001)


def test_values_that_could_not_be_read_are_null_and_keep_their_text(shop: Shop) -> None:
    bad = shop.raw.filter(pl.col("unreadable_values").is_not_null())
    assert len(bad) == shop.truth.rejected["unreadable"]
    columns = set()
    for row in bad.iter_rows(named=True):
        ((column, text),) = json.loads(row["unreadable_values"]).items()
        assert row[column] is None
        assert text
        columns.add(column)
    assert columns == {"invoiced_at", "quantity", "unit_price"}


def test_every_cancellation_takes_back_an_earlier_order_line(shop: Shop) -> None:
    key = ["customer_id", "product_id", "quantity"]
    known = shop.raw.filter(pl.col("invoiced_at").is_not_null() & pl.col("quantity").is_not_null())
    is_cancellation = pl.col("invoice_id").str.starts_with("C")
    cancelled = known.filter(is_cancellation).with_columns(-pl.col("quantity"))
    ordered = known.filter(~is_cancellation).select(*key, pl.col("invoiced_at").alias("ordered_at"))
    earlier = cancelled.join(ordered, on=key).filter(pl.col("ordered_at") < pl.col("invoiced_at"))
    assert cancelled.height == shop.truth.n_cancellation_lines > 1_000
    # An order line that could not be read may have been cancelled, too.
    assert cancelled["source_row"].n_unique() - earlier["source_row"].n_unique() <= shop.truth.rejected["unreadable"]
    assert (known.filter(~is_cancellation)["quantity"] > 0).all()


def test_some_customers_sent_everything_back(shop: Shop) -> None:
    net = shop.clean.group_by("customer_id").agg(pl.col("line_amount").sum().round(2))
    assert (net["line_amount"] == 0).sum() >= 5


def test_every_customer_has_an_archetype_and_orders(shop: Shop) -> None:
    assert set(shop.raw["customer_id"].drop_nulls()) == set(shop.truth.archetypes)
    assert set(shop.truth.archetypes.values()) == set(ARCHETYPES)
    assert len(shop.truth.archetypes) == 5_000
    assert sum(archetype.share for archetype in ARCHETYPES.values()) == pytest.approx(1)


def test_whales_spend_most_and_over_fifty_times_the_median(shop: Shop) -> None:
    spend = shop.clean.group_by("customer_id").agg(pl.col("line_amount").sum())
    whales = spend.filter(pl.col("customer_id").is_in(shop.truth.whales))
    assert len(whales) == len(shop.truth.whales) == 6
    assert whales["line_amount"].min() > 50 * spend["line_amount"].median()
    assert set(spend.top_k(5, by="line_amount")["customer_id"]) <= set(shop.truth.whales)


def test_leavers_order_nothing_from_the_change_on_and_others_do(shop: Shop) -> None:
    first, *_, last = shop.truth.change_months
    assert (first, last) == (date(2024, 11, 1), date(2025, 1, 1))
    change = datetime.combine(first, datetime.min.time())
    late = shop.clean.filter(pl.col("invoiced_at") >= change, ~pl.col("is_cancellation"))["customer_id"].unique()
    assert not set(late) & set(shop.truth.leavers)
    assert len(late) > 500
    assert len(shop.truth.leavers) > 1_000


def test_subscribers_come_in_the_month_of_the_change_and_order_every_week(shop: Shop) -> None:
    subscribers = [customer for customer, kind in shop.truth.archetypes.items() if kind == "subscriber"]
    orders = shop.clean.filter(pl.col("customer_id").is_in(subscribers), ~pl.col("is_cancellation"))
    first = orders.group_by("customer_id").agg(pl.col("invoiced_at").min())["invoiced_at"]
    assert first.min() >= datetime(2024, 11, 1)
    in_december = (
        orders.filter(pl.col("period") == "2024-12-01").group_by("customer_id").agg(pl.col("invoice_id").n_unique())
    )
    assert len(subscribers) == pytest.approx(400, abs=40)
    assert 4 <= in_december["invoice_id"].mean() <= 6  # December is busy


def test_the_change_does_not_look_like_broken_data(shop: Shop) -> None:
    """Lines over the counter become fewer too; else the share of rejected lines would rise, and no model be trained."""
    shares = shop.reasons.drop_nulls("period").group_by("period").agg(pl.col("reason").is_not_null().mean())
    found = reject_share_outliers(dict(shares.iter_rows()))
    assert found.is_judged
    assert found.outliers == {}


def test_prices_rise_by_a_quarter_at_the_change(shop: Shop) -> None:
    change = datetime.combine(shop.truth.change_months[0], datetime.min.time())
    orders = shop.clean.filter(~pl.col("is_cancellation")).with_columns(is_late=pl.col("invoiced_at") >= change)
    prices = orders.group_by("product_id", "is_late").agg(
        pl.col("unit_price").n_unique(), price=pl.col("unit_price").min()
    )
    assert (prices["unit_price"] == 1).all()
    early, late = (prices.filter(is_late=flag) for flag in (False, True))
    both = early.join(late, on="product_id", suffix="_late")
    assert len(both) > 290
    assert (both["price_late"] / both["price"]).median() == pytest.approx(1.25, abs=0.01)


def test_a_product_in_fashion_sells_more_to_its_taste_than_before_or_after(shop: Shop) -> None:
    taste_of = {customer: ARCHETYPES[kind].taste for customer, kind in shop.truth.archetypes.items()}
    taste = pl.col("customer_id").replace_strict(taste_of)
    lines = shop.clean.filter(~pl.col("is_cancellation")).select("product_id", "invoiced_at", taste=taste)
    fashion = pl.DataFrame(shop.truth.in_fashion, schema=["product_id", "taste", "first", "last"], orient="row")
    sold = lines.join(fashion, on=["product_id", "taste"]).with_columns(
        is_on=pl.col("invoiced_at").dt.date().is_between("first", "last")
    )
    days_on = (fashion["last"] - fashion["first"]).dt.total_days().sum() + len(fashion)
    days_off = len(fashion) * (date(2025, 2, 1) - date(2024, 1, 1)).days - days_on
    assert sold["is_on"].sum() / days_on > 3 * (~sold["is_on"]).sum() / days_off


def test_recency_drifts_in_the_last_months_and_nothing_does_before(rfm: dict[str, Matrix]) -> None:
    reference = rfm["2024-06-01"]
    scores = {key: [psi(reference[:, column], values[:, column]) for column in range(3)] for key, values in rfm.items()}
    quiet = [key for key in scores if key < "2024-11-01"]
    assert len(quiet) == 5
    assert max(max(scores[key]) for key in quiet) < 0.1
    assert scores["2025-01-01"][0] >= 0.25


def test_four_clusters_of_the_first_full_window_are_stable(rfm: dict[str, Matrix]) -> None:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    values = np.expm1(rfm["2024-06-01"])
    matrix = measure_reference(values, RFM).scale(values)
    labels = KMeans(4, n_init=2, random_state=0).fit_predict(matrix)
    random = np.random.default_rng(0)
    agreements = []
    for _ in range(5):
        sample = matrix[random.integers(0, len(matrix), len(matrix))]
        agreements.append(adjusted_rand_score(labels, KMeans(4, n_init=2, random_state=0).fit(sample).predict(matrix)))
    assert np.mean(agreements) >= 0.8
    assert np.bincount(labels).min() / len(labels) >= 0.02


@pytest.mark.parametrize(("n_customers", "n_months"), [(1, 4), (40, 5)])
def test_a_small_shop_is_a_shop(n_customers: int, n_months: int) -> None:
    log, truth = generate_demo(3, n_customers, n_months), planted_truth(3, n_customers, n_months)
    assert log["customer_id"].drop_nulls().n_unique() == n_customers
    assert len(log) == truth.n_lines
    assert truth.change_months[-1] == date(2024, n_months, 1)
    assert log["invoiced_at"].max() < datetime(2024, n_months + 1, 1)


@pytest.mark.parametrize(("n_customers", "n_months"), [(0, 13), (10, 3)])
def test_a_shop_without_customers_or_without_a_month_before_the_change_is_refused(
    n_customers: int, n_months: int
) -> None:
    with pytest.raises(ValueError, match="at least 1 and 4 are needed"):
        generate_demo(1, n_customers, n_months)
