-- Every customer's segment at the newest announced snapshot, to join to other tables.
SELECT
  assignments.customer_id,
  assignments.segment_id,
  assignments.segment_name,
  assignments.is_rule_segment,
  assignments.margin,
  assignments.model_version,
  assignments.period
FROM `{dataset}.segment_assignments` AS assignments
WHERE assignments.period = (SELECT MAX(announced.period) FROM `{dataset}.published_snapshots` AS announced)
