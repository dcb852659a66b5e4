-- One row per segment and announced snapshot: size, revenue, what it is like and what to do.
SELECT profiles.*
FROM `{dataset}.segment_profiles` AS profiles
INNER JOIN `{dataset}.published_snapshots` AS announced ON announced.period = profiles.period
