-- Every customer's segment at the newest announced snapshot and what it will probably do, to join to other tables; without
-- those whom a running campaign holds out.
-- The day stands in the query, not in a subquery, so that BigQuery reads one partition and not all of them.
SELECT
  assignments.customer_id,
  assignments.segment_id,
  assignments.segment_name,
  assignments.is_rule_segment,
  assignments.margin,
  predicted.p_order_30d,
  predicted.p_order_90d,
  predicted.expected_orders_90d,
  predicted.expected_spend_90d,
  assignments.model_version,
  assignments.period,
  assignments.as_of,
  assignments.is_open
FROM `{dataset}.segment_assignments` AS assignments
LEFT JOIN `{dataset}.customer_value` AS predicted
  ON predicted.customer_id = assignments.customer_id AND predicted.period = DATE '{newest}'
WHERE
  assignments.period = DATE '{newest}'
  AND NOT EXISTS (
    SELECT held.customer_id
    FROM `{dataset}.held_out_customers` AS held
    WHERE held.customer_id = assignments.customer_id
  )
