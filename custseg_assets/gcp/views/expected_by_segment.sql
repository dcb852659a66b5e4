-- What the customers of each segment are expected to bring in the 90 days after an announced snapshot.
SELECT
  predicted.period,
  predicted.as_of,
  predicted.is_open,
  assignments.segment_id,
  assignments.segment_name,
  COUNT(*) AS n_customers,
  SUM(predicted.expected_orders_90d) AS expected_orders_90d,
  SUM(predicted.expected_spend_90d) AS expected_spend_90d
FROM `{dataset}.customer_value` AS predicted
INNER JOIN `{dataset}.published_snapshots` AS announced ON announced.period = predicted.period
INNER JOIN `{dataset}.segment_assignments` AS assignments
  ON assignments.period = predicted.period AND assignments.customer_id = predicted.customer_id
GROUP BY
  predicted.period, predicted.as_of, predicted.is_open, assignments.segment_id, assignments.segment_name
