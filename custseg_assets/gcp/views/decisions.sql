-- What was decided about retraining and about challengers, by whom and why, by snapshot.
SELECT
  asked.period,
  'retrain' AS question,
  asked.decision,
  asked.reasons,
  asked.model_version,
  'rules' AS decided_by
FROM `{dataset}.retrain_decision` AS asked
INNER JOIN `{dataset}.published_snapshots` AS announced ON announced.period = asked.period
UNION ALL
SELECT
  judged.period,
  'promotion' AS question,
  judged.decision,
  judged.reasons,
  judged.model_version,
  judged.decided_by
FROM `{dataset}.promotion_decision` AS judged
INNER JOIN `{dataset}.published_snapshots` AS announced ON announced.period = judged.period
