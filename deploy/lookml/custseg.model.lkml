# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
connection: "@{CONNECTION}"
label: "Customer segments"
include: "/views/*.view.lkml"
include: "/dashboards/*.dashboard.lookml"
include: "/custseg.test.lkml"

explore: custseg {
  view_name: days
  label: "Customer segments"
  description: "Segments, moves, drift, decisions and the service's answers, by day."

  join: segments_over_time {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${segments_over_time.period_raw} ;;
  }

  join: customer_segments {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${customer_segments.period_raw} ;;
  }

  join: expected_by_segment {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${expected_by_segment.period_raw} ;;
  }

  join: products_by_segment {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${products_by_segment.period_raw} ;;
  }

  join: segment_moves {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${segment_moves.period_raw} ;;
  }

  join: drift_over_time {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${drift_over_time.period_raw} ;;
  }

  join: decisions {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${decisions.period_raw} ;;
  }

  join: service_requests {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${service_requests.day_raw} ;;
  }

  join: service_latency {
    type: left_outer
    relationship: one_to_many
    sql_on: ${days.day_raw} = ${service_latency.day_raw} ;;
  }
}
