-- How many customers moved from which segment to which, and why, by snapshot.
SELECT
  moves.period,
  moves.as_of,
  moves.is_open,
  moves.from_segment_name,
  moves.to_segment_name,
  moves.cause,
  COUNT(*) AS n_customers,
  SUM(moves.revenue_change) AS revenue_change
FROM `{dataset}.segment_migrations` AS moves
INNER JOIN `{dataset}.published_snapshots` AS announced ON announced.period = moves.period
GROUP BY moves.period, moves.as_of, moves.is_open, moves.from_segment_name, moves.to_segment_name, moves.cause
