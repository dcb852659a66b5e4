"""What strangers read on Dagster's pages about assets and jobs: what it is, its use, and what to do when it is red.

What a table's columns mean belongs in ``domain.schemas``; what a check expects, in ``expectations.suites``.
"""

from __future__ import annotations

from collections.abc import Mapping

ASSETS: Mapping[str, str] = {
    "landed_files": (
        "The files dropped into the landing folder, each taken in once or moved aside with the reason. What they "
        "hold becomes raw_transactions. When it is red, read the reason in the run; a file that cannot be read makes "
        "nothing red, it is listed here under 'unreadable', so correct it and drop it again."
    ),
    "raw_transactions": (
        "Every line of the shop's log, typed, with nothing dropped, by calendar period. It is sorted into "
        "clean_transactions and rejected_transactions, and nothing else reads it. When a check is red, its examples "
        "name the file and the row: correct them there, or the column names under [source] in custseg.toml."
    ),
    "clean_transactions": (
        "The lines that count: orders and cancellations of known customers. All figures about customers are made from "
        "them. When a check is red, its examples name the lines; correct the source or the rules under [cleaning], "
        "and run again."
    ),
    "rejected_transactions": (
        "The lines that do not count, each with its reason. Nobody computes with them; they show what a log loses. "
        "When the share of a period is unlike the others', look whether that period was exported differently, and "
        "drop a corrected file."
    ),
    "customer_features": (
        "What each customer did in the window of a snapshot: recency, frequency, spend and more. Segments, drift and "
        "the release are made from it. When a check is red, nothing is made from the snapshot until its transactions "
        "are right; make those again first."
    ),
    "scaled_features": (
        "The segmentation features on the scale of the model in force, the matrix that K-means sees. Training and the "
        "drift report read it. When a check is red, customer_features or the model changed without it: materialise it "
        "again, after customer_features."
    ),
    "model_candidates": (
        "Each number of segments that was tried on a snapshot, with how steady and how distinct the segments are. The "
        "chosen one becomes segmentation_model; where a model is in force and nobody asked for another, nothing is "
        "tried. When it is red, the training failed: read its log in the run and execute the run again."
    ),
    "segmentation_model": (
        "The model made of the chosen number of segments, a challenger until it is decided about, with its model "
        "card. promotion_decision compares it with the model in force. When it is red, the champion stays in force; "
        "execute the run again from the failure."
    ),
    "promotion_decision": (
        "PROMOTE, HOLD or REJECT: whether the challenger takes over, with the reasons. It says which model every "
        "later snapshot uses; 'custseg promote' and 'custseg rollback' overrule it. When it is red, the champion "
        "stays in force; execute the run again from the failure."
    ),
    "segment_assignments": (
        "Which segment each known customer is in at a snapshot, by the model in force. Profiles, moves, offers and "
        "the release are made from it. When a check is red, the release before stays in service; look at the "
        "examples, then make customer_features and this again."
    ),
    "segment_profiles": (
        "What the segments are like: how many customers, what they spend, what to do about them. The dashboard and the "
        "release show it. When it is red, the release before stays in service; make segment_assignments and this again."
    ),
    "segment_migrations": (
        "Who changed segment since the snapshot before, and why: by what they did, by time, or by a new model. The "
        "dashboard shows the moves. When a check is red, make segment_assignments of both snapshots again, then this."
    ),
    "product_recommendations": (
        "What to offer to each customer, by the method that would have done best on the last period. The release has "
        "it for lookups. When it is red, the release before stays in service; execute the run again."
    ),
    "segment_products": (
        "What the customers of each segment buy more than the shop's, with how many buyers show it. The dashboard and "
        "the release show it. When it is red, the release before stays in service; execute the run again."
    ),
    "value_model": (
        "What predicts best how customers will go on: methods tried on earlier days of the log, what each learnt from, "
        "and how near it came. customer_value is made by the one that won. When a check is red, customer_value stays "
        "as it was; make segment_assignments and this again."
    ),
    "customer_value": (
        "What each known customer will probably do in the next 90 days: whether it orders, how often, for how much, "
        "each with an interval. Campaigns and lookups use it. When a check is red, look at its examples, then make "
        "segment_assignments and this again; a warning about the total may only be the season."
    ),
    "drift_report": (
        "Whether customers changed since the model in force was trained, score by score against its threshold, with a "
        "verdict. retrain_decision follows it. An alert makes nothing red; when a check is red, the report is "
        "damaged: make customer_features, scaled_features and this again."
    ),
    "retrain_decision": (
        "RETRAIN or WAIT: whether the drift reports call for a new model, with the reasons. The sensor "
        "retrain_on_drift acts on it. When it is red, nothing is trained by itself; execute the run again, or start "
        "the job retrain."
    ),
    "prediction_log": (
        "What the service answered about customers, one record each, taken in from the files it writes. Traffic and "
        "request drift are made from it. When a check is red, the service lost records or wrote others than expected: "
        "look at its log and its disk."
    ),
    "rejected_predictions": (
        "Lines in the service's files that are no records, with the reason. Nobody computes with them. When the check "
        "is red, another program writes into that folder, or the service is newer than this installation."
    ),
    "prediction_traffic": (
        "How much the service was asked each day, what came of it, and how long answers took. It is for whoever runs "
        "the service. When it is red, nothing else is late; execute the run again."
    ),
    "prediction_drift": (
        "Whether the customers whom the service is asked about are like those the answering model was trained on, by "
        "week. It is for whoever uses the answers; no training follows from it. When it is red, execute the run again."
    ),
    "campaign_groups": (
        "Who of a campaign is written to and who is held out, fixed before its start by a salted hash. It is copied "
        "from the record that 'custseg campaign start' keeps, and never made of other segments. When a check is red, "
        "the record is damaged: 'custseg verify' says how."
    ),
    "campaign_report": (
        "What came of each campaign: return and capped spend of audience and holdout, with intervals and a verdict. It "
        "is for whoever planned the campaign. When a check is red, make clean_transactions and this again."
    ),
    "serving_release": (
        "The newest snapshot as a folder of hashed files that never changes, which the service loads. It is all that "
        "passes from here to the service and the dashboard. When it is red, the service goes on with the release "
        "before; mend what the run names and execute it again from the failure."
    ),
    "exported_models": (
        "Every promoted model in a git repository, with what it was made from; DVC keeps the rows. Whoever lost the "
        "home makes one of it again there. When it is red, the repository is as it was before; mend what the run names "
        "and execute it again, or do 'custseg dvc export MODEL'."
    ),
    "published_to_bigquery": (
        "The snapshots' tables and the prediction log as BigQuery has them, with views and a link to a report. Other "
        "programs read them there. When it is red, what was published before is still whole; mend the access that the "
        "run names and execute it again."
    ),
}
"""By name of the asset."""

