-- What each segment buys more than the shop does, by announced snapshot.
SELECT products.*
FROM `{dataset}.segment_products` AS products
INNER JOIN `{dataset}.published_snapshots` AS announced ON announced.period = products.period
