"""Recommendations: what is popular lately in the segment and new to the customer, and whether that is any good."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain import recommendations, tastes
from custseg_assets.domain.periods import window_of
from custseg_assets.domain.purchases import list_descriptions, list_pairs
from custseg_assets.domain.recommendations import METHODS, Method, evaluate, recommend
from custseg_assets.domain.schemas import PRODUCT_RECOMMENDATIONS
from custseg_assets.domain.segments.model import RFM, measure_reference
from tests.support.features import measure_features
from tests.support.lines import clean_rows
from tests.support.real_tables import RealTables

AS_OF = datetime(2011, 7, 1)


def bought(*sales: tuple[str, str, str], **common: Any) -> pl.DataFrame:
    """Order lines given as customer, product and day."""
    return clean_rows(
        *({"customer_id": who, "product_id": what, "description": f"NICE {what}", "invoiced_at": when, **common}
          for who, what, when in sales)
    )  # fmt: skip


def placed(**segments: Iterable[str]) -> pl.DataFrame:
    """Segment assignments; each segment with its customers, in a text one letter each."""
    rows = [(customer, segment) for segment, customers in segments.items() for customer in customers]
    return pl.DataFrame(rows, schema={"customer_id": pl.String, "segment_id": pl.String}, orient="row")


def offered(
    purchases: pl.DataFrame, assignments: pl.DataFrame, method: Method, n_items: int = 2, half_life_days: float = 10
) -> dict[str, list[str]]:
    """Products by customer, in the order of rank."""
    table = recommend(
        purchases, assignments, as_of=AS_OF, n_items=n_items, method=method, half_life_days=half_life_days
    )
    return {
        str(who): group["product_id"].to_list() for (who,), group in table.group_by("customer_id", maintain_order=True)
    }


def test_global_popularity_counts_customers_and_leaves_out_what_one_has_bought() -> None:
    purchases = bought(
        ("a", "10", "2011-02-01"), ("b", "10", "2011-02-02"),
        ("b", "20", "2011-02-02"), ("b", "20", "2011-03-02"), ("b", "20", "2011-04-02"),
        ("c", "30", "2011-05-02"),
    )  # fmt: skip
    # Two customers bought 10 and one each 20 and 30: three times is not three customers.
    assert offered(purchases, placed(S1="abcd"), "global_all") == {
        "a": ["20", "30"], "b": ["30"], "c": ["10", "20"], "d": ["10", "20"],
    }  # fmt: skip


def test_recent_popularity_counts_the_last_thirty_days_and_then_all() -> None:
    purchases = bought(
        ("a", "10", "2011-05-31"), ("b", "10", "2011-05-31"), ("c", "20", "2011-06-01"), ("b", "30", "2011-05-31")
    )
    assert offered(purchases, placed(S1="d"), "global_recent", n_items=3) == {"d": ["20", "10", "30"]}


def test_the_score_of_a_segment_is_the_smoothed_share_that_took_the_product_up_by_hand() -> None:
    # One of two buyers took 10 up 10 whole days before: with a half-life of 10 days that is half a customer. The prior
    # is 400 customers of the shop's taste: (0.5 + 400 * 0.5 / 2) / (2 + 400).
    purchases = bought(("a", "10", "2011-06-21"), ("b", "20", "2011-06-21"))
    table = recommend(purchases, placed(S1="ab"), as_of=AS_OF, n_items=1, method="segment_recent", half_life_days=10)
    assert table["score"].to_list() == pytest.approx([100.5 / 402] * 2, abs=1e-9)
    assert table.to_dicts()[0] == {
        "customer_id": "a", "rank": 1, "product_id": "20", "description": "NICE 20",
        "score": pytest.approx(0.25), "method": "segment_recent",
    }  # fmt: skip


def test_each_segment_is_offered_what_is_popular_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommendations, "PRIOR_CUSTOMERS", 1)
    purchases = bought(
        ("a", "10", "2011-06-20"), ("b", "10", "2011-06-20"), ("x", "20", "2011-06-20"), ("y", "20", "2011-06-20")
    )
    assert offered(purchases, placed(S1="abc", S2="xyz"), "segment_recent", n_items=1) == {
        "a": ["20"], "b": ["20"], "c": ["10"], "x": ["10"], "y": ["10"], "z": ["20"],
    }  # fmt: skip


def test_a_take_up_half_a_year_old_counts_less_than_one_of_last_week() -> None:
    old = [(who, "10", "2011-01-03") for who in "abc"]
    purchases = bought(*old, ("d", "20", "2011-06-24"))
    assert offered(purchases, placed(S1="abcde"), "segment_recent")["e"] == ["20", "10"]
    assert offered(purchases, placed(S1="abcde"), "segment_recent", half_life_days=10_000)["e"] == ["10", "20"]


def test_a_repeat_purchase_is_no_new_take_up() -> None:
    purchases = bought(("a", "10", "2011-01-03"), ("a", "10", "2011-06-30"), ("b", "20", "2011-06-20"))
    assert offered(purchases, placed(S1="abc"), "segment_recent", n_items=1)["c"] == ["20"]


@pytest.mark.parametrize("method", METHODS)
def test_lapsed_customers_are_offered_what_the_whole_shop_buys(method: Method) -> None:
    purchases = bought(("a", "10", "2011-06-20"), ("b", "10", "2011-06-21"), ("b", "20", "2011-06-21"))
    assert offered(purchases, placed(S1="ab", R2="z"), method)["z"] == ["10", "20"]


@pytest.mark.parametrize("method", METHODS)
def test_who_has_bought_the_whole_head_is_offered_the_tail_and_who_has_everything_nothing(method: Method) -> None:
    codes = [f"{number:02}" for number in range(40)]
    hungry = [("a", code, "2011-06-20") for code in codes[:38]]
    everything = [("b", code, "2011-06-20") for code in codes]
    offers = offered(bought(*hungry, *everything), placed(S1="abc"), method, n_items=3)
    assert offers == {"a": ["38", "39"], "c": ["00", "01", "02"]}


def test_cancellations_and_lines_from_as_of_on_do_not_count() -> None:
    purchases = pl.concat(
        [
            bought(("a", "10", "2011-06-30 23:59")),
            bought(("a", "20", "2011-07-01 00:00")),
            bought(("a", "30", "2011-06-30"), is_cancellation=True),
        ]
    )
    assert offered(purchases, placed(S1="z"), "global_all", n_items=3) == {"z": ["10"]}


def test_the_description_is_the_most_recent_one_and_may_be_missing() -> None:
    purchases = pl.concat(
        [
            bought(("a", "10", "2011-06-01"), description="OLD"),
            bought(("b", "10", "2011-06-02"), description="NEW"),
            bought(("b", "10", "2011-06-03"), ("b", "20", "2011-06-03"), description=None),
        ]
    )
    table = recommend(purchases, placed(S1="z"), as_of=AS_OF, n_items=2, method="global_all", half_life_days=10)
    assert table.select("product_id", "description").rows() == [("10", "NEW"), ("20", None)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("purchases", "assignments"),
    [
        (bought(("a", "10", "2011-06-01"), product_id=None), placed(S1="ab")),
        (bought(("a", "10", "2011-06-01")).clear(), placed(S1="ab")),
        (bought(("a", "10", "2011-06-01")), placed()),
    ],
    ids=["a shop without products", "no purchases", "no customers"],
)
def test_nothing_to_offer_is_an_empty_table(purchases: pl.DataFrame, assignments: pl.DataFrame, method: Method) -> None:
    table = recommend(purchases, assignments, as_of=AS_OF, n_items=3, method=method, half_life_days=10)
    assert table.is_empty()
    assert table.schema == {column.name: column.dtype for column in PRODUCT_RECOMMENDATIONS.columns[1:]}


def many_sales() -> tuple[pl.DataFrame, pl.DataFrame]:
    sales = [
        (who, f"{i * j % 17}", f"2011-0{1 + i * j % 6}-11") for i, who in enumerate("abcdefg") for j in range(1, 9)
    ]
    return bought(*sales), placed(S1="abcd", S2="efgh")


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_does_not_matter(method: Method) -> None:
    purchases, assignments = many_sales()
    arguments = {"as_of": AS_OF, "n_items": 3, "method": method, "half_life_days": 30}
    once = recommend(purchases, assignments, **arguments)
    assert once.equals(recommend(purchases.reverse().lazy(), assignments.reverse(), **arguments))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("slices", [["abcdefgh"], ["abc", "defgh"], [*"abcdefgh"], ["", "abcdefg", "h"]])
def test_slices_of_customers_add_up_to_the_whole(method: Method, slices: list[str]) -> None:
    purchases, assignments = many_sales()
    parts = [
        (
            list_pairs(purchases.filter(pl.col("customer_id").is_in([*ids])), until=AS_OF),
            assignments.filter(pl.col("customer_id").is_in([*ids])),
        )
        for ids in slices
    ]
    counted = [recommendations.count_buyers(pairs, placed, AS_OF, 30) for pairs, placed in parts]
    buyers = recommendations.add_buyers(counted)
    n_both = np.sum([buyers.bought_together(pairs) for pairs, _ in parts], axis=0)
    ranking = buyers.rank(method, buyers.learn_tastes(n_both, AS_OF))
    texts = list_descriptions(purchases, until=AS_OF)
    offers = [recommendations.offer_products(placed, pairs, ranking, texts, 3, method) for pairs, placed in parts]
    expected = recommend(purchases, assignments, as_of=AS_OF, n_items=3, method=method, half_life_days=30)
    assert pl.concat(offers).sort("customer_id", "rank").equals(expected)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "personal"])
@pytest.mark.parametrize("seed", range(4))
def test_offers_are_the_first_of_the_ranking_that_the_customer_has_not_bought(method: Method, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sales = [
        (f"c{rng.integers(12)}", f"{int(9 * rng.random() ** 2)}", f"2011-0{rng.integers(1, 7)}-11") for _ in range(90)
    ]
    purchases, assignments = (
        bought(*sales),
        placed(S1=["c0", "c1", "c2", "c3", "c99"], S2=[f"c{n}" for n in range(4, 12)]),
    )
    ranking = recommendations.count_buyers(list_pairs(purchases, until=AS_OF), assignments, AS_OF, 30).rank(method)
    offers = recommend(purchases, assignments, as_of=AS_OF, n_items=4, method=method, half_life_days=30)
    for customer_id, segment_id in assignments.select("customer_id", "segment_id").iter_rows():
        row = ranking.segments.to_list().index(segment_id)
        own = {product for who, product, _ in sales if who == customer_id}
        wanted = [ranking.products[int(code)] for code in ranking.order[row] if ranking.products[int(code)] not in own]
        found = offers.filter(customer_id=customer_id)
        assert found["product_id"].to_list() == wanted[:4]
        assert found["rank"].to_list() == [*range(1, len(wanted[:4]) + 1)]


@pytest.mark.parametrize("n_known", [1, 4, 9, 20])
def test_after_the_products_that_tastes_are_known_of_the_segments_popular_ones_follow(
    n_known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchases, assignments = many_sales()
    arguments: dict[str, Any] = {"as_of": AS_OF, "n_items": 6, "half_life_days": 30}
    popular = recommend(purchases, assignments, **(arguments | {"n_items": 17}), method="segment_recent")
    monkeypatch.setattr(recommendations, "MOST_BOUGHT", n_known)
    offers = recommend(purchases, assignments, **arguments, method="personal")
    pairs = list_pairs(purchases, until=AS_OF)
    known = recommendations.count_buyers(pairs, assignments, AS_OF, 30).most_bought().to_list()
    assert len(known) == min(n_known, 17)
    for customer_id in "abcdefgh":
        own = pairs.products.gather(pairs.what[pairs.customers.gather(pairs.who) == customer_id])
        found = offers.filter(customer_id=customer_id)
        first = [product for product in known if product not in own][:6]
        rest = popular.filter(pl.col("customer_id") == customer_id, ~pl.col("product_id").is_in(known))["product_id"]
        assert set(found["product_id"].head(len(first))) <= set(known)
        assert found["product_id"].to_list()[len(first) :] == rest.to_list()[: 6 - len(first)]
        assert found["rank"].to_list() == [*range(1, found.height + 1)]


def test_a_part_of_many_customers_is_tested_by_their_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    customers = pl.DataFrame({"customer_id": [f"c{n:05}" for n in range(10_000)], "segment_id": "S1"})
    assert recommendations.tested_customers(customers, 10_000).equals(customers)
    monkeypatch.setattr(recommendations, "TESTED_AT_MOST", 1_000)
    tested = recommendations.tested_customers(customers, 10_000)
    assert 900 < tested.height < 1_100
    in_slices = [recommendations.tested_customers(part, 10_000) for part in customers.iter_slices(700)]
    assert pl.concat(in_slices).equals(tested)
    # The same in every version and on every machine.
    assert tested["customer_id"].head(3).to_list() == ["c00023", "c00033", "c00037"]


@pytest.mark.parametrize("method", METHODS)
def test_ids_may_be_categories_in_whatever_order_they_came(method: Method) -> None:
    # Equal scores are ordered by product id, so the order of the categories would show.
    sales = [(who, f"{i * j % 17}", f"2011-0{1 + i * j % 6}-11") for i, who in enumerate("gfedcba") for j in range(9)]
    purchases, assignments = bought(*sales), placed(S1="abcd", S2="efgh")
    arguments: dict[str, Any] = {"as_of": AS_OF, "n_items": 3, "method": method, "half_life_days": 30}
    coded = purchases.with_columns(pl.col("customer_id", "product_id").cast(pl.Categorical))
    assert recommend(coded, assignments, **arguments).equals(recommend(purchases, assignments, **arguments))


CUT = AS_OF - timedelta(days=30)


def a_month_of_test(n_customers: int, new_product: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Before the cut many once bought 10, then the last few 20; in the test everybody buys one product more."""
    names = [f"c{number:02}" for number in range(n_customers)]
    before = [(name, "30", "2011-02-01") for name in names]
    popular = [(f"p{number}", "10", "2011-02-01") for number in range(20)]
    fashionable = [(f"f{number}", "20", "2011-05-30") for number in range(5)]
    after = [(name, new_product, "2011-06-15") for name in names]
    purchases = bought(*before, *popular, *fashionable, *after)
    assignments = pl.DataFrame({"customer_id": names, "segment_id": ["S1"] * n_customers})
    return purchases, assignments