JOBS: Mapping[str, str] = {
    "take_in": "Take in the files that wait in the landing folder. Without any it does nothing.",
    "ingest": "Read periods of the log, and sort their lines into clean and rejected ones. The step after take_in.",
    "features": "Measure what each customer did in the window of snapshots. Comes after ingest.",
    "train": (
        "Train the first model: try numbers of segments on the first snapshot that has enough customers, and decide. "
        "Where a model is in force already nothing is trained; the job retrain does that."
    ),
    "scale": "Put the features of snapshots on the scale of the model in force.",
    "hold": "Record for snapshots that nothing was trained on them, so that the model in force stays.",
    "segment": (
        "Put customers into the segments of the model in force, describe the segments, look for drift, and release "
        "the newest snapshot to the service."
    ),
    "snapshot": "All steps from customers' features to the release, for snapshots that come while a model is in force.",
    "retrain": (
        "Train a challenger on the newest closed snapshot and compare it with the model in force. It takes over only "
        "where it is better; other snapshots stay as they are. Then run segment, or leave that to the sensors."
    ),
    "prediction_log": "Take in what the service has logged, and count what it was asked and how it answered.",
    "campaigns": "Write down the groups of campaigns and compare them. Without a campaign it does nothing.",
    "export_models": "Export promoted models that the configured repository lacks. Without any it does nothing.",
    "publish": "Publish snapshots and the prediction log to BigQuery. Where all is published already it only says so.",
}
"""By name of the job."""
