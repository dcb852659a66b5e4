# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: service_requests {
  label: "Answers"
  sql_table_name: `@{DATASET}.service_requests` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.day AS STRING), '|', COALESCE(CAST(${TABLE}.kind AS STRING), ''), '|', COALESCE(CAST(${TABLE}.outcome AS STRING), ''), '|', COALESCE(CAST(${TABLE}.segment_id AS STRING), ''), '|', COALESCE(CAST(${TABLE}.model_version AS STRING), '')) ;;
  }

  dimension: kind {
    label: "Kind"
    description: "lookup, score, or dropped: the service lost records here."
    type: string
    sql: ${TABLE}.kind ;;
  }

  dimension: outcome {
    label: "Outcome"
    description: "found, unknown or too_new; why they were lost, where kind is dropped."
    type: string
    sql: ${TABLE}.outcome ;;
  }

  dimension: segment_id {
    label: "Segment id"
    description: "Segment that was answered; null unless found."
    type: string
    sql: ${TABLE}.segment_id ;;
  }

  dimension: model_version {
    label: "Model version"
    description: "Model it was answered by."
    type: string
    sql: ${TABLE}.model_version ;;
  }

  dimension: n_requests {
    label: "Number of requests"
    description: "Records: answers about customers, and reports of lost records."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_requests ;;
  }

  dimension: mean_latency_ms {
    label: "Mean latency (ms)"
    description: "Mean time to answer, in milliseconds."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.mean_latency_ms ;;
  }

  dimension: n_dropped {
    label: "Number of dropped"
    description: "Records that the service lost."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_dropped ;;
  }

  dimension_group: day {
    label: "Day"
    description: "Partition key: UTC day of the request."
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

  measure: answers {
    label: "Answers"
    description: "Answers about customers, and reports of lost records."
    type: sum
    value_format: "#,##0"
    sql: ${TABLE}.n_requests ;;
  }

  measure: lost {
    label: "Lost"
    description: "Records that the service lost."
    type: sum
    value_format: "#,##0"
    sql: COALESCE(${TABLE}.n_dropped, 0) ;;
  }
}
