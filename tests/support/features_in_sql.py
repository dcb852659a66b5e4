"""Features of a log that was cut off, in SQL: a second calculation that shares no code with the first."""

from __future__ import annotations

import duckdb
import polars as pl

from custseg_assets.domain.periods import Cadence, Lookback

_UNITS = {"monthly": "MONTH", "weekly": "WEEK", "daily": "DAY"}
_FEATURES = """
WITH bounds AS (
    SELECT
        max(invoiced_at)::DATE + 1 AS as_of,
        greatest({start}, date_trunc('{unit}', (SELECT min(invoiced_at) FROM clean)))::DATE AS start
    FROM clean
),
spans_of_days AS (
    -- Whole periods from the day to as_of: the newest span is 0.
    SELECT day, max(n) AS span
    FROM (SELECT DISTINCT invoiced_at::DATE AS day FROM clean), bounds, range(400) AS counts(n)
    WHERE n = 0 OR day < as_of - to_{unit}s(n)
    GROUP BY ALL
),
observed AS (
    SELECT clean.*, bounds.as_of, span
    FROM clean JOIN spans_of_days ON day = invoiced_at::DATE, bounds
    WHERE invoiced_at >= bounds.start AND invoiced_at < bounds.as_of
),
lines AS (SELECT * FROM observed WHERE NOT is_cancellation),
orders AS (
    SELECT customer_id, invoice_id, min(invoiced_at) AS first_at, min(country) AS country, sum(quantity) AS units
    FROM lines GROUP BY ALL
),
ordered AS (
    SELECT
        customer_id,
        datediff('day', max(invoiced_at), max(as_of)::TIMESTAMP)
            - (max(invoiced_at)::TIME > '00:00:00')::INT AS recency_days,
        count(DISTINCT invoice_id) AS frequency_orders,
        sum(line_amount) AS monetary_gross,
        sum(line_amount) / count(DISTINCT invoice_id) AS avg_order_value,
        count(DISTINCT product_id) AS n_products,
        sum(quantity) AS n_units,
        datediff('day', min(invoiced_at), max(as_of)::TIMESTAMP)
            - (min(invoiced_at)::TIME > '00:00:00')::INT AS tenure_days
    FROM lines GROUP BY ALL
),
dated AS (
    SELECT
        customer_id,
        CASE WHEN count(DISTINCT first_at::DATE) > 1
            THEN datediff('day', min(first_at)::DATE, max(first_at)::DATE) / (count(DISTINCT first_at::DATE) - 1)
        END AS days_between_orders
    FROM orders GROUP BY ALL
),
weekdays AS (
    SELECT DISTINCT ON (customer_id) customer_id, (isodow(first_at) - 1) AS favourite_weekday
    FROM orders GROUP BY customer_id, isodow(first_at) ORDER BY customer_id, count(*) DESC, isodow(first_at)
),
hours AS (
    SELECT DISTINCT ON (customer_id) customer_id, hour(first_at) AS favourite_hour
    FROM orders GROUP BY customer_id, hour(first_at) ORDER BY customer_id, count(*) DESC, hour(first_at)
),
countries AS (
    SELECT DISTINCT ON (customer_id) customer_id, country AS main_country
    FROM orders WHERE country IS NOT NULL
    GROUP BY customer_id, country ORDER BY customer_id, count(*) DESC, max(first_at) DESC, country
),
cancelled AS (
    SELECT customer_id, count(DISTINCT invoice_id) AS n_cancelled FROM observed WHERE is_cancellation GROUP BY ALL
),
net AS (SELECT customer_id, sum(line_amount) AS monetary_net, max(span) AS first_span FROM observed GROUP BY ALL),
spans AS (SELECT customer_id, span, sum(line_amount) AS spent FROM observed GROUP BY ALL),
filled AS (
    SELECT net.customer_id, first_span - n AS t, coalesce(spent, 0) AS spent
    FROM net, range(400) AS counts(n)
    LEFT JOIN spans ON spans.customer_id = net.customer_id AND spans.span = n
    WHERE n <= first_span
),
spend AS (
    SELECT
        customer_id,
        avg(spent) AS monthly_spend_mean,
        stddev_samp(spent) AS monthly_spend_std,
        CASE WHEN count(*) > 1 THEN regr_slope(spent, t) END AS monthly_spend_slope
    FROM filled GROUP BY ALL
)
SELECT
    net.customer_id,
    recency_days,
    coalesce(frequency_orders, 0) AS frequency_orders,
    coalesce(monetary_gross, 0) AS monetary_gross,
    monetary_net,
    avg_order_value,
    coalesce(n_products, 0) AS n_products,
    coalesce(n_units, 0) AS n_units,
    coalesce(n_cancelled, 0) AS n_cancelled_orders,
    coalesce(n_cancelled, 0) / (coalesce(n_cancelled, 0) + coalesce(frequency_orders, 0)) AS cancellation_rate,
    tenure_days,
    days_between_orders,
    favourite_weekday,
    favourite_hour,
    main_country,
    monthly_spend_mean,
    monthly_spend_std,
    monthly_spend_slope
FROM net
LEFT JOIN ordered USING (customer_id)
LEFT JOIN dated USING (customer_id)
LEFT JOIN weekdays USING (customer_id)
LEFT JOIN hours USING (customer_id)
LEFT JOIN countries USING (customer_id)
LEFT JOIN cancelled USING (customer_id)
LEFT JOIN spend USING (customer_id)
ORDER BY net.customer_id
"""


def present_features(clean: pl.DataFrame, lookback: Lookback, cadence: Cadence) -> pl.DataFrame:
    """``customer_features`` of a log as of the end of its last day, without ``period``.

    Args:
        clean: lines with the columns of ``clean_transactions``, of several days.
        lookback: length of the window in periods, or ``"all"``.
        cadence: length of a period.
    """
    unit = _UNITS[cadence]
    start = "DATE '1900-01-01'" if lookback == "all" else f"max(invoiced_at)::DATE + 1 - to_{unit.lower()}s({lookback})"
    with duckdb.connect() as connection:
        connection.register("clean", clean.to_arrow())
        return connection.sql(_FEATURES.format(start=start, unit=unit.lower())).pl()
