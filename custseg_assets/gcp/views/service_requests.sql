-- How often the service was asked for whom, by day; the prediction log is published by day, not by snapshot.
SELECT
  requests.period AS day,
  requests.kind,
  requests.outcome,
  requests.segment_id,
  requests.model_version,
  COUNT(*) AS n_requests,
  AVG(requests.latency_ms) AS mean_latency_ms,
  SUM(requests.n_dropped) AS n_dropped
FROM `{dataset}.prediction_log` AS requests
GROUP BY requests.period, requests.kind, requests.outcome, requests.segment_id, requests.model_version
