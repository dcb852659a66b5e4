-- How long the service took, by day; a request for many customers leaves many records and counts once.
-- BigQuery's quantiles are approximate; the pipeline's own table prediction_traffic has exact ones.
SELECT
  requests.day,
  requests.kind,
  requests.model_version,
  COUNT(requests.latency_ms) AS n_requests,
  APPROX_QUANTILES(requests.latency_ms, 100)[OFFSET(50)] AS latency_p50_ms,
  APPROX_QUANTILES(requests.latency_ms, 100)[OFFSET(95)] AS latency_p95_ms,
  APPROX_QUANTILES(requests.latency_ms, 100)[OFFSET(99)] AS latency_p99_ms
FROM (
  SELECT
    records.period AS day,
    records.kind,
    records.model_version,
    MAX(records.latency_ms) AS latency_ms
  FROM `{dataset}.prediction_log` AS records
  WHERE records.kind != 'dropped'
  GROUP BY records.period, records.kind, records.model_version, records.request_id
) AS requests
GROUP BY requests.day, requests.kind, requests.model_version
