# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: service_latency {
  label: "Latency"
  sql_table_name: `@{DATASET}.service_latency` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.day AS STRING), '|', COALESCE(CAST(${TABLE}.kind AS STRING), ''), '|', COALESCE(CAST(${TABLE}.model_version AS STRING), '')) ;;
  }

  dimension: kind {
    label: "Kind"
    description: "lookup, score or dropped."
    type: string
    sql: ${TABLE}.kind ;;
  }

  dimension: model_version {
    label: "Model version"
    description: "Model that answered; null where records were lost."
    type: string
    sql: ${TABLE}.model_version ;;
  }

  dimension: n_requests {
    label: "Number of requests"
    description: "Requests."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_requests ;;
  }

  dimension: latency_p50_ms {
    label: "Latency median (ms)"
    description: "Time within which 50 % of the requests were answered, in milliseconds."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.latency_p50_ms ;;
  }

  dimension: latency_p95_ms {
    label: "Latency p95 (ms)"
    description: "Time within which 95 % of the requests were answered, in milliseconds."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.latency_p95_ms ;;
  }

  dimension: latency_p99_ms {
    label: "Latency p99 (ms)"
    description: "Time within which 99 % of the requests were answered, in milliseconds."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.latency_p99_ms ;;
  }

  dimension_group: day {
    label: "Day"
    description: "UTC day of the requests."
    type: time
    timeframes: [
      raw,
      date,
      week,
      month,
      quarter,
      year,
    ]
    convert_tz: no
    datatype: date
    sql: ${TABLE}.day ;;
  }

  measure: requests {
    label: "Requests"
    description: "Requests."
    type: sum
    value_format: "#,##0"
    sql: ${TABLE}.n_requests ;;
  }

  measure: highest_p50_ms {
    label: "Highest median (ms)"
    description: "Time within which 50 % of a day's requests were answered, in milliseconds, approximately; the highest where several days, kinds or models are shown."
    type: max
    value_format: "0.00"
    sql: ${TABLE}.latency_p50_ms ;;
  }

  measure: highest_p95_ms {
    label: "Highest p95 (ms)"
    description: "Time within which 95 % of a day's requests were answered, in milliseconds, approximately; the highest where several days, kinds or models are shown."
    type: max
    value_format: "0.00"
    sql: ${TABLE}.latency_p95_ms ;;
  }

  measure: highest_p99_ms {
    label: "Highest p99 (ms)"
    description: "Time within which 99 % of a day's requests were answered, in milliseconds, approximately; the highest where several days, kinds or models are shown."
    type: max
    value_format: "0.00"
    sql: ${TABLE}.latency_p99_ms ;;
  }
}
