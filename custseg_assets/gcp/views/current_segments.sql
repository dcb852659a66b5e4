-- The same for the newest announced snapshot.
SELECT profiles.*
FROM `{dataset}.segment_profiles` AS profiles
WHERE profiles.period = DATE '{newest}'
