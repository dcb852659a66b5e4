-- Every day that a snapshot was announced for or the service was asked on, to join the other views to.
SELECT announced.period AS day
FROM `{dataset}.published_snapshots` AS announced
UNION DISTINCT
SELECT records.period AS day
FROM `{dataset}.prediction_log` AS records
