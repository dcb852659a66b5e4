# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
- dashboard: operations
  title: Drift, decisions and service
  layout: newspaper
  preferred_viewer: dashboards-next
  elements:
  - name: Highest score by threshold
    title: Highest score by threshold
    model: custseg
    explore: custseg
    type: looker_line
    fields:
    - drift_over_time.period_date
    - drift_over_time.score_name
    - drift_over_time.highest_score_by_threshold
    pivots:
    - drift_over_time.score_name
    filters:
      drift_over_time.key: -NULL
    sorts:
    - drift_over_time.period_date
    limit: 500
    row: 0
    col: 0
    width: 12
    height: 8
  - name: Verdicts
    title: Verdicts
    model: custseg
    explore: custseg
    type: looker_grid
    fields:
    - drift_over_time.period_date
    - drift_over_time.verdict
    - drift_over_time.scores
    - drift_over_time.alerts
    filters:
      drift_over_time.key: -NULL
    sorts:
    - drift_over_time.period_date desc
    limit: 500
    row: 0
    col: 12
    width: 12
    height: 8
  - name: Decisions
    title: Decisions
    model: custseg
    explore: custseg
    type: looker_grid
    fields:
    - decisions.period_date
    - decisions.question
    - decisions.decision
    - decisions.decided_by
    - decisions.model_version
    - decisions.reasons
    filters:
      decisions.key: -NULL
    sorts:
    - decisions.period_date desc
    - decisions.question
    limit: 500
    row: 8
    col: 0
    width: 12
    height: 8
  - name: Latency in milliseconds
    title: Latency in milliseconds
    model: custseg
    explore: custseg
    type: looker_line
    fields:
    - service_latency.day_date
    - service_latency.highest_p50_ms
    - service_latency.highest_p95_ms
    - service_latency.highest_p99_ms
    filters:
      service_latency.key: -NULL
    sorts:
    - service_latency.day_date
    limit: 500
    row: 8
    col: 12
    width: 12
    height: 8
  - name: Requests by model
    title: Requests by model
    model: custseg
    explore: custseg
    type: looker_column
    fields:
    - service_latency.day_date
    - service_latency.model_version
    - service_latency.requests
    pivots:
    - service_latency.model_version
    filters:
      service_latency.key: -NULL
    sorts:
    - service_latency.day_date
    limit: 500
    row: 16
    col: 0
    width: 12
    height: 8
  - name: Answers by outcome
    title: Answers by outcome
    model: custseg
    explore: custseg
    type: looker_column
    fields:
    - service_requests.day_date
    - service_requests.outcome
    - service_requests.answers
    - service_requests.lost
    pivots:
    - service_requests.outcome
    filters:
      service_requests.key: -NULL
    sorts:
    - service_requests.day_date
    limit: 500
    row: 16
    col: 12
    width: 12
    height: 8