def test_the_method_that_would_have_foreseen_the_purchases_wins() -> None:
    purchases, assignments = a_month_of_test(40, "20")
    result = evaluate(purchases, assignments, as_of=AS_OF, half_life_days=10, n_items=1)
    assert {score.method: score.n_hits for score in result.scores} == {
        "global_all": 0, "global_recent": 40, "segment_recent": 40, "personal": 40,
    }  # fmt: skip
    # Three are equally good: the simplest one is used.
    assert result.winner == "global_recent"
    assert result.n_customers == 40
    assert result.cut == CUT
    assert result.sentence.startswith("global_recent won: 100.0% of 40 customers bought one of the 1 products")
    assert (
        "against 100.0% (segment_recent), 100.0% (personal) and 0.0% (global_all); the lead is within its 95 % interval"
        in result.sentence
    )


def test_old_favourites_win_where_customers_come_back_to_them() -> None:
    purchases, assignments = a_month_of_test(40, "10")
    result = evaluate(purchases, assignments, as_of=AS_OF, half_life_days=10, n_items=1)
    assert result.winner == "global_all"
    assert [score.hit_rate for score in result.scores] == [1, 0, 0, 0]


def test_the_taste_of_a_segment_wins_where_segments_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommendations, "PRIOR_CUSTOMERS", 1)
    readers, cooks = [f"r{number:02}" for number in range(40)], [f"k{number:02}" for number in range(60)]
    # Half of each segment has its product by the cut, the other half takes it up in the test.
    sales = [(name, "11", "2011-05-25") for name in readers[:20]] + [(name, "22", "2011-05-25") for name in cooks[:30]]
    later = [(name, "11", "2011-06-15") for name in readers[20:]] + [(name, "22", "2011-06-15") for name in cooks[30:]]
    assignments = pl.DataFrame({"customer_id": readers + cooks, "segment_id": ["S1"] * 40 + ["S2"] * 60})
    result = evaluate(bought(*sales, *later), assignments, as_of=AS_OF, half_life_days=10, n_items=1)
    assert result.winner == "segment_recent"
    # Those who take a product up bought nothing before, so nobody knows their taste.
    assert [score.n_hits for score in result.scores] == [30, 30, 50, 30]
    assert result.sentence.endswith("against 60.0% (global_all), 60.0% (global_recent) and 60.0% (personal).")


