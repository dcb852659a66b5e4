-- Every customer's segment at the newest announced snapshot, to join to other tables.
-- The day stands in the query, not in a subquery, so that BigQuery reads one partition and not all of them.
SELECT
  assignments.customer_id,
  assignments.segment_id,
  assignments.segment_name,
  assignments.is_rule_segment,
  assignments.margin,
  assignments.model_version,
  assignments.period,
  assignments.as_of,
  assignments.is_open
FROM `{dataset}.segment_assignments` AS assignments
WHERE assignments.period = DATE '{newest}'
