# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: drift_over_time {
  label: "Drift"
  sql_table_name: `@{DATASET}.drift_over_time` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.period AS STRING), '|', COALESCE(CAST(${TABLE}.score_name AS STRING), ''), '|', COALESCE(CAST(${TABLE}.subject AS STRING), '')) ;;
  }

  dimension: is_open {
    label: "Is open"
    description: "Whether the period is not over: the snapshot is as of the last day with data, so far."
    type: yesno
    sql: ${TABLE}.is_open ;;
  }

  dimension: verdict {
    label: "Verdict"
    description: "Of the whole report: stable, watch, breach or not enough data."
    type: string
    sql: ${TABLE}.verdict ;;
  }

  dimension: score_name {
    label: "Score name"
    description: "What was measured: psi, share_shift, …"
    type: string
    sql: ${TABLE}.score_name ;;
  }

  dimension: subject {
    label: "Subject"
    description: "The feature or segment it was measured on."
    type: string
    sql: ${TABLE}.subject ;;
  }

  dimension: score {
    label: "Score"
    description: "The drift score."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.score ;;
  }

  dimension: threshold {
    label: "Threshold"
    description: "The score from which on it alerts: the largest of the next three."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.threshold ;;
  }

  dimension: is_alert {
    label: "Is alert"
    description: "Whether the score is at or over the threshold."
    type: yesno
    sql: ${TABLE}.is_alert ;;
  }

  dimension: score_by_threshold {
    label: "Score by threshold"
    description: "The score divided by its threshold: an alert from 1 on."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.score_by_threshold ;;
  }

  dimension: model_version {
    label: "Model version"
    description: "Model in force when the snapshot came."
    type: string
    sql: ${TABLE}.model_version ;;
  }

  dimension: n_customers {
    label: "Number of customers"
    description: "Customers measured."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_customers ;;
  }

  dimension_group: period {
    label: "Period"
    description: "Partition key: first day of the snapshot's last period."
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
    sql: ${TABLE}.period ;;
  }

  dimension_group: as_of {
    label: "As of"
    description: "First instant that the snapshot does not observe."
    type: time
    timeframes: [
      raw,
      time,
      date,
      week,
      month,
      quarter,
      year,
    ]
    convert_tz: no
    datatype: datetime
    sql: ${TABLE}.as_of ;;
  }

  measure: scores {
    label: "Scores"
    description: "Scores."
    type: count
    value_format: "#,##0"
  }

  measure: alerts {
    label: "Alerts"
    description: "Scores that alert."
    type: sum
    value_format: "#,##0"
    sql: CASE WHEN ${TABLE}.is_alert THEN 1 ELSE 0 END ;;
  }

  measure: highest_score_by_threshold {
    label: "Highest score by threshold"
    description: "Highest score divided by its threshold: an alert from 1 on."
    type: max
    value_format: "0.00"
    sql: ${TABLE}.score_by_threshold ;;
  }

  measure: n_contradictions {
    label: "Number of contradictions"
    description: "Alerts below their threshold, and scores over it without one."
    type: sum
    value_format: "#,##0"
    hidden: yes
    sql: CASE WHEN ${TABLE}.is_alert = (${TABLE}.score < ${TABLE}.threshold) THEN 1 ELSE 0 END ;;
  }
}