def test_the_own_taste_wins_where_what_was_bought_tells_what_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tastes, "REGULARISATION", 1)
    # One product leads to another; everybody is in one segment, and what others begin with is more popular.
    sales = [(f"{a}{n:02}", f"{a}1", "2011-05-25") for a in "abcd" for n in range(30)]
    led = [(f"{a}{n:02}", f"{a}2", "2011-05-26") for a in "abcd" for n in range(15)]
    later = [(f"{a}{n:02}", f"{a}2", "2011-06-15") for a in "abcd" for n in range(15, 30)]
    assignments = placed(S1=dict.fromkeys(who for who, _, _ in sales))
    result = evaluate(bought(*sales, *led, *later), assignments, as_of=AS_OF, half_life_days=10, n_items=1)
    assert result.winner == "personal"
    assert [score.n_hits for score in result.scores] == [0, 0, 0, 60]


def test_only_customers_who_bought_something_new_are_in_the_test() -> None:
    purchases, assignments = a_month_of_test(40, "20")
    again = bought(("old", "30", "2011-02-01"), ("old", "30", "2011-06-10"))
    old = pl.DataFrame({"customer_id": ["old"], "segment_id": ["S1"]})
    result = evaluate(
        pl.concat([purchases, again]), pl.concat([assignments, old]), as_of=AS_OF, half_life_days=10, n_items=1
    )
    assert result.n_customers == 40


