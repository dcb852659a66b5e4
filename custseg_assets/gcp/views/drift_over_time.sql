-- Every drift score against its threshold, with the report's verdict, by snapshot.
SELECT
  report.period,
  report.as_of,
  report.is_open,
  report.verdict,
  report.score_name,
  report.subject,
  report.score,
  report.threshold,
  report.is_alert,
  SAFE_DIVIDE(report.score, report.threshold) AS score_by_threshold,
  report.model_version,
  report.n_customers
FROM `{dataset}.drift_report` AS report
INNER JOIN `{dataset}.published_snapshots` AS announced ON announced.period = report.period