@pytest.mark.parametrize("n_customers", [0, 1, 29])
def test_too_few_customers_are_no_comparison(n_customers: int) -> None:
    purchases, assignments = a_month_of_test(n_customers, "20")
    result = evaluate(purchases, assignments.cast(pl.String), as_of=AS_OF, half_life_days=10)
    assert (result.winner, result.scores, result.n_customers) == ("personal", (), n_customers)
    assert result.sentence == (
        f"Not enough data to compare recommendation methods: {n_customers} customers bought something new between "
        "2011-06-01 and 2011-07-01, 30 are needed; personal is used."
    )


def test_purchases_of_the_test_are_unknown_to_the_methods() -> None:
    # Everybody takes up a product in the test that nobody had before: no method can know it.
    purchases, assignments = a_month_of_test(40, "99")
    result = evaluate(purchases, assignments, as_of=AS_OF, half_life_days=10)
    assert [score.n_hits for score in result.scores] == [0, 0, 0, 0]
    assert result.winner == "global_all"


def test_a_hit_rate_has_the_published_wilson_interval() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 gives 0.2553 to 0.3662.
    purchases, assignments = a_month_of_test(263, "20")
    is_missed = (pl.col("invoiced_at") >= CUT) & ~pl.col("customer_id").is_in(assignments["customer_id"].head(81))
    purchases = purchases.with_columns(product_id=pl.when(is_missed).then(pl.lit("99")).otherwise("product_id"))
    result = evaluate(purchases, assignments, as_of=AS_OF, half_life_days=10, n_items=1)
    none, some, *_ = result.scores
    assert (some.n_hits, result.n_customers) == (81, 263)
    assert (some.low, some.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    # Of no hits the upper end is z² / (n + z²).
    assert (none.n_hits, none.low, none.high) == (0, 0, pytest.approx(3.841459 / 266.841459))


def k_means_segments(clean: pl.DataFrame, key: str) -> pl.DataFrame:
    """Four plain K-means clusters of a snapshot, as segments."""
    from sklearn.cluster import KMeans

    features = measure_features(clean, window_of(key, "2010-12-01", 6, "monthly"))
    visible = features.filter(pl.col("frequency_orders") > 0, pl.col("monetary_net") > 0)
    values = visible.select(RFM).to_numpy().astype(np.float64)
    labels = KMeans(4, n_init=4, random_state=0).fit_predict(measure_reference(values, RFM).scale(values))
    return visible.select("customer_id", segment_id=pl.Series(labels).cast(pl.String))


@pytest.mark.parametrize(("as_of", "key"), [("2011-11-01", "2011-09-01"), ("2011-12-01", "2011-10-01")])
def test_on_the_real_log_the_own_taste_beats_popularity_and_that_of_segments_both_plain_ones(
    real_tables: RealTables, as_of: str, key: str
) -> None:
    end = datetime.fromisoformat(as_of)
    start = window_of(key, "2010-12-01", 6, "monthly").start
    window = real_tables.clean.filter(pl.col("invoiced_at").is_between(start, end, closed="left"))
    cut = datetime.fromisoformat(key).replace(month=int(key[5:7]) + 1)
    result = evaluate(
        window, k_means_segments(real_tables.clean, key), as_of=end, horizon_days=(end - cut).days, half_life_days=10
    )
    assert result.winner == "personal"
    everywhere, lately, ours, personal = (score.hit_rate for score in result.scores)
    assert personal > ours > lately > everywhere
    assert personal > 0.26
